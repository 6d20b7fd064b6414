//! Counters and gauges of the scheduler.

/// The scheduler's state in numbers. Those of the first group hold now, the others count since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests being served.
    pub running_requests: u32,
    /// Requests waiting, the preempted ones included.
    pub waiting_requests: u32,
    /// Sequences of running requests.
    pub running_seqs: u32,
    /// Blocks in the pool.
    pub num_blocks: u32,
    /// Blocks that nobody references (some of them may still be found by prefix caching).
    pub free_blocks: u32,
    /// Blocks in some block table.
    pub used_blocks: u32,
    /// Blocks that prefix caching can find, used or free.
    pub cached_blocks: u32,
    /// Blocks in the pool on the host.
    pub num_host_blocks: u32,
    /// Those of them that hold blocks of preempted requests.
    pub used_host_blocks: u32,
    /// Slots of the running sequences' last blocks that hold no token yet.
    pub unused_slots: u64,
    /// Entries of all block tables: the blocks that would be used if nothing were shared.
    pub block_table_entries: u64,

    /// Steps scheduled.
    pub steps: u64,
    /// Those of them that were scheduled before the step in front of them had ended.
    pub steps_ahead: u64,
    /// Tokens scheduled to be computed.
    pub scheduled_tokens: u64,
    /// Times that a sequence had drafts in a step.
    pub drafts: u64,
    /// Tokens drafted.
    pub draft_tokens: u64,
    /// Those of them that were right.
    pub accepted_draft_tokens: u64,
    /// Requests preempted.
    pub preemptions: u64,
    /// Those of them that were swapped out, rather than to be computed again.
    pub swaps: u64,
    /// Blocks copied to the host.
    pub swapped_blocks: u64,
    /// Tokens of sequences looked up in the prefix cache when first served.
    pub prefix_query_tokens: u64,
    /// Those of them that were found.
    pub prefix_hit_tokens: u64,
    /// Tokens of sequences looked up in the prefix cache when served again after preemption.
    pub resumed_query_tokens: u64,
    /// Those of them that were found.
    pub resumed_hit_tokens: u64,
    /// Blocks copied on write.
    pub cow_copies: u64,
    /// Blocks handed out by the pool.
    pub blocks_allocated: u64,
}
