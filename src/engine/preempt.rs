//! Preemption: a running request gives its blocks up, and comes back by computing its tokens again or, when that takes
//! longer than two copies, by way of the host pool.

use std::collections::BTreeMap;

use super::planted::planted;
use super::request_state::{Order, RequestState};
use super::{BlockCopy, BlockId, BlockManager, BlockSwap, RequestId, Scheduler, SchedulerConfig};

impl Scheduler {
    /// Takes all blocks from a request that has been removed from the running ones, and puts it back in line.
    ///
    /// If it has been given anything in this step, the caller takes it back from the batch, from the block copy
    /// `first_copy` on.
    pub(super) fn preempt(&mut self, order: Order, id: RequestId, first_copy: usize) {
        let swapped = self.swap_out(id, first_copy);
        let state = self.requests.get_mut(&id).expect("running requests are alive");
        for seq in &mut state.seqs {
            self.blocks.free(&mut seq.table);
            if !swapped && !planted!(PreemptionKeepsComputedTokens) {
                seq.num_computed_tokens = 0;
            }
            seq.num_scheduled_tokens = 0;
            seq.num_cached_blocks = 0;
            seq.samples = false;
            seq.drafts.clear();
        }
        state.running = false;
        state.preempted = true;
        state.accounting.preemptions += 1;
        self.counters.preemptions += 1;
        self.counters.swaps += u64::from(swapped);
        self.waiting.insert(order, id);
    }

    /// Has the computed blocks of `id` copied to the host, each once, if there is room and it is cheaper than computing
    /// them again. The copies are made before anything else in the step, so the device's blocks may be freed at once.
    fn swap_out(&mut self, id: RequestId, first_copy: usize) -> bool {
        let Some(host) = &mut self.host else { return false };
        let state = self.requests.get_mut(&id).expect("running requests are alive");
        let distinct = blocks_to_keep(state, self.config.block_size);
        let recomputed = tokens_to_recompute(&distinct, &self.blocks, &self.config);
        let costs = self.costs;
        let copies = 2 * distinct.len() as u64;
        if distinct.is_empty()
            || distinct.len() > host.pool().num_free() as usize
            || copies.saturating_mul(costs.copy_block) >= recomputed.saturating_mul(costs.compute_token)
        {
            return false;
        }
        let mut placed = BTreeMap::new();
        for seq in &mut state.seqs {
            let kept = kept_tokens(seq.num_computed_tokens, seq.samples, seq.num_scheduled_tokens);
            let blocks = kept.div_ceil(self.config.block_size) as usize;
            for &block in &seq.table.blocks()[..blocks] {
                let on_host = match placed.get(&block) {
                    Some(&on_host) => {
                        host.share(on_host);
                        on_host
                    }
                    None => {
                        let on_host = host.allocate();
                        let device = original(block, &self.batch.block_copies[first_copy..]);
                        self.batch.swap_outs.push(BlockSwap { device, host: on_host });
                        placed.insert(block, on_host);
                        on_host
                    }
                };
                seq.host_table.push(on_host);
            }
            seq.num_computed_tokens = kept;
        }
        if planted!(SwapOutForgetsBlock) {
            self.batch.swap_outs.pop();
        }
        state.accounting.blocks_swapped += distinct.len() as u64;
        self.counters.swapped_blocks += distinct.len() as u64;
        true
    }

    /// Blocks that a swapped-out request saves by sharing once it is back: its sequences share full blocks, and get a
    /// copy each of a partly filled one.
    pub(super) fn shared_on_host(&mut self, id: RequestId) -> u32 {
        let Some(host) = &mut self.host else { return 0 };
        let block_size = self.config.block_size;
        let seqs = &self.requests[&id].seqs;
        let full = || seqs.iter().map(|seq| (seq, (seq.num_computed_tokens / block_size) as usize));
        let tables = full().map(|(seq, full)| &seq.host_table.blocks()[..full.min(seq.host_table.len() as usize)]);
        let entries: usize = tables.clone().map(<[BlockId]>::len).sum();
        entries as u32 - host.num_distinct(tables)
    }

    /// Brings the blocks of a request that is being admitted back, each once.
    pub(super) fn swap_in(&mut self, id: RequestId) {
        let Some(host) = &mut self.host else { return };
        let state = self.requests.get_mut(&id).expect("waiting requests are alive");
        let mut placed = BTreeMap::new();
        for seq in &mut state.seqs {
            for &on_host in seq.host_table.blocks() {
                let block = match placed.get(&on_host) {
                    Some(&block) => {
                        self.blocks.share(block);
                        block
                    }
                    None => {
                        let block = self.blocks.allocate();
                        state.accounting.blocks_allocated += 1;
                        self.batch.swap_ins.push(BlockSwap { device: block, host: on_host });
                        placed.insert(on_host, block);
                        block
                    }
                };
                seq.table.push(block);
            }
            host.free(&mut seq.host_table);
        }
    }
}

/// Tokens of a sequence that need not be computed again. One that has its logits, and waits for the tokens of its
/// siblings, computes its last token once more: the logits are gone.
fn kept_tokens(num_computed_tokens: u32, samples: bool, num_scheduled_tokens: u32) -> u32 {
    let waits = samples && num_scheduled_tokens == 0;
    num_computed_tokens - u32::from(waits)
}

/// The blocks of a request that hold tokens worth keeping: how many tokens, and how many of its sequences share it.
fn blocks_to_keep(state: &RequestState, block_size: u32) -> BTreeMap<BlockId, (u32, u32)> {
    let mut distinct = BTreeMap::new();
    for seq in &state.seqs {
        let kept = kept_tokens(seq.num_computed_tokens, seq.samples, seq.num_scheduled_tokens);
        for (i, &block) in seq.table.blocks()[..kept.div_ceil(block_size) as usize].iter().enumerate() {
            let tokens = (kept - i as u32 * block_size).min(block_size);
            distinct.entry(block).or_insert((tokens, 0)).1 += 1;
        }
    }
    distinct
}

/// Tokens in these blocks that would have to be computed again: not those that others use too, which stay in the prefix
/// cache.
fn tokens_to_recompute(
    distinct: &BTreeMap<BlockId, (u32, u32)>,
    blocks: &BlockManager,
    config: &SchedulerConfig,
) -> u64 {
    let stays = |block: BlockId, references: u32| {
        config.enable_prefix_caching && blocks.is_cached(block) && blocks.pool().ref_count(block) > references
    };
    let lost = distinct.iter().filter(|&(&block, &(_, references))| !stays(block, references));
    lost.map(|(_, &(tokens, _))| u64::from(tokens)).sum()
}

/// Where the contents of `block` are before the step: a copy that the step was to make of it is taken back.
fn original(block: BlockId, copies: &[BlockCopy]) -> BlockId {
    copies.iter().find(|copy| copy.dst == block).map_or(block, |copy| copy.src)
}
