//! What goes to the device for one step, and what comes back.

/// What a backend must hold to in every step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLimits {
    /// Most tokens in a step.
    pub max_tokens: u32,
    /// Most sequences in a step.
    pub max_seqs: u32,
    /// Most logits rows in a step.
    pub max_logits_rows: u32,
    /// Most entries in all block tables of a step together.
    pub max_block_table_entries: u32,
    /// Most block copies in a step.
    pub max_block_copies: u32,
    /// Whether what a token comes to must be the same to the bit whatever else is in its step, and wherever its
    /// sequence is cut into steps. Backends then use one kernel where the number of rows would choose.
    pub batch_invariant: bool,
    /// Whether products of quantised weights may round activations to int8 ([`ProductInputs::Int8`](super::ProductInputs)),
    /// which is faster on many devices. Backends without such products ignore it.
    pub quantize_activations: bool,
}

/// One step's metadata, as flat arrays: the device's view of [`crate::engine::Batch`], where each is documented.
#[derive(Debug, Clone, Copy)]
pub struct StepInput<'a> {
    /// `[T]`
    pub token_ids: &'a [u32],
    /// `[T]`
    pub positions: &'a [u32],
    /// `[T]`
    pub slot_mapping: &'a [u32],
    /// `[S + 1]`
    pub query_start_loc: &'a [u32],
    /// `[S]`
    pub seq_lens: &'a [u32],
    /// Block ids, one table after the other.
    pub block_tables: &'a [u32],
    /// `[S + 1]`
    pub block_table_start: &'a [u32],
    /// `[L]`
    pub logits_indices: &'a [u32],
    /// `(src, dst)` block ids.
    pub block_copies: &'a [(u32, u32)],
    /// Rows of the logits (indices below `L`, ascending) that come back whole, beside the argmax of every row.
    pub read_logits_rows: &'a [u32],
    /// Rows of the logits (indices below `L`, ascending) whose likeliest tokens come back.
    pub top_k_rows: &'a [u32],
    /// How many of them, at most [`MAX_TOP_K`] and the vocabulary; 0 without such rows.
    pub top_k: u32,
}

/// Most tokens of one row in [`StepOutput::top_k`].
pub const MAX_TOP_K: u32 = 64;

/// A token that may come next.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct TokenScore {
    /// The token.
    pub token: u32,
    /// Natural logarithm of its probability: `logit - ln(sum(exp(logits)))`.
    pub logprob: f32,
}

/// What one step gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepOutput {
    /// For each logits row the token of the largest logit, ties to the lowest id: `[L]`.
    pub argmax: Vec<u32>,
    /// The rows asked for by `read_logits_rows`, `[rows][vocab]` f32.
    pub logits: Vec<f32>,
    /// The likeliest tokens of each row in `top_k_rows`, likeliest first, equals by the lower id: `[rows][top_k]`.
    /// Unspecified for a row that holds a logit which is not finite, apart from its log probabilities, which are not
    /// finite either.
    pub top_k: Vec<TokenScore>,
}

impl StepInput<'_> {
    /// Holds the arrays against each other and against the pool, so that no kernel reads or writes out of bounds.
    ///
    /// # Panics
    /// On the first inconsistency: the caller built a wrong batch.
    pub fn check(&self, num_blocks: u32, block_size: u32, limits: &StepLimits) {
        let tokens = self.token_ids.len();
        let seqs = self.seq_lens.len();
        assert!(tokens <= limits.max_tokens as usize, "{tokens} tokens in a step, at most {}", limits.max_tokens);
        assert!(seqs <= limits.max_seqs as usize, "{seqs} sequences in a step, at most {}", limits.max_seqs);
        assert!(self.logits_indices.len() <= limits.max_logits_rows as usize, "too many logits rows");
        assert!(self.block_tables.len() <= limits.max_block_table_entries as usize, "too many block table entries");
        assert!(self.block_copies.len() <= limits.max_block_copies as usize, "too many block copies");
        assert_eq!(self.positions.len(), tokens, "positions");
        assert_eq!(self.slot_mapping.len(), tokens, "slot_mapping");
        assert_eq!(self.query_start_loc.len(), seqs + 1, "query_start_loc");
        assert_eq!(self.block_table_start.len(), seqs + 1, "block_table_start");
        assert_eq!(self.query_start_loc[seqs] as usize, tokens, "query_start_loc's end");
        assert_eq!(self.block_table_start[seqs] as usize, self.block_tables.len(), "block_table_start's end");
        for seq in 0..seqs {
            let query_len = self.query_start_loc[seq + 1] - self.query_start_loc[seq];
            let table_len = self.block_table_start[seq + 1] - self.block_table_start[seq];
            let seq_len = self.seq_lens[seq];
            assert!(query_len <= seq_len, "sequence {seq}: query of {query_len} tokens in {seq_len}");
            assert!(table_len * block_size >= seq_len, "sequence {seq}: {table_len} blocks for {seq_len} tokens");
        }
        assert!(self.block_tables.iter().all(|&block| block < num_blocks), "block id beyond the pool");
        assert!(self.slot_mapping.iter().all(|&slot| slot < num_blocks * block_size), "slot beyond the pool");
        assert!(self.logits_indices.iter().all(|&token| (token as usize) < tokens), "logits index beyond the step");
        assert!(self.block_copies.iter().all(|&(src, dst)| src < num_blocks && dst < num_blocks && src != dst));
        for (name, rows) in [("read_logits_rows", self.read_logits_rows), ("top_k_rows", self.top_k_rows)] {
            assert!(rows.is_sorted_by(|a, b| a < b), "{name} not ascending");
            assert!(
                rows.last().is_none_or(|&row| (row as usize) < self.logits_indices.len()),
                "{name} beyond the step"
            );
        }
        assert!(self.top_k <= MAX_TOP_K, "{} tokens of each row", self.top_k);
        assert_eq!(self.top_k_rows.is_empty(), self.top_k == 0, "top_k without rows, or rows without top_k");
    }
}
