//! The scheduler: which tokens of which sequences are computed in the next step, and in which blocks.

use std::collections::BTreeMap;

use super::host_pool::HostPool;
use super::request_state::{Order, RequestState};
use super::requests::Requests;
use super::{
    Batch, BlockEvent, BlockId, BlockManager, EndedRequest, PreemptionCosts, Request, RequestAccounting, RequestId,
    SampledToken, SchedulerConfig, SeqId, Stats, TokenEvent, TokenId,
};

/// Continuous batching over paged KV memory, with no phases: every sequence has `num_computed_tokens` chasing the
/// number of its tokens. Chunked prefill, prefix hits, mixed batches and preemption all follow from that.
///
/// [`Scheduler::schedule`] and [`Scheduler::update`] alternate; the step is *in flight* between them. Requests may be
/// added, aborted, forked and finished at any time; blocks given up while a step is in flight are released by its
/// `update`, as the device may still be writing to them. While one step is in flight the next may be scheduled
/// [ahead](Scheduler::schedule_ahead).
///
/// Requests are served strictly in order (arrival, or priority and then arrival): nobody overtakes the first of the
/// waiting, and the last of the running is the one that is preempted. So the first one always advances.
#[derive(Debug, Clone)]
pub struct Scheduler {
    pub(super) config: SchedulerConfig,
    pub(super) blocks: BlockManager,
    /// Where preempted requests may be swapped out to.
    pub(super) host: Option<HostPool>,
    pub(super) costs: PreemptionCosts,
    pub(super) requests: Requests,
    /// In order of service.
    pub(super) running: Vec<(Order, RequestId)>,
    /// In order of service; preempted requests return to where they belong, which is the head.
    pub(super) waiting: BTreeMap<Order, RequestId>,
    /// The step that was scheduled last.
    pub(super) batch: Batch,
    /// The step before it, while both are in flight.
    pub(super) older: Batch,
    /// None, one, or one and the next.
    pub(super) steps_in_flight: u32,
    pub(super) counters: Stats,
    pub(super) ended: Vec<EndedRequest>,
    /// Drafts that the step being scheduled may still have.
    pub(super) drafts_left: u32,
    /// Prefix hits of the sequence being scheduled.
    pub(super) hits: Vec<BlockId>,
    /// Blocks that the request being scheduled has made findable in this step.
    pub(super) newly_cached: Vec<BlockId>,
    model_identity: Vec<u8>,
    next_arrival: u64,
}

impl Scheduler {
    /// A scheduler with nothing to do. `model_identity` (name, revision, weights) enters every block hash.
    ///
    /// # Panics
    /// When a size in `config` is 0.
    pub fn new(config: SchedulerConfig, model_identity: &[u8]) -> Self {
        config.assert_valid();
        Scheduler {
            blocks: BlockManager::new(config.num_blocks, config.block_size, config.enable_prefix_caching),
            host: (config.num_host_blocks > 0).then(|| HostPool::new(config.num_host_blocks)),
            costs: PreemptionCosts::default(),
            requests: Requests::default(),
            running: Vec::new(),
            waiting: BTreeMap::new(),
            batch: Batch::with_room_for(&config),
            older: Batch::with_room_for(&config),
            steps_in_flight: 0,
            counters: Stats::default(),
            ended: Vec::new(),
            drafts_left: 0,
            hits: Vec::new(),
            newly_cached: Vec::new(),
            model_identity: model_identity.to_vec(),
            next_arrival: 0,
            config,
        }
    }

    /// Sizes and switches.
    pub fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    /// Says what preemption costs on this device; each later one takes the cheaper way. Only with a host pool.
    pub fn set_preemption_costs(&mut self, costs: PreemptionCosts) {
        self.costs = costs;
    }

    /// Lets `request` wait for its turn.
    ///
    /// # Panics
    /// When a request of this id is alive, or when it was checked against other limits than this scheduler's.
    pub fn add(&mut self, request: Request) {
        assert_eq!(request.limits, self.config.limits(), "request {} was checked against other limits", request.id);
        let id = request.id;
        let state = RequestState::new(request, self.config.policy, self.next_arrival, &self.model_identity);
        self.next_arrival += 1;
        self.waiting.insert(state.order, id);
        let is_new = self.requests.insert(id, Box::new(state));
        assert!(is_new, "request {id} is already alive");
    }

    /// Decides on the next step. `None` when there is nothing to do; otherwise the batch holds at least one token.
    ///
    /// # Panics
    /// When a step is in flight.
    pub fn schedule(&mut self) -> Option<&Batch> {
        assert!(!self.is_in_flight(), "schedule() while a step is in flight: update() first");
        self.ended.clear();
        if self.is_idle() {
            return None;
        }
        self.batch.clear();
        self.drafts_left = self.drafts_of_a_step();
        let preempted = self.schedule_running();
        // Whoever was preempted is first in line now, and does not fit.
        if !preempted {
            self.schedule_waiting();
        }
        self.launch();
        Some(&self.batch)
    }

    /// The batch is complete: its step is in flight.
    pub(super) fn launch(&mut self) {
        let batch = &self.batch;
        assert!(!batch.token_ids.is_empty(), "I10: there is work, but nothing was scheduled");
        assert!(batch.token_ids.len() <= self.config.max_num_batched_tokens as usize, "I8: token budget exceeded");
        assert!(batch.seqs.len() <= self.config.max_num_seqs as usize, "I8: too many sequences in a batch");
        assert!(batch.logits_indices.len() <= self.config.max_num_logits_rows as usize, "I8: too many logits rows");
        self.counters.scheduled_tokens += batch.token_ids.len() as u64;
        self.steps_in_flight += 1;
    }

    /// Ends the step in flight, the earlier one of two, with the tokens drawn for [`Batch::sample_rows`], and appends to `events`
    /// what came of them. Tokens of sequences that ended meanwhile are ignored. Sequences forked during the step need a
    /// token of their own.
    ///
    /// Sequences come in any order. One with drafts has several rows: its tokens stand in the order of these, up to the first
    /// that is not the next draft (see [`Batch::next_sample`]).
    ///
    /// The sequences of a beam search (more [`super::RequestParams::max_sequences`] than samples) may get theirs in a later
    /// step, as long as one of them has something left to compute: whoever chooses among the beams waits until all of
    /// them have logits, which a small token budget or a preemption can spread over several steps (see
    /// [`Scheduler::awaits_token`]).
    ///
    /// # Panics
    /// When no step is in flight, or when a live sequence lacks its token or gets one that it did not ask for.
    pub fn update(&mut self, sampled: &[SampledToken], events: &mut Vec<TokenEvent>) {
        assert!(self.is_in_flight(), "update() without a step in flight");
        self.steps_in_flight -= 1;
        if self.steps_in_flight == 0 {
            self.count_computed_tokens();
        }
        for &SampledToken { seq: id, token } in sampled {
            let Some(state) = self.requests.get_mut(&id.request) else { continue };
            let Some(at) = state.position(id.index) else { continue };
            let is_drafted = u64::from(state.seqs[at].drafts.first() == Some(&token));
            state.accounting.accepted_draft_tokens += is_drafted;
            self.counters.accepted_draft_tokens += is_drafted;
            let finish = state.push_token(at, token);
            let position = state.seqs[at].num_known_tokens() - 1;
            events.push(TokenEvent { seq: id, token, position, finish });
            if is_drafted > 0 {
                // It may have filled a block, and its sequence may end before it is scheduled again.
                self.cache_full_blocks(id.request, at);
            }
        }
        self.release_ended();
    }

    /// The tokens of the step scheduled last are in the KV cache, for all that is scheduled after it.
    pub(super) fn count_computed_tokens(&mut self) {
        for (_, id) in &self.running {
            let state = self.requests.get_mut(id).expect("running requests are alive");
            for seq in &mut state.seqs {
                seq.num_computed_tokens += std::mem::take(&mut seq.num_scheduled_tokens);
            }
            if state.wants_prompt_logits() {
                state.prompt_logits_done = state.seqs[0].num_computed_tokens.max(state.prompt_logits_done);
            }
        }
    }

    /// The batch of the step that the next [`Scheduler::update`] ends; if there is none, of the last one.
    pub fn batch(&self) -> &Batch {
        if self.steps_in_flight == 2 { &self.older } else { &self.batch }
    }

    /// The batch that was scheduled last.
    pub fn newest_batch(&self) -> &Batch {
        &self.batch
    }

    /// The batch of the step that the last [`Scheduler::update`] has ended, until the next one is scheduled.
    pub fn ended_batch(&self) -> &Batch {
        if self.is_in_flight() { &self.older } else { &self.batch }
    }

    /// Whether a step has been scheduled and not yet updated.
    pub fn is_in_flight(&self) -> bool {
        self.steps_in_flight > 0
    }

    /// Whether no request is alive.
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// Requests being served.
    pub fn num_running(&self) -> usize {
        self.running.len()
    }

    /// Requests waiting, the preempted ones included.
    pub fn num_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Prompt and completion tokens of a live sequence. The last one is [`super::UNKNOWN_TOKEN`] while a step is scheduled
    /// that needs it, and the one that samples it is not over.
    pub fn tokens(&self, seq: SeqId) -> Option<&[TokenId]> {
        let state = self.requests.get(&seq.request)?;
        Some(&state.seqs[state.position(seq.index)?].token_ids)
    }

    /// Whether the step in flight, or one before it, has given the logits of a live sequence's next token, so that
    /// [`Scheduler::update`] may bring it. A beam that is preempted while it waits for its siblings has to be computed
    /// again first.
    pub fn awaits_token(&self, seq: SeqId) -> bool {
        let Some(state) = self.requests.get(&seq.request) else { return false };
        state.position(seq.index).is_some_and(|at| state.seqs[at].samples)
    }

    /// The blocks of a live sequence; empty while it waits.
    pub fn block_table(&self, seq: SeqId) -> Option<&[BlockId]> {
        let state = self.requests.get(&seq.request)?;
        Some(state.seqs[state.position(seq.index)?].table.blocks())
    }

    /// The live sequences of a request, in ascending order of their index.
    pub fn sequences(&self, request: RequestId) -> impl Iterator<Item = SeqId> + '_ {
        let seqs = self.requests.get(&request).into_iter().flat_map(|state| &state.seqs);
        seqs.filter(|seq| !seq.ended).map(move |seq| SeqId { request, index: seq.index })
    }

    /// What a live request has cost so far.
    pub fn accounting(&self, request: RequestId) -> Option<RequestAccounting> {
        Some(self.requests.get(&request)?.accounting)
    }

    /// The requests that have ended since the last [`Scheduler::schedule`], for whatever reason.
    pub fn ended_requests(&self) -> &[EndedRequest] {
        &self.ended
    }

    /// The block manager, to look at.
    pub fn blocks(&self) -> &BlockManager {
        &self.blocks
    }

    /// Forgets all cached prefixes (the weights have changed). Refused (`false`) while any block is in use, on the
    /// device or on the host.
    pub fn reset_prefix_cache(&mut self) -> bool {
        self.host.as_ref().is_none_or(|host| host.num_used() == 0) && self.blocks.reset_prefix_cache()
    }

    /// Records what the prefix cache gains and loses, from now on: see [`Scheduler::take_block_events`].
    pub fn record_block_events(&mut self) {
        self.blocks.record_events();
    }

    /// Moves the [`BlockEvent`]s since the last call to the end of `events`, in the order in which they happened. A
    /// block that a step fills is announced with the step's [`Scheduler::schedule`], one that drafts fill with its
    /// [`Scheduler::update`].
    pub fn take_block_events(&mut self, events: &mut Vec<BlockEvent>) {
        self.blocks.take_events(events);
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        let pool = self.blocks.pool();
        let (mut running_seqs, mut unused_slots, mut block_table_entries) = (0, 0, 0);
        for (_, id) in &self.running {
            let mut last_block = None;
            for seq in &self.requests[id].seqs {
                running_seqs += 1;
                block_table_entries += u64::from(seq.table.len());
                // Siblings that have just forked share their last block: it is one.
                let sibling = std::mem::replace(&mut last_block, seq.table.blocks().last().copied());
                if sibling.is_none() || sibling != last_block {
                    unused_slots += seq.num_unused_slots(self.config.block_size);
                }
            }
        }
        Stats {
            running_requests: self.running.len() as u32,
            waiting_requests: self.waiting.len() as u32,
            running_seqs,
            num_blocks: pool.num_blocks(),
            free_blocks: pool.num_free(),
            used_blocks: pool.num_blocks() - pool.num_free(),
            cached_blocks: self.blocks.prefix().map_or(0, |prefix| prefix.num_cached()),
            num_host_blocks: self.config.num_host_blocks,
            used_host_blocks: self.host.as_ref().map_or(0, HostPool::num_used),
            unused_slots,
            block_table_entries,
            steps: self.batch.step,
            cow_copies: self.blocks.blocks_copied(),
            blocks_allocated: self.blocks.blocks_allocated(),
            ..self.counters
        }
    }
}
