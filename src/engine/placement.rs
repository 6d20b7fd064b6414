//! How a step is filled: running sequences first, in order, then waiting requests.

use super::batch::SeqEntry;
use super::request_state::RequestState;
use super::{BlockId, BlockManager, FullBlock, RequestId, SampleRow, Scheduler, SchedulerConfig, SeqId};

/// What became of one sequence in this step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placement {
    /// It computes at least one token, or has nothing left to compute.
    Scheduled,
    /// The budgets are used up: nothing was reserved.
    NoBudget,
    /// The pool has too few free blocks: nothing was reserved.
    NoBlocks,
}

/// What the step has left to give.
#[derive(Debug, Clone, Copy)]
struct Budget {
    tokens: u32,
    logits_rows: u32,
    /// Running sequences behind this one, and siblings: each may need a row, for its next token.
    seqs_behind: u32,
}

impl Budget {
    /// Tokens that are left, each with a row, when a sequence has got `tokens` and a row, and those behind it theirs.
    fn left_behind(self, tokens: u32) -> u32 {
        let tokens = self.tokens.saturating_sub(tokens + self.seqs_behind);
        tokens.min(self.logits_rows.saturating_sub(1 + self.seqs_behind))
    }
}

impl Scheduler {
    /// Gives running sequences their tokens, and takes blocks from the last request in order when they run out.
    /// Returns whether any request was preempted.
    pub(super) fn schedule_running(&mut self) -> bool {
        let mut preempted = false;
        let mut seqs_left = self.running.iter().map(|(_, id)| self.requests[id].seqs.len() as u32).sum::<u32>();
        let mut next = 0;
        while next < self.running.len() {
            let id = self.running[next].1;
            self.assert_within_max_sequences(id);
            let start = self.batch.mark();
            self.newly_cached.clear();
            let mut at = 0;
            while at < self.requests[&id].seqs.len() {
                if self.place(id, at, seqs_left - 1) != Placement::NoBlocks {
                    at += 1;
                    seqs_left -= 1;
                    continue;
                }
                preempted = true;
                let (order, victim) = self.running.pop().expect("the request being scheduled is running");
                if victim == id {
                    // It was the last itself: what it has been given in this step is taken back.
                    self.newly_cached.iter().for_each(|&block| self.blocks.uncache(block));
                    self.preempt(order, victim, start.block_copies);
                    self.batch.truncate(start);
                    return preempted;
                }
                seqs_left -= self.requests[&victim].seqs.len() as u32;
                self.preempt(order, victim, self.batch.block_copies.len());
            }
            self.commit(id, start.seqs);
            next += 1;
        }
        preempted
    }

    /// Admits waiting requests, strictly in order.
    pub(super) fn schedule_waiting(&mut self) {
        let mut seats = self.running.iter().map(|(_, id)| self.requests[id].seats()).sum::<u32>();
        while let Some((&order, &id)) = self.waiting.first_key_value() {
            let budget = self.budget(0);
            seats += self.requests[&id].seats();
            if budget.tokens == 0 || budget.logits_rows == 0 || seats > self.config.max_num_seqs {
                return;
            }
            self.assert_within_max_sequences(id);
            if !self.fits_whole(id) {
                return;
            }
            self.waiting.pop_first();
            let at = self.running.partition_point(|&(other, _)| other < order);
            self.running.insert(at, (order, id));
            let state = self.requests.get_mut(&id).expect("waiting requests are alive");
            state.running = true;
            state.preempted = false;
            state.reserve(self.config.block_size);
            let num_seqs = state.seqs.len();
            self.swap_in(id);
            let start = self.batch.mark();
            self.newly_cached.clear();
            for at in 0..num_seqs {
                let placement = self.place(id, at, (num_seqs - 1 - at) as u32);
                assert_ne!(placement, Placement::NoBlocks, "request {id} was admitted, but does not fit");
            }
            self.commit(id, start.seqs);
        }
    }

    fn assert_within_max_sequences(&self, id: RequestId) {
        let state = &self.requests[&id];
        let (alive, most) = (state.seqs.len(), state.request.params.max_sequences as usize);
        assert!(alive <= most, "request {id} has {alive} sequences, more than the {most} it was granted");
    }

    /// Whether the pool has room now for all known tokens of a waiting request. Admitting it for its first chunk alone
    /// would often mean to preempt it a few chunks later.
    fn fits_whole(&mut self, id: RequestId) -> bool {
        let block_size = self.config.block_size;
        let state = self.requests.get_mut(&id).expect("waiting requests are alive");
        let mut needed = 0;
        for at in 0..state.seqs.len() {
            if !state.seqs[at].host_table.is_empty() {
                needed += state.seqs[at].num_tokens().div_ceil(block_size);
                continue;
            }
            find_prefix(state, at, &self.config, &self.blocks, &mut self.hits);
            let free_hits = self.blocks.pool().num_free() - self.blocks.num_free_besides(&self.hits);
            needed += state.seqs[at].num_tokens().div_ceil(block_size) - self.hits.len() as u32 + free_hits;
        }
        needed - self.shared_on_host(id) <= self.blocks.pool().num_free()
    }

    /// Gives one sequence its share of the step: tokens, blocks, logits rows.
    fn place(&mut self, id: RequestId, at: usize, seqs_behind: u32) -> Placement {
        let budget = self.budget(seqs_behind);
        let block_size = self.config.block_size;
        let state = self.requests.get_mut(&id).expect("scheduled requests are alive");
        if state.seqs[at].samples || state.seqs[at].ended {
            // All is computed: its token is its last, or comes with those of its siblings.
            return Placement::Scheduled;
        }
        let starts = state.seqs[at].table.is_empty();
        self.hits.clear();
        if starts {
            find_prefix(state, at, &self.config, &self.blocks, &mut self.hits);
        }
        let context_len = state.seqs[at].num_computed_tokens + self.hits.len() as u32 * block_size;
        let query_len = query_len(state, at, context_len, budget, &self.config);
        if query_len == 0 {
            return Placement::NoBudget;
        }
        let seq_len = context_len + query_len;
        let wants_prompt_logits = state.wants_prompt_logits();
        let logits_from = state.prompt_logits_done.max(context_len);
        let seq = &mut state.seqs[at];
        let Some(reserved) = self.blocks.reserve(&mut seq.table, &self.hits, context_len, seq_len) else {
            return Placement::NoBlocks;
        };
        seq.num_computed_tokens = context_len;
        seq.num_scheduled_tokens = query_len;
        seq.samples = seq_len == seq.num_tokens();
        for &block in &seq.table.blocks()[(context_len / block_size) as usize..] {
            let references = self.blocks.pool().ref_count(block);
            assert_eq!(references, 1, "I4: block {} is written and shared", block.0);
        }
        state.accounting.blocks_allocated += u64::from(reserved.allocated);
        state.accounting.blocks_copied += u64::from(reserved.copy.is_some());
        state.accounting.blocks_shared += self.hits.len() as u64;
        self.batch.block_copies.extend(reserved.copy);
        if starts && self.config.enable_prefix_caching {
            seq.num_cached_blocks = self.hits.len() as u32;
            let resumed = state.accounting.preemptions > 0;
            self.count_prefix_hits(id, at, resumed);
        }
        let num_drafts = match self.requests[&id].seqs[at].samples {
            true => self.draft(id, at, budget.left_behind(query_len)),
            false => 0,
        };
        self.cache_full_blocks(id, at);
        let state = self.requests.get_mut(&id).expect("scheduled requests are alive");
        let seq = &mut state.seqs[at];
        seq.num_scheduled_tokens += num_drafts;
        self.batch.push_seq(SeqEntry {
            seq: SeqId { request: id, index: seq.index },
            token_ids: &seq.token_ids,
            fed: seq.pending,
            drafts: &seq.drafts,
            table: &seq.table,
            block_size,
            context_len,
            query_len: query_len + num_drafts,
            num_logits_rows: if wants_prompt_logits {
                seq_len.saturating_sub(logits_from)
            } else {
                u32::from(seq.samples) + num_drafts
            },
            samples: seq.samples,
        });
        Placement::Scheduled
    }

    fn budget(&self, seqs_behind: u32) -> Budget {
        Budget {
            tokens: self.config.max_num_batched_tokens - self.batch.token_ids.len() as u32,
            logits_rows: self.config.max_num_logits_rows - self.batch.logits_indices.len() as u32,
            seqs_behind,
        }
    }

    fn count_prefix_hits(&mut self, id: RequestId, at: usize, resumed: bool) {
        let state = self.requests.get_mut(&id).expect("scheduled requests are alive");
        if state.wants_prompt_logits() {
            return;
        }
        let queried = u64::from(state.seqs[at].num_tokens());
        let hit = u64::from(state.seqs[at].num_computed_tokens);
        if resumed {
            self.counters.resumed_query_tokens += queried;
            self.counters.resumed_hit_tokens += hit;
        } else {
            self.counters.prefix_query_tokens += queried;
            self.counters.prefix_hit_tokens += hit;
            state.accounting.cached_tokens += hit;
        }
    }

    /// Makes the blocks that this step fills findable, for requests of this very step already. One whose last token is not
    /// known has to wait for the next step.
    pub(super) fn cache_full_blocks(&mut self, id: RequestId, at: usize) {
        if !self.config.enable_prefix_caching {
            return;
        }
        let block_size = self.config.block_size;
        let state = self.requests.get_mut(&id).expect("scheduled requests are alive");
        let root = state.root;
        let seq = &mut state.seqs[at];
        let num_full = seq.num_reserved_tokens().min(seq.num_known_tokens()) / block_size;
        seq.extend_hashes(num_full, &root, block_size);
        for i in seq.num_cached_blocks as usize..num_full as usize {
            let block = seq.table.blocks()[i];
            if self.blocks.is_cached(block) {
                // A sibling has brought it back from the host too.
                continue;
            }
            let parent = if i == 0 { root } else { seq.hashes[i - 1] };
            let tokens = &seq.token_ids[i * block_size as usize..][..block_size as usize];
            let full = FullBlock { hash: seq.hashes[i], parent, is_first: i == 0, token_ids: tokens };
            self.blocks.cache(block, &full);
            self.newly_cached.push(block);
        }
        seq.num_cached_blocks = seq.num_cached_blocks.max(num_full);
    }

    /// Settles what `id` has been given in this step; its entries in the batch start at `first_seq`. If that ends the
    /// prompt of a request with parallel samples, they fork now: all first tokens are drawn from one logits row.
    fn commit(&mut self, id: RequestId, first_seq: usize) {
        let state = self.requests.get_mut(&id).expect("scheduled requests are alive");
        for seq in &self.batch.seqs[first_seq..] {
            state.accounting.computed_tokens += u64::from(seq.query_len);
            state.accounting.draft_tokens += u64::from(seq.num_drafts);
            self.counters.draft_tokens += u64::from(seq.num_drafts);
            self.counters.drafts += u64::from(seq.num_drafts > 0);
        }
        if state.forked || !state.seqs[0].samples {
            return;
        }
        state.forked = true;
        let row = self.batch.sample_rows.last().expect("the first sequence samples").row;
        for index in 1..state.request.params.num_samples {
            let table = self.blocks.fork(&state.seqs[0].table);
            state.accounting.blocks_shared += u64::from(table.len());
            let child = state.seqs[0].fork(index, table);
            state.seqs.push(child);
            self.batch.sample_rows.push(SampleRow { seq: SeqId { request: id, index }, row });
        }
        state.reserve(self.config.block_size);
    }
}

/// Blocks in the prefix cache that start the sequence, into `hits`.
fn find_prefix(
    state: &mut RequestState,
    at: usize,
    config: &SchedulerConfig,
    blocks: &BlockManager,
    hits: &mut Vec<BlockId>,
) {
    hits.clear();
    // Logits of the prompt come only from computing it.
    if !config.enable_prefix_caching || state.wants_prompt_logits() {
        return;
    }
    let root = state.root;
    let seq = &mut state.seqs[at];
    seq.extend_hashes((seq.num_tokens() - 1) / config.block_size, &root, config.block_size);
    blocks.find_prefix(&seq.hashes, &root, &seq.token_ids, hits);
}

/// How many tokens a sequence computes in this step, given that `context_len` are already in the KV cache.
fn query_len(state: &RequestState, at: usize, context_len: u32, budget: Budget, config: &SchedulerConfig) -> u32 {
    let remaining = state.seqs[at].num_tokens() - context_len;
    let mut query_len = remaining.min(budget.tokens);
    if config.long_prefill_token_threshold > 0 {
        query_len = query_len.min(config.long_prefill_token_threshold);
    }
    if state.wants_prompt_logits() {
        // One row per token from the first one whose logits are still missing; but the decodes behind get theirs.
        let without_row = state.prompt_logits_done.saturating_sub(context_len);
        let rows = budget.logits_rows.saturating_sub(budget.seqs_behind).max(1).min(budget.logits_rows);
        query_len.min(without_row + rows)
    } else if query_len == remaining && budget.logits_rows == 0 {
        // The last token would need a row.
        query_len - 1
    } else {
        query_len
    }
}
