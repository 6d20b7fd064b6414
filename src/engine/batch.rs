//! The batch: everything the device needs to know about one step, as flat arrays.

use super::planted::planted;
use super::{BlockId, BlockSwap, BlockTable, SchedulerConfig, SeqId, TokenId};

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
    /// Rows of this sequence in [`Batch::logits_indices`]: those of its last so many tokens of the step.
    pub num_logits_rows: u32,
    /// Whether the row of the last token that is no draft yields the sequence's next token.
    pub samples: bool,
    /// Its last so many tokens of the step are drafts, see [`super::DraftConfig`]. Their rows yield a token each as well, if all
    /// drafts up to there are right.
    pub num_drafts: u32,
}

/// One token to draw: whose it is, and from which logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleRow {
    /// The sequence that gets the token.
    pub seq: SeqId,
    /// The row of its logits, as an index into [`Batch::logits_indices`].
    pub row: u32,
}

/// A token that is not known on the host yet: the device puts it in place, as it has just sampled it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FedToken {
    /// Where it goes, an index into [`Batch::token_ids`].
    pub token: u32,
    /// Where it comes from, an index into [`Batch::sample_rows`] of the step before.
    pub sample: u32,
}

/// What stands in [`Batch::token_ids`] where a [`FedToken`] goes.
pub const UNKNOWN_TOKEN: TokenId = TokenId::MAX;

/// One step's work: written by the scheduler, read by model and sampler.
///
/// ```text
/// |<------------- seq_len ------------->|
/// |<---- context_len ---->|<-query_len->|
/// already in the KV cache   computed now
/// ```
///
/// `T` tokens, `S` sequences, `L` logits rows. A slot is `block id * block size + offset in the block`.
///
/// A block table may name a block that another sequence fills in this very step (two requests with one prefix): in
/// each layer, all keys and values are written before any are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Number of the step, from 1.
    pub step: u64,
    /// Token ids, `[T]`, sequence after sequence.
    pub token_ids: Vec<TokenId>,
    /// Those of them that the step before samples, when this one is scheduled [ahead](super::Scheduler::schedule_ahead).
    pub fed_tokens: Vec<FedToken>,
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
    /// The tokens to draw. One per sequence that samples, and one more for each of its drafts, in order; when a prompt of `n`
    /// parallel samples is done, `n` entries share one row, and all but the first name sequences that join [`Batch::seqs`]
    /// only in the next step.
    pub sample_rows: Vec<SampleRow>,
    /// Blocks to copy from device to host before anything else of this step. Their contents may be overwritten in it.
    pub swap_outs: Vec<BlockSwap>,
    /// Blocks to copy from host to device next. There are none in a step with `swap_outs`.
    pub swap_ins: Vec<BlockSwap>,
    /// Copies to make on the device before any write of this step; no `dst` twice, no `dst` is a `src`.
    pub block_copies: Vec<BlockCopy>,
}

impl Batch {
    /// The position of the token that is drawn from a row.
    pub fn position_of(&self, sample: &SampleRow) -> u32 {
        self.positions[self.logits_indices[sample.row as usize] as usize] + 1
    }

    /// The sample row after `index`, which has given `token`. Rows behind a draft that is another one are passed over: what
    /// is drawn from them is drawn after a token that the sequence does not have.
    pub fn next_sample(&self, index: usize, token: TokenId) -> usize {
        let SampleRow { seq, row } = self.sample_rows[index];
        let others = self.sample_rows[index + 1..].iter().take_while(|other| other.seq == seq).count();
        let is_drafted = || self.token_ids[self.logits_indices[row as usize] as usize + 1] == token;
        match others > 0 && !is_drafted() {
            true => index + 1 + others,
            false => index + 1,
        }
    }

    /// An empty batch whose arrays need never grow.
    pub(super) fn with_room_for(config: &SchedulerConfig) -> Self {
        let tokens = config.max_num_batched_tokens as usize;
        let seqs = config.max_num_seqs as usize;
        let drafts = config.drafts.map_or(0, |drafts| drafts.max_rows() as usize);
        let rows = config.max_num_logits_rows as usize;
        Batch {
            token_ids: Vec::with_capacity(tokens),
            fed_tokens: Vec::with_capacity(seqs),
            positions: Vec::with_capacity(tokens),
            slot_mapping: Vec::with_capacity(tokens),
            seqs: Vec::with_capacity(seqs),
            query_start_loc: Vec::with_capacity(seqs + 1),
            seq_lens: Vec::with_capacity(seqs),
            block_tables: Vec::with_capacity(seqs * config.max_model_len.div_ceil(config.block_size) as usize),
            block_table_start: Vec::with_capacity(seqs + 1),
            logits_indices: Vec::with_capacity(rows),
            sample_rows: Vec::with_capacity(seqs + drafts),
            block_copies: Vec::with_capacity(seqs),
            ..Batch::default()
        }
    }

    /// Empties the batch for the next step, and keeps its buffers.
    pub(super) fn clear(&mut self) {
        let start = BatchMark::default();
        self.truncate(start);
        self.swap_outs.clear();
        self.swap_ins.clear();
        self.step += 1;
    }

    /// How much has been written so far.
    pub(super) fn mark(&self) -> BatchMark {
        BatchMark {
            tokens: self.token_ids.len(),
            fed_tokens: self.fed_tokens.len(),
            seqs: self.seqs.len(),
            block_table_entries: self.block_tables.len(),
            logits_rows: self.logits_indices.len(),
            sample_rows: self.sample_rows.len(),
            block_copies: self.block_copies.len(),
        }
    }

    /// Takes back everything written after `mark`; swaps stay.
    pub(super) fn truncate(&mut self, mark: BatchMark) {
        self.token_ids.truncate(mark.tokens);
        self.fed_tokens.truncate(mark.fed_tokens);
        self.positions.truncate(mark.tokens);
        self.slot_mapping.truncate(mark.tokens);
        self.seqs.truncate(mark.seqs);
        self.seq_lens.truncate(mark.seqs);
        self.query_start_loc.truncate(mark.seqs + 1);
        self.block_table_start.truncate(mark.seqs + 1);
        self.block_tables.truncate(mark.block_table_entries);
        self.logits_indices.truncate(mark.logits_rows);
        self.sample_rows.truncate(mark.sample_rows);
        self.block_copies.truncate(mark.block_copies);
        if self.query_start_loc.is_empty() {
            self.query_start_loc.push(0);
            self.block_table_start.push(0);
        }
    }

    /// Appends one sequence's share of the step: the tokens `context_len..` of `token_ids`, `query_len` with the drafts, and
    /// the logits of the last `num_logits_rows` of them.
    pub(super) fn push_seq(&mut self, entry: SeqEntry) {
        let SeqEntry {
            seq,
            token_ids,
            fed,
            drafts,
            table,
            block_size,
            context_len,
            query_len,
            num_logits_rows,
            samples,
        } = entry;
        let seq_len = context_len + query_len;
        let num_drafts = drafts.len() as u32;
        let first_token = self.token_ids.len() as u32;
        let first_logits_row = self.logits_indices.len() as u32;
        self.token_ids.extend_from_slice(&token_ids[context_len as usize..(seq_len - num_drafts) as usize]);
        self.token_ids.extend_from_slice(drafts);
        self.positions.extend(context_len..seq_len);
        self.slot_mapping.extend((context_len..seq_len).map(|position| {
            let at_boundary = position > 0 && position.is_multiple_of(block_size);
            let position = if planted!(SlotOffByOneBlock) && at_boundary { position - block_size } else { position };
            table.slot(position, block_size)
        }));
        let end = first_token + query_len;
        if let Some(sample) = fed.filter(|_| seq_len as usize == token_ids.len()) {
            let sample = if planted!(FedTokenOfNeighbour) { sample.saturating_sub(1) } else { sample };
            self.fed_tokens.push(FedToken { token: end - 1, sample });
        }
        self.logits_indices.extend(end - num_logits_rows..end);
        if samples {
            let rows = self.logits_indices.len() as u32;
            self.sample_rows.extend((rows - 1 - num_drafts..rows).map(|row| SampleRow { seq, row }));
        }
        self.seqs.push(ScheduledSeq {
            seq,
            context_len,
            query_len,
            first_logits_row,
            num_logits_rows,
            samples,
            num_drafts,
        });
        self.seq_lens.push(seq_len);
        self.query_start_loc.push(end);
        self.block_tables.extend(table.blocks().iter().map(|block| block.0));
        self.block_table_start.push(self.block_tables.len() as u32);
    }
}

/// A position in a batch under construction.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BatchMark {
    tokens: usize,
    fed_tokens: usize,
    pub seqs: usize,
    block_table_entries: usize,
    logits_rows: usize,
    sample_rows: usize,
    pub block_copies: usize,
}

/// One sequence's share of a step, see [`Batch::push_seq`].
pub(super) struct SeqEntry<'a> {
    pub seq: SeqId,
    pub token_ids: &'a [TokenId],
    /// The sample of the step before that the last of them is, if it is not known.
    pub fed: Option<u32>,
    pub drafts: &'a [TokenId],
    pub table: &'a BlockTable,
    pub block_size: u32,
    pub context_len: u32,
    pub query_len: u32,
    pub num_logits_rows: u32,
    pub samples: bool,
}
