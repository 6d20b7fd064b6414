//! A request's results, collected.

use super::{Event, Finish};
use crate::engine::{RequestAccounting, RequestId, TokenId};
use crate::sampling::{SamplingParams, TokenLogprobs};

/// One completion of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Completion {
    /// Which of the request's sequences it was.
    pub index: u32,
    /// Its text.
    pub text: String,
    /// Its tokens, the stop token included.
    pub token_ids: Vec<TokenId>,
    /// Log probabilities of each token, if asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// Why it ended; of a beam search, with its score.
    pub finish: Option<Finish>,
}

impl Completion {
    /// Of a beam search: sum of the log probabilities / (tokens ^ `length_penalty`).
    pub fn score(&self) -> Option<f64> {
        self.finish.as_ref()?.score
    }

    /// Sum of the log probabilities of the tokens; 0 unless they were asked for.
    pub fn cumulative_logprob(&self) -> f64 {
        self.logprobs.iter().map(|l| f64::from(l.chosen.logprob)).sum()
    }

    /// Mean log probability of the tokens, by which `best_of` chooses, as OpenAI's API has it; 0 unless they were asked for.
    pub fn mean_logprob(&self) -> f64 {
        self.cumulative_logprob() / self.logprobs.len().max(1) as f64
    }
}

/// Everything a request gave.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestOutput {
    /// The request.
    pub request: RequestId,
    /// Its prompt.
    pub prompt_token_ids: Vec<TokenId>,
    /// Log probabilities of the prompt's tokens but the first, if asked for.
    pub prompt_logprobs: Vec<TokenLogprobs>,
    /// Its completions: by index, or with `best_of` the `n` likeliest, likeliest first. A beam search numbers its own
    /// from the best.
    pub completions: Vec<Completion>,
    /// What it has cost; `None` until it is done.
    pub accounting: Option<RequestAccounting>,
    n: usize,
}

impl RequestOutput {
    /// With nothing in it yet.
    pub fn new(request: RequestId, prompt_token_ids: Vec<TokenId>, params: &SamplingParams) -> Self {
        let completions =
            (0..params.num_sequences()).map(|index| Completion { index, ..Completion::default() }).collect();
        Self {
            request,
            prompt_token_ids,
            prompt_logprobs: Vec::new(),
            completions,
            accounting: None,
            n: params.n as usize,
        }
    }

    /// Adds what an event of this request tells.
    pub fn push(&mut self, event: Event) {
        match event {
            Event::PromptLogprobs { logprobs, .. } => self.prompt_logprobs.extend(logprobs),
            Event::Token(update) => {
                let completion = &mut self.completions[update.index as usize];
                completion.text.push_str(&update.text);
                completion.token_ids.extend(update.token);
                completion.logprobs.extend(update.logprobs);
                completion.finish = update.finish;
            }
            Event::Done { accounting, .. } => {
                self.accounting = Some(accounting);
                if self.completions.len() > self.n {
                    let score = Completion::mean_logprob;
                    self.completions.sort_by(|a, b| score(b).total_cmp(&score(a)).then(a.index.cmp(&b.index)));
                    self.completions.truncate(self.n);
                }
            }
        }
    }

    /// Whether every sequence has ended and the blocks are back.
    pub fn is_done(&self) -> bool {
        self.accounting.is_some()
    }

    /// Tokens of all completions.
    pub fn completion_tokens(&self) -> usize {
        self.completions.iter().map(|completion| completion.token_ids.len()).sum()
    }
}
