//! What the scheduler is configured with, and the limits that follow for requests.

use super::DraftConfig;

/// In which order requests are served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// First come, first served.
    #[default]
    Fcfs,
    /// Lower [`super::RequestParams::priority`] first, then first come, first served.
    Priority,
}

/// Sizes and switches of a [`super::Scheduler`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Blocks in the pool.
    pub num_blocks: u32,
    /// Blocks in the pool on the host that preempted requests are swapped out to; 0 to compute them again.
    pub num_host_blocks: u32,
    /// Tokens in one block.
    pub block_size: u32,
    /// Sequences that run at the same time, at most.
    pub max_num_seqs: u32,
    /// Tokens computed in one step, at most: the token budget.
    pub max_num_batched_tokens: u32,
    /// Tokens of one sequence, prompt and completion, at most.
    pub max_model_len: u32,
    /// Rows of logits computed in one step, at most.
    pub max_num_logits_rows: u32,
    /// Whether full blocks are shared among requests with the same prefix.
    pub enable_prefix_caching: bool,
    /// Tokens of one sequence computed in one step, at most; 0 for no such limit.
    pub long_prefill_token_threshold: u32,
    /// In which order requests are served.
    pub policy: Policy,
    /// Whether sequences have drafts, and how many.
    pub drafts: Option<DraftConfig>,
}

impl SchedulerConfig {
    /// What a request may ask for.
    pub fn limits(&self) -> Limits {
        Limits {
            num_blocks: self.num_blocks,
            block_size: self.block_size,
            max_num_seqs: self.max_num_seqs,
            max_model_len: self.max_model_len,
        }
    }

    pub(super) fn assert_valid(&self) {
        assert!(self.num_blocks > 0, "num_blocks must not be 0");
        assert!(self.block_size > 0, "block_size must not be 0");
        assert!(self.max_num_seqs > 0, "max_num_seqs must not be 0");
        assert!(self.max_num_batched_tokens > 0, "max_num_batched_tokens must not be 0");
        assert!(self.max_num_logits_rows > 0, "max_num_logits_rows must not be 0");
        assert!(self.max_model_len > 1, "max_model_len must hold a prompt token and a completion token");
        self.drafts.iter().for_each(DraftConfig::assert_valid);
        let slots = self.num_blocks.checked_mul(self.block_size);
        assert!(slots.is_some(), "slots are numbered in 32 bits: num_blocks * block_size is too large");
    }
}

/// What one request may ask for: beyond it, it could never be served, however long it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Blocks in the pool.
    pub num_blocks: u32,
    /// Tokens in one block.
    pub block_size: u32,
    /// Sequences that run at the same time, at most.
    pub max_num_seqs: u32,
    /// Tokens of one sequence, prompt and completion, at most.
    pub max_model_len: u32,
}

impl Limits {
    /// Tokens that each of `num_seqs` sequences may reach, prompt and completion, with the pool to themselves and
    /// nothing shared. The last token of a completion needs no slot: its key and value are never computed.
    pub fn max_tokens_per_seq(&self, num_seqs: u32) -> u32 {
        let slots = (self.num_blocks / num_seqs.max(1)).saturating_mul(self.block_size);
        slots.saturating_add(1).min(self.max_model_len)
    }
}
