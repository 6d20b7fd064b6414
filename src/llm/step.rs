//! One step: schedule, forward, sample, update; and the next one, begun before this one's tokens are known.

use super::beam::candidate_rows;
use super::request::ActiveRequest;
use super::{Event, Finish, FinishCause, HostTimes, Llm, LlmError, TokenUpdate};
use crate::backend::{
    DRAWN_BROKEN, DRAWN_NOTHING, FedToken, Laps, MAX_TOP_K, SampledBy, ScoredRow, ScoredToken, StepOutput, TokenRank,
};
use crate::engine::{Batch, RequestId, SampleRow, SampledToken, ScheduledSeq, Scheduler, SeqId, TokenEvent, TokenId};
use crate::model::WantedRows;
use crate::sampling::{Draw, DrawList, History, SampleError, TokenLogprob, TokenLogprobs, ranked, token_logprobs};
use crate::structured::Grammar;
use std::collections::BTreeMap;

/// What a step writes into, kept from step to step so that its memory is allocated once.
pub(super) struct StepMemory {
    /// Of the step that ends next.
    wanted: Wanted,
    /// Of the one after it, if that has begun.
    ahead: Wanted,
    output: StepOutput,
    sampled: Sampled,
    token_events: Vec<TokenEvent>,
    /// A row that the host's sampler changes.
    logits: Vec<f32>,
}

/// What goes to the device beside the batch, and what is to come back.
struct Wanted {
    /// Where the token of each of the batch's sample rows comes from.
    sources: Vec<TokenSource>,
    /// Where the tokens come from that the step before samples.
    fed_tokens: Vec<FedToken>,
    draws: DrawList,
    /// Rows whose logits the host needs, ascending.
    whole: Vec<u32>,
    /// Rows whose likeliest tokens it needs, ascending, and how many of them.
    top_k_rows: Vec<u32>,
    top_k: u32,
    /// Tokens whose log probabilities it needs, ascending.
    scored: Vec<ScoredRow>,
    /// Whether the next step can be told the device without knowing any of this one's tokens.
    is_left_to_device: bool,
}

/// Who finds the next token of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenSource {
    /// The device, by the largest logit of this row.
    Argmax(u32),
    /// The device, by the draw of this index.
    Draw(u32),
    /// The host's sampler.
    Host,
    /// A beam search, or nobody: the request is gone.
    Elsewhere,
}

impl TokenSource {
    /// The token to be scored, if the request wants its log probability and the device finds it, and how many likeliest ones
    /// of its row are wanted.
    fn scored(self, sample: &SampleRow, active: &BTreeMap<RequestId, ActiveRequest>) -> Option<(ScoredToken, u32)> {
        let token = match self {
            Self::Argmax(_) => ScoredToken::Argmax,
            Self::Draw(draw) => ScoredToken::Draw(draw),
            Self::Host | Self::Elsewhere => return None,
        };
        Some((token, active.get(&sample.seq.request)?.params.sampled_logprobs()?))
    }
}

/// What sampling a batch gave.
#[derive(Default)]
pub(super) struct Sampled {
    pub(super) tokens: Vec<SampledToken>,
    /// By sequence and position of the token.
    logprobs: BTreeMap<(SeqId, u32), TokenLogprobs>,
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
    /// `draws` makes an empty list of them.
    pub(super) fn new(draws: impl Fn() -> DrawList) -> Self {
        Self {
            wanted: Wanted::new(draws()),
            ahead: Wanted::new(draws()),
            output: StepOutput::default(),
            sampled: Sampled::default(),
            token_events: Vec::new(),
            logits: Vec::new(),
        }
    }
}

impl Llm {
    /// Ends one step and appends what came of it to `events`. `false` when there was nothing to do. Where the device runs
    /// beside the host, the next step has begun by then, unless it depends on what the host samples.
    ///
    /// # Errors
    /// [`LlmError::Backend`] when the device fails: the engine is not usable any more. What concerns one request alone is
    /// an event of that request.
    pub fn step(&mut self, events: &mut Vec<Event>) -> Result<bool, LlmError> {
        let mut memory = self.memory.take().expect("every step puts it back");
        let result = self.step_with(&mut memory, events);
        self.memory = Some(memory);
        result
    }

    fn step_with(&mut self, memory: &mut StepMemory, events: &mut Vec<Event>) -> Result<bool, LlmError> {
        let mut laps = Laps::start(true);
        self.times = HostTimes::default();
        let StepMemory { wanted, ahead, output, sampled, token_events, logits } = memory;
        if !self.scheduler.is_in_flight() {
            if self.scheduler.schedule().is_none() {
                return Ok(false);
            }
            self.submit(&mut laps, wanted, &[])?;
        }
        let goes_ahead = self.schedules_ahead && wanted.is_left_to_device && self.scheduler.schedule_ahead().is_some();
        if goes_ahead {
            self.submit(&mut laps, ahead, &wanted.sources)?;
        }
        self.collect(&mut laps, output)?;
        sampled.clear();
        self.prompt_logprobs(wanted, output, sampled, events);
        self.sample(wanted, output, sampled, logits);
        self.advance_beams(&wanted.top_k_rows, &output.top_k, sampled, events)?;
        self.times.sample = laps.lap();
        self.update(sampled, token_events, events)?;
        self.times.update = laps.lap();
        self.add_to_profile();
        if goes_ahead {
            std::mem::swap(wanted, ahead);
        }
        Ok(true)
    }

    /// Gives the device the step that has just been scheduled. `before` are the sources of the step before it, if that is
    /// still in flight.
    fn submit(&mut self, laps: &mut Laps, wanted: &mut Wanted, before: &[TokenSource]) -> Result<(), LlmError> {
        self.times.schedule += laps.lap();
        let batch = self.scheduler.newest_batch();
        wanted.find(batch, &self.scheduler, &self.active, before, self.runner.config().vocab_size);
        self.times.encode += laps.lap();
        let swapped = self.runner.swap(batch)?;
        let swap = laps.lap();
        self.times.swap += swap;
        if let Some(meter) = self.costs.as_mut().filter(|_| swapped > 0) {
            meter.copied(swapped, swap);
        }
        let rows = WantedRows {
            whole: &wanted.whole,
            top_k_rows: &wanted.top_k_rows,
            top_k: wanted.top_k,
            draws: wanted.draws.draws(),
            adjustments: wanted.draws.adjustments(),
            scored: &wanted.scored,
            fed_tokens: &wanted.fed_tokens,
        };
        self.runner.submit(batch, rows)?;
        self.times.encode += laps.lap();
        Ok(())
    }

    /// Waits for the earliest step in flight.
    fn collect(&mut self, laps: &mut Laps, output: &mut StepOutput) -> Result<(), LlmError> {
        self.runner.collect(output)?;
        let collect = laps.lap();
        self.times.wait = output.waited;
        self.times.encode += collect.saturating_sub(output.waited);
        if let Some(meter) = &mut self.costs {
            // With the next step on the device by now, it takes as long as it did from the step before to this one.
            meter.computed(self.scheduler.batch().token_ids.len(), self.times.encode + self.times.wait);
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
    fn prompt_logprobs(&self, wanted: &Wanted, output: &StepOutput, sampled: &mut Sampled, events: &mut Vec<Event>) {
        let batch = self.scheduler.batch();
        for seq in &batch.seqs {
            let request = seq.seq.request;
            let Some(active) = self.active.get(&request) else { continue };
            let Some(top) = active.params.prompt_logprobs.filter(|_| seq.seq.index == 0) else { continue };
            let Some(tokens) = self.scheduler.tokens(seq.seq) else { continue };
            let mut rows = prompt_rows(batch, seq, active.prompt_len).peekable();
            let Some(&(_, first_position)) = rows.peek() else { continue };
            let logprobs = rows.map(|(row, next)| match top > MAX_TOP_K {
                true => Ok(token_logprobs(self.logits_of(row, &wanted.whole, output), tokens[next as usize], top)),
                false => wanted.logprobs(row, ScoredToken::Known(tokens[next as usize]), top, output),
            });
            match logprobs.collect() {
                Ok(logprobs) => events.push(Event::PromptLogprobs { request, first_position, logprobs }),
                Err(error) => sampled.fail(request, error),
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
        let mut next = 0;
        for index in 0..wanted.sources.len() {
            if index < next {
                // It stands behind a draft that was wrong.
                continue;
            }
            let batch = self.scheduler.batch();
            let sample = batch.sample_rows[index];
            let position = batch.position_of(&sample);
            // A sequence may have ended after its step had begun.
            if sampled.has_failed(sample.seq.request) || self.scheduler.tokens(sample.seq).is_none() {
                continue;
            }
            let token = match wanted.sources[index] {
                TokenSource::Argmax(row) => Ok(output.argmax[row as usize]),
                TokenSource::Draw(draw) => match output.drawn[draw as usize] {
                    DRAWN_BROKEN => Err(SampleError::NonFiniteLogprobs),
                    DRAWN_NOTHING => Err(SampleError::NothingLeft),
                    token => Ok(token),
                },
                TokenSource::Host => {
                    // A row may be sampled more than once, and the sampler changes what it is given.
                    logits.clear();
                    logits.extend_from_slice(self.logits_of(sample.row, &wanted.whole, output));
                    self.sample_on_host(sample.seq, position, logits, sampled)
                }
                TokenSource::Elsewhere => continue,
            };
            let token = token.and_then(|token| {
                if let Some((scored, top)) = wanted.sources[index].scored(&sample, &self.active) {
                    sampled.logprobs.insert((sample.seq, position), wanted.logprobs(sample.row, scored, top, output)?);
                }
                Ok(token)
            });
            match token {
                Ok(token) => {
                    sampled.tokens.push(SampledToken { seq: sample.seq, token });
                    next = self.scheduler.batch().next_sample(index, token);
                }
                Err(error) => sampled.fail(sample.seq.request, error),
            }
        }
    }

    fn sample_on_host(
        &mut self,
        seq: SeqId,
        position: u32,
        logits: &mut [f32],
        sampled: &mut Sampled,
    ) -> Result<TokenId, SampleError> {
        let active = self.active.get_mut(&seq.request).expect("it was there before the step");
        let tokens = tokens_of(&self.scheduler, seq);
        let (history, draw) = (active.history(tokens), active.draw(seq.index, position));
        let allowed = active.grammar(seq.index).map(Grammar::allowed).transpose().map_err(SampleError::Grammar)?;
        let token = self.sampler.sample(logits, &active.params, allowed.as_deref(), history, draw)?;
        if let Some(grammar) = active.grammar(seq.index) {
            grammar.accept(token.token).map_err(SampleError::Grammar)?;
        }
        if let Some(logprobs) = token.logprobs {
            sampled.logprobs.insert((seq, position), logprobs);
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
        let mut stopped = None;
        for event in &*token_events {
            if stopped == Some(event.seq) {
                // Its text has ended before this token.
                continue;
            }
            let request = self.active.get_mut(&event.seq.request).filter(|request| request.beams.is_none());
            let Some(request) = request else { continue };
            let logprobs = sampled.logprobs.remove(&(event.seq, event.position));
            let (update, ended) = request.push(event, logprobs, &self.eos_token_ids)?;
            events.push(update);
            if ended {
                self.scheduler.finish_seq(event.seq);
                stopped = Some(event.seq);
            }
        }
        self.expect_forced(token_events);
        for ended in self.scheduler.ended_requests() {
            if self.active.remove(&ended.request).is_some() {
                events.push(Event::Done { request: ended.request, accounting: ended.accounting });
            }
        }
        Ok(())
    }

    /// Tells the scheduler what the grammars of sequences leave no choice in after the tokens of the step that has ended.
    fn expect_forced(&mut self, token_events: &[TokenEvent]) {
        if self.scheduler.config().drafts.is_none() {
            return;
        }
        for (at, event) in token_events.iter().enumerate() {
            let is_last = token_events.get(at + 1).is_none_or(|next| next.seq != event.seq);
            let active = self.active.get_mut(&event.seq.request).filter(|active| is_last && active.beams.is_none());
            let Some(active) = active else { continue };
            let Some(grammar) = active.grammar(event.seq.index) else { continue };
            self.scheduler.expect(event.seq, &grammar.forced());
        }
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
    fn new(draws: DrawList) -> Self {
        Self {
            sources: Vec::new(),
            fed_tokens: Vec::new(),
            draws,
            whole: Vec::new(),
            top_k_rows: Vec::new(),
            top_k: 0,
            scored: Vec::new(),
            is_left_to_device: false,
        }
    }

    /// What a batch that has just been scheduled needs; `before` is where the step in front of it has its tokens from.
    fn find(
        &mut self,
        batch: &Batch,
        scheduler: &Scheduler,
        active: &BTreeMap<RequestId, ActiveRequest>,
        before: &[TokenSource],
        vocab_size: u32,
    ) {
        self.sources.clear();
        self.is_left_to_device = true;
        self.fed_tokens.clear();
        self.fed_tokens.extend(batch.fed_tokens.iter().map(|fed| FedToken {
            token: fed.token,
            from: match before[fed.sample as usize] {
                TokenSource::Argmax(row) => SampledBy::Argmax(row),
                TokenSource::Draw(draw) => SampledBy::Draw(draw),
                source => unreachable!("a step was scheduled ahead of tokens by {source:?}"),
            },
        }));
        self.draws.clear();
        self.whole.clear();
        self.scored.clear();
        self.top_k_rows.clear();
        self.top_k = candidate_rows(batch, active, &mut self.top_k_rows);
        for seq in &batch.seqs {
            let Some(request) = active.get(&seq.seq.request) else { continue };
            let Some(top) = request.params.prompt_logprobs.filter(|_| seq.seq.index == 0) else { continue };
            let Some(tokens) = scheduler.tokens(seq.seq) else { continue };
            for (row, next) in prompt_rows(batch, seq, request.prompt_len) {
                match top > MAX_TOP_K {
                    true => self.whole.push(row),
                    false => self.score(row, ScoredToken::Known(tokens[next as usize]), top),
                }
            }
        }
        for sample in &batch.sample_rows {
            let source = match active.get(&sample.seq.request) {
                Some(request) if request.beams.is_none() => {
                    self.source(scheduler, request, sample, batch.position_of(sample))
                }
                _ => TokenSource::Elsewhere,
            };
            if source == TokenSource::Host {
                self.whole.push(sample.row);
            }
            if let Some((token, top)) = source.scored(sample, active) {
                self.score(sample.row, token, top);
            }
            self.is_left_to_device &= source != TokenSource::Elsewhere;
            self.sources.push(source);
        }
        self.whole.sort_unstable();
        self.whole.dedup();
        self.top_k_rows.sort_unstable();
        self.top_k_rows.dedup();
        self.top_k = self.top_k.min(vocab_size);
        self.scored.sort_unstable();
        self.is_left_to_device &= self.whole.is_empty();
    }

    /// Asks for the log probability of a token, and of as many likeliest ones of its row.
    fn score(&mut self, row: u32, token: ScoredToken, top: u32) {
        self.scored.push(ScoredRow { row, token });
        if top > 0 {
            self.top_k_rows.push(row);
            self.top_k = self.top_k.max(top);
        }
    }

    /// The log probabilities that were [asked for](Self::score).
    fn logprobs(
        &self,
        row: u32,
        token: ScoredToken,
        top: u32,
        output: &StepOutput,
    ) -> Result<TokenLogprobs, SampleError> {
        let at = self.scored.binary_search(&ScoredRow { row, token }).expect("the token was asked for");
        let TokenRank { logprob, rank } = output.scores[at];
        if logprob.is_nan() {
            return Err(SampleError::NonFiniteLogprobs);
        }
        let token = match token {
            ScoredToken::Known(token) => token,
            ScoredToken::Argmax => output.argmax[row as usize],
            ScoredToken::Draw(draw) => output.drawn[draw as usize],
        };
        let mut likeliest = &[][..];
        if top > 0 {
            let at = self.top_k_rows.binary_search(&row).expect("the row was asked for") * self.top_k as usize;
            likeliest = &output.top_k[at..at + top.min(self.top_k) as usize];
        }
        let top = ranked(likeliest)?;
        // Two kernels sum in two orders: a token that is told twice has one log probability.
        let logprob = top.iter().find(|likely| likely.token == token).map_or(logprob, |likely| likely.logprob);
        Ok(TokenLogprobs { chosen: TokenLogprob { token, logprob, rank }, top })
    }

    /// Where the token of a sample row is to come from, which goes to `position`.
    fn source(
        &mut self,
        scheduler: &Scheduler,
        request: &ActiveRequest,
        sample: &SampleRow,
        position: u32,
    ) -> TokenSource {
        if request.params.needs_logits() {
            return TokenSource::Host;
        }
        if !request.params.needs_draw() {
            return TokenSource::Argmax(sample.row);
        }
        // The next draw counts the token of this one.
        self.is_left_to_device &= !request.params.has_penalties();
        let tokens = tokens_of(scheduler, sample.seq);
        let (history, draw) = (request.history(tokens), request.draw(sample.seq.index, position));
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

    fn draw(&self, sample_index: u32, position: u32) -> Draw {
        Draw { seed: self.seed, sample_index, position }
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
