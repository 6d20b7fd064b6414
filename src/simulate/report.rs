//! What a run amounts to.

use serde::Serialize;

use super::timeline::{Means, Moment, Timeline};
use crate::engine::Stats;

/// One policy, run over one workload.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Which policy.
    pub policy: String,
    /// Tokens in one block, where there are blocks.
    pub block_size: Option<u32>,
    /// Slots of the KV memory.
    pub num_slots: u64,
    /// Requests in the workload.
    pub requests: u64,
    /// Those that were served to their end.
    pub finished_requests: u64,
    /// Those that can never fit, and were refused.
    pub refused_requests: u64,
    /// Steps that computed something.
    pub steps: u64,
    /// Seconds (or steps) until the last request ended.
    pub duration: f64,
    /// Tokens computed, recomputation included.
    pub computed_tokens: u64,
    /// Completion tokens of all sequences.
    pub output_tokens: u64,
    /// Completion tokens in a second (or step).
    pub output_tokens_per_s: f64,
    /// Requests finished in a second (or step).
    pub requests_per_s: f64,
    /// Mean over requests of (end - arrival) / completion tokens of one sequence.
    pub normalized_latency_s: f64,
    /// Requests served at the same time, at most.
    pub peak_running_requests: u32,
    /// Sequences served at the same time, at most.
    pub peak_running_seqs: u32,
    /// Means over all steps.
    pub means: Means,
    /// Means over the time in which requests waited for room.
    pub loaded: Means,
    /// Share of the memory given away or lost to fragmentation that holds no token, under load.
    pub waste: f64,
    /// What only paging has.
    pub paged: Option<PagedCounts>,
    /// Moments, in order.
    #[serde(skip)]
    pub moments: Vec<Moment>,
}

/// What only paging has.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PagedCounts {
    /// Blocks in the pool.
    pub num_blocks: u32,
    /// Blocks handed out.
    pub blocks_allocated: u64,
    /// Blocks used at the same time, at most.
    pub peak_used_blocks: u32,
    /// Mean over time of unused slots in a sequence's last block.
    pub unused_slots_per_seq: f64,
    /// Tokens looked up in the prefix cache by requests served for the first time.
    pub prefix_query_tokens: u64,
    /// Those of them that were found.
    pub prefix_hit_tokens: u64,
    /// Tokens looked up after preemption.
    pub resumed_query_tokens: u64,
    /// Those of them that were found.
    pub resumed_hit_tokens: u64,
    /// Blocks copied on write.
    pub cow_copies: u64,
    /// Requests preempted.
    pub preemptions: u64,
    /// 1 - blocks used / blocks used if nothing were shared.
    pub saved_by_sharing: f64,
}

impl PagedCounts {
    pub(super) fn new(stats: &Stats, peak_used_blocks: u32, means: &Means) -> Self {
        PagedCounts {
            num_blocks: stats.num_blocks,
            blocks_allocated: stats.blocks_allocated,
            peak_used_blocks,
            unused_slots_per_seq: ratio(means.internal_slots, means.running_seqs),
            prefix_query_tokens: stats.prefix_query_tokens,
            prefix_hit_tokens: stats.prefix_hit_tokens,
            resumed_query_tokens: stats.resumed_query_tokens,
            resumed_hit_tokens: stats.resumed_hit_tokens,
            cow_copies: stats.cow_copies,
            preemptions: stats.preemptions,
            saved_by_sharing: 1.0 - ratio(means.used_blocks, means.block_table_entries),
        }
    }
}

/// Counts of a run while it lasts.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub timeline: Timeline,
    pub finished: u64,
    pub refused: u64,
    pub computed_tokens: u64,
    pub output_tokens: u64,
    pub latency: f64,
    pub peak_requests: u32,
    pub peak_seqs: u32,
}

impl Tally {
    /// A request that ended at `now`.
    pub fn finish(&mut self, arrived: f64, now: f64, output_tokens: u32, num_seqs: u32) {
        self.finished += 1;
        self.output_tokens += u64::from(output_tokens) * u64::from(num_seqs);
        self.latency += (now - arrived) / f64::from(output_tokens);
    }

    /// What it all amounts to.
    pub fn report(self, policy: &str, num_slots: u64, requests: usize, duration: f64) -> Report {
        let loaded = self.timeline.loaded_means();
        Report {
            policy: policy.to_owned(),
            block_size: None,
            num_slots,
            requests: requests as u64,
            finished_requests: self.finished,
            refused_requests: self.refused,
            steps: self.timeline.steps(),
            duration,
            computed_tokens: self.computed_tokens,
            output_tokens: self.output_tokens,
            output_tokens_per_s: ratio(self.output_tokens as f64, duration),
            requests_per_s: ratio(self.finished as f64, duration),
            normalized_latency_s: ratio(self.latency, self.finished as f64),
            peak_running_requests: self.peak_requests,
            peak_running_seqs: self.peak_seqs,
            means: self.timeline.means(),
            waste: loaded.waste(),
            loaded,
            paged: None,
            moments: self.timeline.into_moments(),
        }
    }
}

pub(super) fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}
