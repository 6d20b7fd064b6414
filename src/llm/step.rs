//! One step: schedule, forward, sample, update.

use super::beam::candidate_rows;
use super::request::ActiveRequest;
use super::{Event, Finish, FinishCause, HostTimes, Llm, LlmError, TokenUpdate};
use crate::backend::{DRAWN_BROKEN, DRAWN_NOTHING, Laps, StepOutput};
use crate::engine::{Batch, RequestId, SampleRow, SampledToken, ScheduledSeq, Scheduler, SeqId, TokenEvent, TokenId};
use crate::model::WantedRows;
use crate::sampling::{Draw, DrawList, History, SampleError, TokenLogprobs, token_logprobs};
use crate::structured::Grammar;
use std::collections::BTreeMap;

/// What a step writes into, kept from step to step so that its memory is allocated once.
pub(super) struct StepMemory {
    wanted: Wanted,
    output: StepOutput,
    sampled: Sampled,
    token_events: Vec<TokenEvent>,
    /// A row that the host's sampler changes.
    logits: Vec<f32>,
}

/// What is to come back of a step.
struct Wanted {
    /// Where the token of each of the batch's sample rows comes from.
    sources: Vec<TokenSource>,
    draws: DrawList,
    /// Rows whose logits the host needs, ascending.
    whole: Vec<u32>,
    top_k_rows: Vec<u32>,
    top_k: u32,
}

/// Who finds the next token of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenSource {
    /// The device, by the largest logit.
    Argmax,
    /// The device, by the draw of this index.
    Draw(u32),
    /// The host's sampler.
    Host,
    /// A beam search, or nobody: the request is gone.
    Elsewhere,
}

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

    fn clear(&mut self) {
        self.tokens.clear();
        self.logprobs.clear();
        self.failed.clear();
    }
}

impl StepMemory {
    pub(super) fn new(draws: DrawList) -> Self {
        let (sources, whole, top_k_rows) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            wanted: Wanted { sources, draws, whole, top_k_rows, top_k: 0 },
            output: StepOutput::default(),
            sampled: Sampled::default(),
            token_events: Vec::new(),
            logits: Vec::new(),
        }
    }
}

impl Llm {
    /// Runs one step and appends what came of it to `events`. `false` when there was nothing to do.
    ///
    /// # Errors
    /// [`LlmError::Backend`] when the device fails: the engine is not usable any more. What concerns one request alone is
    /// an event of that request.
    pub fn step(&mut self, events: &mut Vec<Event>) -> Result<bool, LlmError> {
        let mut laps = Laps::start(true);
        if self.scheduler.schedule().is_none() {
            return Ok(false);
        }
        self.times = HostTimes { schedule: laps.lap(), ..HostTimes::default() };
        let mut memory = self.memory.take().expect("every step puts it back");
        let result = self.compute(laps, &mut memory, events);
        self.memory = Some(memory);
        result.map(|()| true)
    }

    /// What comes after the scheduling.
    fn compute(&mut self, mut laps: Laps, memory: &mut StepMemory, events: &mut Vec<Event>) -> Result<(), LlmError> {
        self.forward(&mut laps, memory)?;
        let StepMemory { wanted, output, sampled, token_events, logits } = memory;
        sampled.clear();
        self.prompt_logprobs(&wanted.whole, output, events);
        self.sample(wanted, output, sampled, logits);
        self.advance_beams(&wanted.top_k_rows, &output.top_k, sampled, events)?;
        self.times.sample = laps.lap();
        self.update(sampled, token_events, events)?;
        self.times.update = laps.lap();
        self.add_to_profile();
        Ok(())
    }

    /// Runs the batch in flight on the device.
    fn forward(&mut self, laps: &mut Laps, memory: &mut StepMemory) -> Result<(), LlmError> {
        let (wanted, batch) = (&mut memory.wanted, self.scheduler.batch());
        wanted.find(&self.scheduler, &self.active);
        let find = laps.lap();
        let swapped = self.runner.swap(batch)?;
        self.times.swap = laps.lap();
        let rows = WantedRows {
            whole: &wanted.whole,
            top_k_rows: &wanted.top_k_rows,
            top_k: wanted.top_k,
            draws: wanted.draws.draws(),
            adjustments: wanted.draws.adjustments(),
        };
        self.runner.forward(batch, rows, &mut memory.output)?;
        let forward = laps.lap();
        self.times.wait = memory.output.waited;
        self.times.encode = find + forward.saturating_sub(self.times.wait);
        if let Some(meter) = &mut self.costs {
            if swapped > 0 {
                meter.copied(swapped, self.times.swap);
            }
            meter.computed(batch.token_ids.len(), forward);
            if let Some(costs) = meter.costs() {
                self.scheduler.set_preemption_costs(costs);
            }
        }
        Ok(())
    }

    fn add_to_profile(&mut self) {
        let Some(profile) = &mut self.profile else { return };
        if let Some(forward) = self.runner.backend_mut().take_profile() {
            profile.add(&forward, self.times, !self.scheduler.is_idle());
        }
    }

    /// Tells the log probabilities of the prompt tokens that the batch in flight has computed.
    fn prompt_logprobs(&self, whole: &[u32], output: &StepOutput, events: &mut Vec<Event>) {
        let batch = self.scheduler.batch();
        for seq in &batch.seqs {
            let Some(active) = self.active.get(&seq.seq.request) else { continue };
            let wanted = active.params.prompt_logprobs.filter(|_| seq.seq.index == 0);
            let Some(top) = wanted else { continue };
            let tokens = self.scheduler.tokens(seq.seq).expect("scheduled sequences are alive");
            let found: Vec<(u32, TokenLogprobs)> = prompt_rows(batch, seq, active.prompt_len)
                .map(|(row, next)| {
                    let logits = self.logits_of(row, whole, output);
                    (next, token_logprobs(logits, tokens[next as usize], top))
                })
                .collect();
            if let Some(&(first_position, _)) = found.first() {
                let logprobs = found.into_iter().map(|(_, logprobs)| logprobs).collect();
                events.push(Event::PromptLogprobs { request: seq.seq.request, first_position, logprobs });
            }
        }
    }

    /// The logits of a row that came back whole.
    fn logits_of<'a>(&self, row: u32, whole: &[u32], output: &'a StepOutput) -> &'a [f32] {
        let vocab_size = self.runner.config().vocab_size as usize;
        let at = whole.binary_search(&row).expect("the row was asked for");
        &output.logits[at * vocab_size..][..vocab_size]
    }

    /// Finds the next tokens of the batch in flight, apart from those of beam searches.
    fn sample(&mut self, wanted: &Wanted, output: &StepOutput, sampled: &mut Sampled, logits: &mut Vec<f32>) {
        for index in 0..wanted.sources.len() {
            let sample = self.scheduler.batch().sample_rows[index];
            if sampled.has_failed(sample.seq.request) {
                continue;
            }
            let token = match wanted.sources[index] {
                TokenSource::Argmax => Ok(output.argmax[sample.row as usize]),
                TokenSource::Draw(draw) => match output.drawn[draw as usize] {
                    DRAWN_BROKEN => Err(SampleError::NonFiniteLogprobs),
                    DRAWN_NOTHING => Err(SampleError::NothingLeft),
                    token => Ok(token),
                },
                TokenSource::Host => {
                    // A row may be sampled more than once, and the sampler changes what it is given.
                    logits.clear();
                    logits.extend_from_slice(self.logits_of(sample.row, &wanted.whole, output));
                    self.sample_on_host(sample.seq, logits, sampled)
                }
                TokenSource::Elsewhere => continue,
            };
            match token {
                Ok(token) => sampled.tokens.push(SampledToken { seq: sample.seq, token }),
                Err(error) => sampled.fail(sample.seq.request, error),
            }
        }
    }

    fn sample_on_host(
        &mut self,
        seq: SeqId,
        logits: &mut [f32],
        sampled: &mut Sampled,
    ) -> Result<TokenId, SampleError> {
        let active = self.active.get_mut(&seq.request).expect("it was there before the step");
        let tokens = tokens_of(&self.scheduler, seq);
        let (history, draw) = (active.history(tokens), active.draw(seq.index, tokens));
        let allowed = active.grammar(seq.index).map(Grammar::allowed).transpose().map_err(SampleError::Grammar)?;
        let token = self.sampler.sample(logits, &active.params, allowed.as_deref(), history, draw)?;
        if let Some(grammar) = active.grammar(seq.index) {
            grammar.accept(token.token).map_err(SampleError::Grammar)?;
        }
        if let Some(logprobs) = token.logprobs {
            sampled.logprobs.insert(seq, logprobs);
        }
        Ok(token.token)
    }

    /// Ends the step in flight with its tokens, and turns them into events.
    fn update(
        &mut self,
        sampled: &mut Sampled,
        token_events: &mut Vec<TokenEvent>,
        events: &mut Vec<Event>,
    ) -> Result<(), LlmError> {
        for (request, _) in &sampled.failed {
            self.scheduler.abort(*request);
        }
        token_events.clear();
        self.scheduler.update(&sampled.tokens, token_events);
        self.fail(&sampled.failed, events);
        for event in &*token_events {
            let request = self.active.get_mut(&event.seq.request).filter(|request| request.beams.is_none());
            let Some(request) = request else { continue };
            let (update, ended) = request.push(event, sampled.logprobs.remove(&event.seq), &self.eos_token_ids)?;
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
        Ok(())
    }

    fn fail(&mut self, failed: &[(RequestId, SampleError)], events: &mut Vec<Event>) {
        for (request, error) in failed {
            let Some(active) = self.active.get(request) else { continue };
            let cause = match error.is_request_error() {
                true => FinishCause::Refused(error.to_string()),
                false => FinishCause::Error(error.to_string()),
            };
            for index in 0..active.params.num_sequences() {
                events.push(Event::Token(TokenUpdate {
                    request: *request,
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

impl Wanted {
    /// What the batch in flight needs.
    fn find(&mut self, scheduler: &Scheduler, active: &BTreeMap<RequestId, ActiveRequest>) {
        let batch = scheduler.batch();
        self.sources.clear();
        self.draws.clear();
        self.whole.clear();
        for seq in &batch.seqs {
            let Some(request) = active.get(&seq.seq.request) else { continue };
            if request.params.prompt_logprobs.is_some() && seq.seq.index == 0 {
                self.whole.extend(prompt_rows(batch, seq, request.prompt_len).map(|(row, _)| row));
            }
        }
        for sample in &batch.sample_rows {
            let source = match active.get(&sample.seq.request) {
                Some(request) if request.beams.is_none() => self.source(scheduler, request, sample),
                _ => TokenSource::Elsewhere,
            };
            if source == TokenSource::Host {
                self.whole.push(sample.row);
            }
            self.sources.push(source);
        }
        self.whole.sort_unstable();
        self.whole.dedup();
        self.top_k = candidate_rows(batch, active, &mut self.top_k_rows);
    }

    fn source(&mut self, scheduler: &Scheduler, request: &ActiveRequest, sample: &SampleRow) -> TokenSource {
        if request.params.needs_logits() {
            return TokenSource::Host;
        }
        if !request.params.needs_draw() {
            return TokenSource::Argmax;
        }
        let tokens = tokens_of(scheduler, sample.seq);
        let (history, draw) = (request.history(tokens), request.draw(sample.seq.index, tokens));
        match self.draws.push(sample.row, &request.params, history, draw) {
            true => TokenSource::Draw(self.draws.draws().len() as u32 - 1),
            false => TokenSource::Host,
        }
    }
}

impl ActiveRequest {
    fn history<'a>(&self, tokens: &'a [TokenId]) -> History<'a> {
        let (prompt, output) = tokens.split_at(self.prompt_len as usize);
        History { prompt, output }
    }

    fn draw(&self, sample_index: u32, tokens: &[TokenId]) -> Draw {
        Draw { seed: self.seed, sample_index, position: tokens.len() as u32 }
    }
}

/// The tokens of a sequence that samples. The forks of a prompt join the scheduler with their first token; until then they
/// are their parent.
fn tokens_of(scheduler: &Scheduler, seq: SeqId) -> &[TokenId] {
    let parent = SeqId { index: 0, ..seq };
    scheduler.tokens(seq).or_else(|| scheduler.tokens(parent)).expect("a sequence that samples is alive")
}

/// A sequence's logits rows that predict a prompt token, each with that token's position.
fn prompt_rows<'a>(batch: &'a Batch, seq: &'a ScheduledSeq, prompt_len: u32) -> impl Iterator<Item = (u32, u32)> + 'a {
    (seq.first_logits_row..seq.first_logits_row + seq.num_logits_rows)
        .map(|row| (row, batch.positions[batch.logits_indices[row as usize] as usize] + 1))
        .filter(move |&(_, next)| next < prompt_len)
}
