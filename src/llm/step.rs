//! One step: schedule, forward, sample, update.

use super::beam::candidate_rows;
use super::request::ActiveRequest;
use super::{Event, Finish, FinishCause, HostTimes, Llm, LlmError, TokenUpdate};
use crate::backend::{Laps, StepOutput};
use crate::engine::{Batch, RequestId, SampledToken, ScheduledSeq, SeqId};
use crate::model::WantedRows;
use crate::sampling::{Draw, History, SampleError, TokenLogprobs, token_logprobs};
use crate::structured::Grammar;
use std::collections::BTreeMap;
use std::time::Instant;

/// What sampling a batch gave.
#[derive(Default)]
pub(super) struct Sampled {
    pub(super) tokens: Vec<SampledToken>,
    logprobs: BTreeMap<SeqId, TokenLogprobs>,
    failed: Vec<(RequestId, SampleError)>,
}

impl Sampled {
    /// Notes that a request cannot go on.
    pub(super) fn fail(&mut self, request: RequestId, error: SampleError) {
        if !self.has_failed(request) {
            self.failed.push((request, error));
        }
    }

    pub(super) fn has_failed(&self, request: RequestId) -> bool {
        self.failed.iter().any(|(failed, _)| *failed == request)
    }
}

impl Llm {
    /// Runs one step and appends what came of it to `events`. `false` when there was nothing to do.
    ///
    /// # Errors
    /// [`LlmError::Backend`] when the device fails: the engine is not usable any more. What concerns one request alone is
    /// an event of that request.
    pub fn step(&mut self, events: &mut Vec<Event>) -> Result<bool, LlmError> {
        let mut laps = Laps::start(self.profile.is_some());
        let Some(batch) = self.scheduler.schedule() else { return Ok(false) };
        let mut times = HostTimes { schedule: laps.lap(), ..HostTimes::default() };
        let rows = logits_rows_to_read(batch, &self.active);
        let (top_k_rows, top_k) = candidate_rows(batch, &self.active);
        let start = Instant::now();
        let swapped = self.runner.swap(batch)?;
        times.swap = laps.lap();
        let computing = Instant::now();
        let output = self.runner.forward(batch, WantedRows { whole: &rows, top_k_rows: &top_k_rows, top_k })?;
        laps.lap();
        if let Some(meter) = &mut self.costs {
            if swapped > 0 {
                meter.copied(swapped, computing - start);
            }
            meter.computed(batch.token_ids.len(), computing.elapsed());
            if let Some(costs) = meter.costs() {
                self.scheduler.set_preemption_costs(costs);
            }
        }
        let mut sampled = self.sample(&rows, &output, events);
        self.advance_beams(&top_k_rows, &output.top_k, &mut sampled, events)?;
        times.sample = laps.lap();
        let mut token_events = Vec::with_capacity(sampled.tokens.len());
        for (request, _) in &sampled.failed {
            self.scheduler.abort(*request);
        }
        self.scheduler.update(&sampled.tokens, &mut token_events);
        self.fail(sampled.failed, events);
        let mut logprobs = sampled.logprobs;
        for event in &token_events {
            let request = self.active.get_mut(&event.seq.request).filter(|request| request.beams.is_none());
            let Some(request) = request else { continue };
            let (update, ended) = request.push(event, logprobs.remove(&event.seq), &self.eos_token_ids)?;
            events.push(update);
            if ended {
                self.scheduler.finish_seq(event.seq);
            }
        }
        for ended in self.scheduler.ended_requests() {
            if self.active.remove(&ended.request).is_some() {
                events.push(Event::Done { request: ended.request, accounting: ended.accounting });
            }
        }
        times.update = laps.lap();
        self.add_to_profile(times);
        Ok(true)
    }

    fn add_to_profile(&mut self, times: HostTimes) {
        let Some(profile) = &mut self.profile else { return };
        if let Some(forward) = self.runner.backend_mut().take_profile() {
            profile.add(&forward, times, !self.scheduler.is_idle());
        }
    }

    /// Draws the tokens of the batch in flight, and prompt logprobs on the way.
    fn sample(&mut self, rows: &[u32], output: &StepOutput, events: &mut Vec<Event>) -> Sampled {
        let vocab_size = self.runner.config().vocab_size as usize;
        let batch = self.scheduler.batch();
        let logits = |row: u32| {
            let at = rows.binary_search(&row).expect("the row was asked for") * vocab_size;
            at..at + vocab_size
        };
        for seq in &batch.seqs {
            let Some(active) = self.active.get(&seq.seq.request) else { continue };
            let wanted = active.params.prompt_logprobs.filter(|_| seq.seq.index == 0);
            let Some(top) = wanted else { continue };
            let tokens = self.scheduler.tokens(seq.seq).expect("scheduled sequences are alive");
            let found: Vec<(u32, TokenLogprobs)> = prompt_rows(batch, seq, active.prompt_len)
                .map(|(row, next)| (next, token_logprobs(&output.logits[logits(row)], tokens[next as usize], top)))
                .collect();
            if let Some(&(first_position, _)) = found.first() {
                let logprobs = found.into_iter().map(|(_, logprobs)| logprobs).collect();
                events.push(Event::PromptLogprobs { request: seq.seq.request, first_position, logprobs });
            }
        }
        let mut sampled = Sampled::default();
        let mut scratch = Vec::new();
        for sample in &batch.sample_rows {
            let Some(active) = self.active.get_mut(&sample.seq.request) else { continue };
            if active.beams.is_some() || sampled.has_failed(sample.seq.request) {
                continue;
            }
            if !active.params.needs_logits() {
                let token = output.argmax[sample.row as usize];
                sampled.tokens.push(SampledToken { seq: sample.seq, token });
                continue;
            }
            // The forks of a prompt join the scheduler with their first token; until then they are their parent.
            let parent = SeqId { index: 0, ..sample.seq };
            let tokens = self
                .scheduler
                .tokens(sample.seq)
                .or_else(|| self.scheduler.tokens(parent))
                .expect("a sequence that samples is alive");
            let (prompt, generated) = tokens.split_at(active.prompt_len as usize);
            let draw = Draw { seed: active.seed, sample_index: sample.seq.index, position: tokens.len() as u32 };
            // A row may be sampled more than once, and the sampler changes what it is given.
            scratch.clear();
            scratch.extend_from_slice(&output.logits[logits(sample.row)]);
            let allowed = match active.grammar(sample.seq.index).map(Grammar::allowed).transpose() {
                Ok(allowed) => allowed,
                Err(error) => {
                    sampled.fail(sample.seq.request, SampleError::Grammar(error));
                    continue;
                }
            };
            let history = History { prompt, output: generated };
            match self.sampler.sample(&mut scratch, &active.params, allowed.as_deref(), history, draw) {
                Ok(token) => {
                    if let Some(Err(error)) =
                        active.grammar(sample.seq.index).map(|grammar| grammar.accept(token.token))
                    {
                        sampled.fail(sample.seq.request, SampleError::Grammar(error));
                        continue;
                    }
                    sampled.tokens.push(SampledToken { seq: sample.seq, token: token.token });
                    if let Some(logprobs) = token.logprobs {
                        sampled.logprobs.insert(sample.seq, logprobs);
                    }
                }
                Err(error) => sampled.fail(sample.seq.request, error),
            }
        }
        sampled
    }

    fn fail(&mut self, failed: Vec<(RequestId, SampleError)>, events: &mut Vec<Event>) {
        for (request, error) in failed {
            let Some(active) = self.active.get(&request) else { continue };
            let cause = match error.is_request_error() {
                true => FinishCause::Refused(error.to_string()),
                false => FinishCause::Error(error.to_string()),
            };
            for index in 0..active.params.num_sequences() {
                events.push(Event::Token(TokenUpdate {
                    request,
                    index,
                    token: None,
                    logprobs: None,
                    text: String::new(),
                    finish: Some(Finish { cause: cause.clone(), score: None }),
                }));
            }
        }
    }
}

/// Rows whose logits the host needs, ascending: those of requests that are not plainly greedy, and of prompt logprobs.
fn logits_rows_to_read(batch: &Batch, active: &BTreeMap<RequestId, ActiveRequest>) -> Vec<u32> {
    let mut rows = Vec::new();
    for seq in &batch.seqs {
        let Some(request) = active.get(&seq.seq.request) else { continue };
        if request.params.prompt_logprobs.is_some() && seq.seq.index == 0 {
            rows.extend(prompt_rows(batch, seq, request.prompt_len).map(|(row, _)| row));
        }
    }
    for sample in &batch.sample_rows {
        let Some(request) = active.get(&sample.seq.request) else { continue };
        if request.params.needs_logits() {
            rows.push(sample.row);
        }
    }
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// A sequence's logits rows that predict a prompt token, each with that token's position.
fn prompt_rows<'a>(batch: &'a Batch, seq: &'a ScheduledSeq, prompt_len: u32) -> impl Iterator<Item = (u32, u32)> + 'a {
    (seq.first_logits_row..seq.first_logits_row + seq.num_logits_rows)
        .map(|row| (row, batch.positions[batch.logits_indices[row as usize] as usize] + 1))
        .filter(move |&(_, next)| next < prompt_len)
}
