//! The batch: everything the device needs to know about one step, as flat arrays.

use super::{BlockId, SeqId, TokenId};

/// One block whose contents the device copies before any write of the step (copy-on-write).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCopy {
    /// Block read.
    pub src: BlockId,
    /// Block written.
    pub dst: BlockId,
}

/// What one sequence does in this step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduledSeq {
    /// Which sequence.
    pub seq: SeqId,
    /// Tokens of this sequence already in the KV cache.
    pub context_len: u32,
    /// Tokens of this sequence computed in this step.
    pub query_len: u32,
    /// First row of this sequence in [`Batch::logits_indices`].
    pub first_logits_row: u32,
    /// Rows of this sequence in [`Batch::logits_indices`].
    pub num_logits_rows: u32,
    /// Whether the last of those rows yields the sequence's next token.
    pub samples: bool,
}

/// One step's work: written by the scheduler, read by model and sampler.
///
/// ```text
/// |<------------- seq_len ------------->|
/// |<---- context_len ---->|<-query_len->|
/// already in the KV cache   computed now
/// ```
///
/// `T` tokens, `S` sequences, `L` logits rows. A slot is `block id * block size + offset in the block`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Number of the step, from 1.
    pub step: u64,
    /// Token ids, `[T]`, sequence after sequence.
    pub token_ids: Vec<TokenId>,
    /// Position of each token in its sequence, `[T]`.
    pub positions: Vec<u32>,
    /// Slot that each token's key and value are written to, `[T]`.
    pub slot_mapping: Vec<u32>,
    /// The sequences, `[S]`.
    pub seqs: Vec<ScheduledSeq>,
    /// First token of each sequence in the arrays above, and `T` at the end: `[S + 1]`.
    pub query_start_loc: Vec<u32>,
    /// Tokens of each sequence once this step is done (context plus query), `[S]`.
    pub seq_lens: Vec<u32>,
    /// Block ids of every sequence, one block table after the other.
    pub block_tables: Vec<u32>,
    /// First entry of each sequence in `block_tables`, and its length at the end: `[S + 1]`.
    pub block_table_start: Vec<u32>,
    /// Indices into the token arrays of the rows whose logits are wanted, `[L]`.
    pub logits_indices: Vec<u32>,
    /// Copies to make on the device before any write of this step; no `dst` twice, no `dst` is a `src`.
    pub block_copies: Vec<BlockCopy>,
}
