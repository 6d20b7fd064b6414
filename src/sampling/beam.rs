//! Beam search as a pure state machine: candidates of every live beam in, the beams of the next step out.
//!
//! Same decisions as `generate(num_beams=..., do_sample=False)` of Hugging Face transformers 5
//! (`GenerationMixin._beam_search`).

use std::cmp::Ordering;

use super::{EarlyStopping, SamplingParams, TokenLogprob, TokenLogprobs};
use crate::engine::TokenId;

/// A live beam: completion tokens that may go on.
#[derive(Debug, Clone, PartialEq)]
struct Beam {
    token_ids: Vec<TokenId>,
    /// One for each token, if asked for.
    logprobs: Vec<TokenLogprobs>,
    /// Sum of the tokens' log probabilities.
    sum: f64,
}

/// A finished beam.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// Its completion tokens, the stop token included.
    pub token_ids: Vec<TokenId>,
    /// Log probabilities of each token, if asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// Sum of the log probabilities / (number of tokens ^ `length_penalty`).
    pub score: f64,
    /// Whether its last token is a stop token; if not, it reached `max_tokens`.
    pub stopped: bool,
}

/// A beam of the next step: one of this step's beams and its next token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continuation {
    /// Which of the beams before, see [`BeamSearch::advance`].
    pub parent: usize,
    /// The token it goes on with.
    pub token: TokenId,
}

/// One request's beam search.
#[derive(Debug, Clone)]
pub struct BeamSearch {
    width: usize,
    length_penalty: f64,
    early_stopping: EarlyStopping,
    max_tokens: u32,
    min_tokens: u32,
    /// How many of the likeliest tokens to report, if log probabilities are asked for.
    logprobs: Option<u32>,
    stop_token_ids: Vec<TokenId>,
    /// Completion tokens of every live beam.
    num_tokens: u32,
    /// Best first.
    live: Vec<Beam>,
    /// Best first, at most `width`.
    finished: Vec<Hypothesis>,
    done: bool,
}

/// A way to go on, among those of all beams.
#[derive(Debug, Clone, Copy)]
struct Choice<'a> {
    parent: usize,
    candidate: &'a TokenLogprob,
    sum: f64,
}

impl BeamSearch {
    /// A search with one live beam, the prompt. `max_tokens` is the longest completion, `stop_token_ids` are all the
    /// tokens that end a beam (the model's end-of-sequence tokens among them).
    ///
    /// # Panics
    /// Unless `params` ask for a beam search and are [valid](SamplingParams::validate).
    pub fn new(params: &SamplingParams, max_tokens: u32, stop_token_ids: Vec<TokenId>) -> Self {
        let width = params.beam_width().expect("a request for beam search") as usize;
        assert!(width > 0 && max_tokens > 0 && params.length_penalty.is_finite(), "parameters were validated");
        Self {
            width,
            length_penalty: params.length_penalty,
            early_stopping: params.early_stopping,
            max_tokens,
            min_tokens: params.min_tokens,
            logprobs: params.logprobs,
            stop_token_ids,
            num_tokens: 0,
            live: vec![Beam { token_ids: Vec::new(), logprobs: Vec::new(), sum: 0.0 }],
            finished: Vec::new(),
            done: false,
        }
    }

    /// One step. `candidates` are, for each live beam in order, its next tokens, likeliest first: at least
    /// [`SamplingParams::beam_candidates`]. Returns the beams of the next step, best first; their places in this list
    /// are what [`Continuation::parent`] means next time. None are left when the search is done.
    ///
    /// The best candidates of all beams are ranked by their sums of log probabilities (ties: the better beam, then the
    /// likelier token). A stop token among the first `width` finishes a hypothesis, the first `width` others live on;
    /// with the last of `max_tokens` all of the first `width` finish.
    pub fn advance(&mut self, candidates: &[Vec<TokenLogprob>]) -> Vec<Continuation> {
        assert!(!self.done, "the search is done");
        assert_eq!(candidates.len(), self.live.len(), "candidates of every live beam");
        let choices = self.rank(candidates);
        let can_stop = self.num_tokens >= self.min_tokens;
        self.num_tokens += 1;
        let is_last = self.num_tokens >= self.max_tokens;
        let (mut live, mut next) = (Vec::new(), Vec::new());
        let choices = choices.iter().map(|choice| (choice, self.stop_token_ids.contains(&choice.candidate.token)));
        // A stop token that may not stop yet cannot be taken at all.
        for (rank, (choice, is_stop)) in choices.filter(|(_, is_stop)| can_stop || !is_stop).enumerate() {
            if rank >= self.width && (is_last || next.len() == self.width) {
                break;
            }
            if !is_stop && !is_last {
                if next.len() < self.width {
                    live.push(self.extend(choice, candidates));
                    next.push(Continuation { parent: choice.parent, token: choice.candidate.token });
                }
            } else if rank < self.width {
                let score = self.score(choice.sum, self.num_tokens);
                let Beam { token_ids, logprobs, .. } = self.extend(choice, candidates);
                let hypothesis = Hypothesis { token_ids, logprobs, score, stopped: is_stop };
                let place = self.finished.partition_point(|other| other.score >= score);
                self.finished.insert(place, hypothesis);
            }
        }
        self.finished.truncate(self.width);
        self.live = live;
        self.done = is_last || self.has_converged();
        if self.done {
            self.live.clear();
            next.clear();
        }
        next
    }

    /// Whether the search has ended.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The finished hypotheses, best first.
    pub fn hypotheses(&self) -> &[Hypothesis] {
        &self.finished
    }

    /// All candidates of all beams, best first.
    fn rank<'a>(&self, candidates: &'a [Vec<TokenLogprob>]) -> Vec<Choice<'a>> {
        let mut choices: Vec<Choice<'a>> = Vec::new();
        for (parent, (beam, candidates)) in self.live.iter().zip(candidates).enumerate() {
            let choice = |candidate: &'a TokenLogprob| Choice {
                parent,
                candidate,
                sum: beam.sum + f64::from(candidate.logprob),
            };
            choices.extend(candidates.iter().map(choice));
        }
        // Stable: equals stay in the order of their beams, and within a beam in that of its candidates.
        choices.sort_by(|a, b| b.sum.partial_cmp(&a.sum).unwrap_or(Ordering::Equal));
        choices
    }

    fn extend(&self, choice: &Choice<'_>, candidates: &[Vec<TokenLogprob>]) -> Beam {
        let mut beam = self.live[choice.parent].clone();
        beam.token_ids.push(choice.candidate.token);
        beam.sum = choice.sum;
        if let Some(top) = self.logprobs {
            let top = candidates[choice.parent].iter().take(top as usize).copied().collect();
            beam.logprobs.push(TokenLogprobs { chosen: *choice.candidate, top });
        }
        beam
    }

    fn score(&self, sum: f64, num_tokens: u32) -> f64 {
        sum / f64::from(num_tokens).powf(self.length_penalty)
    }

    /// Whether there are `width` hypotheses, and no live beam is expected to beat the worst of them.
    fn has_converged(&self) -> bool {
        if self.finished.len() < self.width {
            return false;
        }
        let length = match self.early_stopping {
            EarlyStopping::Immediate => return true,
            EarlyStopping::Never if self.length_penalty > 0.0 => self.max_tokens,
            EarlyStopping::Heuristic | EarlyStopping::Never => self.num_tokens,
        };
        let worst = self.finished.last().expect("the search is at least one beam wide").score;
        self.live.first().is_none_or(|best| self.score(best.sum, length) <= worst)
    }
}

#[cfg(test)]
#[path = "beam_tests.rs"]
mod tests;
