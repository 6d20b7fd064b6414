//! One step's metadata as the words of `shaders/wgsl/include/step.wgsl`: a header of counts and offsets, then sections.

use super::super::{LogitAdjustment, StepInput, StepLimits, TokenDraw};
pub(in crate::backend) use super::kernel::AttentionTiling;

/// Header indices, as in the WGSL.
pub(in crate::backend) mod header {
    pub(in crate::backend) const NUM_TOKENS: usize = 0;
    pub(in crate::backend) const NUM_LOGITS_ROWS: usize = 1;
    pub(in crate::backend) const NUM_BLOCK_COPIES: usize = 2;
    pub(in crate::backend) const TOKEN_IDS_AT: usize = 3;
    pub(in crate::backend) const POSITIONS_AT: usize = 4;
    pub(in crate::backend) const SLOT_MAPPING_AT: usize = 5;
    pub(in crate::backend) const BLOCK_TABLES_AT: usize = 6;
    pub(in crate::backend) const LOGITS_INDICES_AT: usize = 7;
    pub(in crate::backend) const BLOCK_COPIES_AT: usize = 8;
    pub(in crate::backend) const DECODE_ITEMS_AT: usize = 9;
    pub(in crate::backend) const PREFILL_ITEMS_AT: usize = 10;
    pub(in crate::backend) const REDUCE_ITEMS_AT: usize = 11;
    pub(in crate::backend) const NUM_TOP_K_ROWS: usize = 12;
    pub(in crate::backend) const TOP_K: usize = 13;
    pub(in crate::backend) const TOP_K_ROWS_AT: usize = 14;
    pub(in crate::backend) const NUM_DECODE_ITEMS: usize = 15;
    pub(in crate::backend) const NUM_PREFILL_ITEMS: usize = 16;
    pub(in crate::backend) const NUM_REDUCE_ITEMS: usize = 17;
    pub(in crate::backend) const DRAWS_AT: usize = 18;
    pub(in crate::backend) const ADJUSTMENTS_AT: usize = 19;
    pub(in crate::backend) const WORDS: usize = 20;
}

/// Words of a `TokenDraw` and of a `LogitAdjustment`.
pub(super) const DRAW_WORDS: usize = size_of::<TokenDraw>() / 4;
pub(super) const ADJUSTMENT_WORDS: usize = size_of::<LogitAdjustment>() / 4;
/// Words of a `WorkItem` and of a `ReduceItem`.
pub(in crate::backend) const ITEM_WORDS: usize = 6;
pub(in crate::backend) const REDUCE_WORDS: usize = 3;
/// `WorkItem::partial` of an item that writes its output itself.
pub(in crate::backend) const NO_PARTIAL: u32 = u32::MAX;

/// How much of each kind of work the step has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::backend) struct StepCounts {
    pub(in crate::backend) tokens: u32,
    pub(in crate::backend) logits_rows: u32,
    pub(in crate::backend) block_copies: u32,
    pub(in crate::backend) decode_items: u32,
    pub(in crate::backend) prefill_items: u32,
    pub(in crate::backend) reduce_items: u32,
    pub(in crate::backend) top_k_rows: u32,
    pub(in crate::backend) draws: u32,
    /// Keys that the tokens attend to, all together.
    pub(in crate::backend) keys: u64,
}

/// The words, rebuilt every step in the same allocations.
#[derive(Debug, Default)]
pub(in crate::backend) struct StepWords {
    pub(in crate::backend) words: Vec<u32>,
    pub(in crate::backend) counts: StepCounts,
    decode: Vec<[u32; ITEM_WORDS]>,
    prefill: Vec<[u32; ITEM_WORDS]>,
    reduce: Vec<[u32; REDUCE_WORDS]>,
    /// Partial results so far.
    partials: u32,
}

/// Most partial results of a step: every split of every token that is a decode and has more than one.
pub(in crate::backend) fn max_partials(limits: &StepLimits, block_size: u32, tiling: &AttentionTiling) -> u32 {
    if tiling.decode_tokens > 1 {
        let longest_seq = limits.max_block_table_entries.div_ceil(limits.max_seqs) * block_size;
        return limits.max_tokens * longest_seq.div_ceil(tiling.split);
    }
    (limits.max_block_table_entries * block_size).div_ceil(tiling.split) + limits.max_seqs
}

/// Most words of a step.
pub(in crate::backend) fn max_words(limits: &StepLimits, block_size: u32, tiling: &AttentionTiling) -> usize {
    let prefill_items = limits.max_tokens.div_ceil(tiling.prefill_tokens) + limits.max_seqs;
    header::WORDS
        + 3 * limits.max_tokens as usize
        + limits.max_block_table_entries as usize
        + 2 * limits.max_logits_rows as usize
        + 2 * limits.max_block_copies as usize
        + ITEM_WORDS * (max_partials(limits, block_size, tiling) + prefill_items) as usize
        + REDUCE_WORDS * limits.max_tokens as usize
        + DRAW_WORDS * limits.max_draws as usize
        + ADJUSTMENT_WORDS * limits.max_adjustments as usize
}

impl StepWords {
    /// Lays `input` out, and cuts attention into work items: the tokens of a sequence with few new ones (commonly one) are
    /// split over their keys, a sequence with more over its query tokens.
    pub(in crate::backend) fn build(&mut self, input: &StepInput<'_>, tiling: &AttentionTiling) {
        self.words.clear();
        self.words.resize(header::WORDS, 0);
        self.section(header::TOKEN_IDS_AT, input.token_ids);
        self.section(header::POSITIONS_AT, input.positions);
        self.section(header::SLOT_MAPPING_AT, input.slot_mapping);
        self.section(header::BLOCK_TABLES_AT, input.block_tables);
        self.section(header::LOGITS_INDICES_AT, input.logits_indices);
        self.section(header::TOP_K_ROWS_AT, input.top_k_rows);
        self.section(header::DRAWS_AT, bytemuck::cast_slice(input.draws));
        self.section(header::ADJUSTMENTS_AT, bytemuck::cast_slice(input.adjustments));
        self.words[header::BLOCK_COPIES_AT] = self.words.len() as u32;
        self.words.extend(input.block_copies.iter().flat_map(|&(src, dst)| [src, dst]));

        self.cut_attention(input, tiling);
        self.words[header::DECODE_ITEMS_AT] = self.words.len() as u32;
        self.words.extend(self.decode.iter().flatten());
        self.words[header::PREFILL_ITEMS_AT] = self.words.len() as u32;
        self.words.extend(self.prefill.iter().flatten());
        self.words[header::REDUCE_ITEMS_AT] = self.words.len() as u32;
        self.words.extend(self.reduce.iter().flatten());

        self.counts = StepCounts {
            tokens: input.token_ids.len() as u32,
            logits_rows: input.logits_indices.len() as u32,
            block_copies: input.block_copies.len() as u32,
            decode_items: self.decode.len() as u32,
            prefill_items: self.prefill.len() as u32,
            reduce_items: self.reduce.len() as u32,
            top_k_rows: input.top_k_rows.len() as u32,
            draws: input.draws.len() as u32,
            keys: input.positions.iter().map(|&position| u64::from(position) + 1).sum(),
        };
        self.words[header::NUM_TOKENS] = self.counts.tokens;
        self.words[header::NUM_LOGITS_ROWS] = self.counts.logits_rows;
        self.words[header::NUM_BLOCK_COPIES] = self.counts.block_copies;
        self.words[header::NUM_TOP_K_ROWS] = self.counts.top_k_rows;
        self.words[header::TOP_K] = input.top_k;
        self.words[header::NUM_DECODE_ITEMS] = self.counts.decode_items;
        self.words[header::NUM_PREFILL_ITEMS] = self.counts.prefill_items;
        self.words[header::NUM_REDUCE_ITEMS] = self.counts.reduce_items;
    }

    fn section(&mut self, header: usize, values: &[u32]) {
        self.words[header] = self.words.len() as u32;
        self.words.extend_from_slice(values);
    }

    fn cut_attention(&mut self, input: &StepInput<'_>, tiling: &AttentionTiling) {
        self.decode.clear();
        self.prefill.clear();
        self.reduce.clear();
        let tables_at = self.words[header::BLOCK_TABLES_AT];
        self.partials = 0;
        for seq in 0..input.seq_lens.len() {
            let first = input.query_start_loc[seq];
            let query_len = input.query_start_loc[seq + 1] - first;
            let seq_len = input.seq_lens[seq];
            let table = tables_at + input.block_table_start[seq];
            let context_len = seq_len - query_len;
            if query_len <= tiling.decode_tokens {
                for token in 0..query_len {
                    self.decode_token(first + token, table, context_len + token + 1, tiling.split);
                }
            } else {
                for at in (0..query_len).step_by(tiling.prefill_tokens as usize) {
                    let tokens = tiling.prefill_tokens.min(query_len - at);
                    self.prefill.push([first + at, tokens, table, 0, context_len + at + tokens, NO_PARTIAL]);
                }
            }
        }
    }

    /// The work items of one token with the keys `0..num_keys`.
    fn decode_token(&mut self, token: u32, table: u32, num_keys: u32, split: u32) {
        let splits = num_keys.div_ceil(split);
        if splits > 1 {
            self.reduce.push([token, self.partials, splits]);
        }
        for i in 0..splits {
            let begin = i * split;
            let end = begin.saturating_add(split).min(num_keys);
            let partial = if splits == 1 { NO_PARTIAL } else { self.partials };
            self.decode.push([token, 1, table, begin, end, partial]);
            self.partials += u32::from(splits > 1);
        }
    }
}
