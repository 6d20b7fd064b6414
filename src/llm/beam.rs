//! Beam searches in the step loop: candidates from the device in, forks, drops and tokens for the scheduler out.

use super::request::ActiveRequest;
use super::step::Sampled;
use super::{Event, Llm, LlmError};
use crate::backend::{MAX_TOP_K, TokenScore};
use crate::engine::{Batch, FinishReason, RequestId, SampledToken, SeqId, TokenEvent, TokenId};
use crate::sampling::{BeamSearch, ParamError, SampleError, SamplingParams, TokenLogprob, ranked};
use std::collections::{BTreeMap, BTreeSet};

/// One request's beam search and its sequences in the scheduler.
pub(super) struct Beams {
    search: BeamSearch,
    num_candidates: u32,
    live: Vec<LiveBeam>,
    /// Sequences are never named twice.
    next_index: u32,
}

/// A live beam.
struct LiveBeam {
    /// Index of its sequence.
    index: u32,
    /// Its next tokens, once the device has given them. Beams get theirs in different steps when the token budget is
    /// smaller than what they compute, as after a preemption.
    candidates: Option<Vec<TokenLogprob>>,
}

/// What the scheduler is to do with a request's sequences, in this order.
struct Moves {
    /// Parent and child.
    forks: Vec<(u32, u32)>,
    drops: Vec<u32>,
    tokens: Vec<(u32, TokenId)>,
}

/// Whether the device can give as many candidates as the search needs.
///
/// # Errors
/// When too many tokens end a beam, or too many log probabilities are wanted.
pub(super) fn check_candidates(params: &SamplingParams, stop_tokens: usize, vocab_size: u32) -> Result<(), ParamError> {
    let width = params.beam_width().expect("a beam search") as usize;
    let most = (MAX_TOP_K.min(vocab_size)) as usize;
    if width + stop_tokens > most {
        let max = most.saturating_sub(width);
        return Err(ParamError::TooMany { field: "stop_token_ids", len: stop_tokens, max });
    }
    match params.logprobs {
        Some(logprobs) if logprobs > MAX_TOP_K => Err(ParamError::Range {
            field: "logprobs",
            value: logprobs.to_string(),
            allowed: format!("at most {MAX_TOP_K} with beam search"),
        }),
        _ => Ok(()),
    }
}

/// Adds the logits rows of beams that end with their last known token to `rows`. Returns how many candidates of each are
/// wanted.
pub(super) fn candidate_rows(batch: &Batch, active: &BTreeMap<RequestId, ActiveRequest>, rows: &mut Vec<u32>) -> u32 {
    let mut top_k = 0;
    for sample in &batch.sample_rows {
        if let Some(beams) = active.get(&sample.seq.request).and_then(|request| request.beams.as_ref()) {
            rows.push(sample.row);
            top_k = top_k.max(beams.num_candidates);
        }
    }
    top_k
}

impl Beams {
    /// A search whose one beam is the prompt, sequence 0. `stop_token_ids` have passed [`check_candidates`].
    pub(super) fn new(params: &SamplingParams, max_tokens: u32, stop_token_ids: Vec<TokenId>, vocab_size: u32) -> Self {
        let num_candidates = params.beam_candidates(stop_token_ids.len()).expect("a beam search").min(vocab_size);
        Self {
            search: BeamSearch::new(params, max_tokens, stop_token_ids),
            num_candidates,
            live: vec![LiveBeam { index: 0, candidates: None }],
            next_index: 1,
        }
    }

    /// Takes a beam's candidates. Those of a beam that was preempted while it waited come a second time.
    ///
    /// # Errors
    /// When they are no log probabilities.
    fn put(&mut self, index: u32, scores: &[TokenScore]) -> Result<(), SampleError> {
        let candidates = ranked(&scores[..self.num_candidates as usize])?;
        let beam = self.live.iter_mut().find(|beam| beam.index == index).expect("only live beams are computed");
        beam.candidates = Some(candidates);
        Ok(())
    }

    /// Chooses the beams of the next step. A beam's first continuation stays in its sequence, others fork from it.
    fn advance(&mut self) -> Moves {
        let candidates: Vec<Vec<TokenLogprob>> =
            self.live.iter_mut().map(|beam| beam.candidates.take().expect("all beams have theirs")).collect();
        let next = self.search.advance(&candidates);
        let parents: Vec<u32> = self.live.iter().map(|beam| beam.index).collect();
        let mut continued = vec![false; parents.len()];
        let mut moves = Moves { forks: Vec::new(), drops: Vec::new(), tokens: Vec::new() };
        self.live.clear();
        for continuation in next {
            let parent = parents[continuation.parent];
            let mut index = parent;
            if std::mem::replace(&mut continued[continuation.parent], true) {
                index = self.next_index;
                self.next_index += 1;
                moves.forks.push((parent, index));
            }
            moves.tokens.push((index, continuation.token));
            self.live.push(LiveBeam { index, candidates: None });
        }
        moves.drops =
            parents.iter().zip(continued).filter(|(_, continued)| !continued).map(|(&index, _)| index).collect();
        moves
    }
}

impl Llm {
    /// Gives the beams of the step in flight their candidates, `[rows][top_k]`, and lets every search advance whose beams
    /// all have them. A search that ends tells all its completions.
    ///
    /// # Errors
    /// When the tokenizer cannot decode a completion.
    pub(super) fn advance_beams(
        &mut self,
        rows: &[u32],
        top_k: &[TokenScore],
        sampled: &mut Sampled,
        events: &mut Vec<Event>,
    ) -> Result<(), LlmError> {
        let per_row = top_k.len() / rows.len().max(1);
        let mut arrived = BTreeSet::new();
        for sample in &self.scheduler.batch().sample_rows {
            let request = sample.seq.request;
            let Some(beams) = self.active.get_mut(&request).and_then(|active| active.beams.as_mut()) else { continue };
            let at = rows.binary_search(&sample.row).expect("the row was asked for") * per_row;
            arrived.insert(request);
            if let Err(error) = beams.put(sample.seq.index, &top_k[at..at + per_row]) {
                sampled.fail(request, error);
            }
        }
        for request in arrived {
            let active = self.active.get_mut(&request).expect("just seen");
            let beams = active.beams.as_mut().expect("just seen");
            let seq = |index| SeqId { request, index };
            let all_await = beams.live.iter().all(|beam| self.scheduler.awaits_token(seq(beam.index)));
            if !all_await || sampled.has_failed(request) {
                continue;
            }
            let moves = beams.advance();
            if beams.search.is_done() {
                active.finish_beams(request, &self.eos_token_ids, events)?;
            }
            for (parent, child) in moves.forks {
                self.scheduler.fork(seq(parent), child);
            }
            for index in moves.drops {
                self.scheduler.drop_seq(seq(index));
            }
            let tokens = moves.tokens.into_iter();
            sampled.tokens.extend(tokens.map(|(index, token)| SampledToken { seq: seq(index), token }));
        }
        Ok(())
    }
}

impl ActiveRequest {
    /// The best hypotheses of a search that has ended, token by token.
    fn finish_beams(
        &mut self,
        request: RequestId,
        eos_token_ids: &[TokenId],
        events: &mut Vec<Event>,
    ) -> Result<(), LlmError> {
        let beams = self.beams.as_ref().expect("a beam search");
        let hypotheses = beams.search.hypotheses()[..self.params.n as usize].to_vec();
        for (index, hypothesis) in (0..).zip(hypotheses) {
            let last = hypothesis.token_ids.len() - 1;
            let mut logprobs = hypothesis.logprobs.into_iter();
            for (i, &token) in hypothesis.token_ids.iter().enumerate() {
                let finish = (i == last).then_some(match hypothesis.stopped {
                    true => FinishReason::Stop(token),
                    false => FinishReason::Length,
                });
                let position = self.prompt_len + i as u32;
                let event = TokenEvent { seq: SeqId { request, index }, token, position, finish };
                let (mut update, _) = self.push(&event, logprobs.next(), eos_token_ids)?;
                if let (Event::Token(update), true) = (&mut update, i == last)
                    && let Some(finish) = &mut update.finish
                {
                    finish.score = Some(hypothesis.score);
                }
                events.push(update);
            }
        }
        Ok(())
    }
}
