//! What goes in after a step, and what comes out.

use super::{RequestId, SeqId, TokenId};

/// The token drawn for one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampledToken {
    /// The sequence.
    pub seq: SeqId,
    /// Its next token.
    pub token: TokenId,
}

/// Why a sequence ended by itself. Whoever ends one (abort, stop string) knows why, and is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// It reached this stop token.
    Stop(TokenId),
    /// It reached `max_tokens`, or the length that the model or the KV cache allows.
    Length,
}

/// One token of one sequence, emitted exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenEvent {
    /// The sequence.
    pub seq: SeqId,
    /// Its new last token.
    pub token: TokenId,
    /// Where that stands in the sequence.
    pub position: u32,
    /// Set on the last token of a sequence.
    pub finish: Option<FinishReason>,
}

/// What one request has cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestAccounting {
    /// Blocks taken from the pool, recomputation and copies included.
    pub blocks_allocated: u64,
    /// Blocks shared instead: prefix hits and forks.
    pub blocks_shared: u64,
    /// Blocks copied on write.
    pub blocks_copied: u64,
    /// Slots in the last blocks of its sequences that held no token when they ended.
    pub unused_slots: u64,
    /// Prompt tokens found in the prefix cache when the request was first served.
    pub cached_tokens: u64,
    /// Tokens computed, recomputation included.
    pub computed_tokens: u64,
    /// Tokens drafted.
    pub draft_tokens: u64,
    /// Those of them that were right.
    pub accepted_draft_tokens: u64,
    /// Blocks copied to the host when it was preempted.
    pub blocks_swapped: u64,
    /// Times it was preempted.
    pub preemptions: u64,
}

/// A request that is no more, see [`super::Scheduler::ended_requests`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedRequest {
    /// The request.
    pub request: RequestId,
    /// What it has cost.
    pub accounting: RequestAccounting,
}
