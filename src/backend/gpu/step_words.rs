//! One step's metadata as the words of `step.wgsl` and `step.cuh`: a header of counts and offsets, then sections.

use super::super::{AttentionShape, LogitAdjustment, Rows, SampledBy, ScoredToken, StepInput, StepLimits, TokenDraw};
#[cfg(test)]
pub(in crate::backend) use super::work_items::NO_PARTIAL;
use super::work_items::WorkItems;
pub(in crate::backend) use super::work_items::{
    AttentionTiling, DECODE_TOKENS, ITEM_WORDS, Items, QUERY_WORDS, REDUCE_WORDS, Round, RoundLimits,
};

/// Header indices, as in the WGSL.
pub(in crate::backend) mod header {
    use crate::backend::Rows;

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
    pub(in crate::backend) const QUERIES_AT: usize = 20;
    pub(in crate::backend) const NUM_FED_TOKENS: usize = 21;
    pub(in crate::backend) const FED_TOKENS_AT: usize = 22;
    pub(in crate::backend) const NUM_DRAWS: usize = 23;
    pub(in crate::backend) const NUM_SCORED: usize = 24;
    pub(in crate::backend) const SCORED_AT: usize = 25;
    pub(in crate::backend) const WORDS: usize = 26;

    /// The word that counts an activation's rows.
    pub(in crate::backend) const fn count_of(rows: Rows) -> u32 {
        match rows {
            Rows::Tokens => NUM_TOKENS as u32,
            Rows::Logits => NUM_LOGITS_ROWS as u32,
        }
    }
}

/// Marks the index of a draw, among those of rows.
pub(in crate::backend) const DRAWN: u32 = 1 << 31;

fn sampled_by(from: SampledBy) -> u32 {
    match from {
        SampledBy::Argmax(row) => row,
        SampledBy::Draw(draw) => DRAWN | draw,
    }
}

/// Stands for the argmax of a scored row, among token ids.
pub(in crate::backend) const ARGMAX: u32 = 1 << 30;

fn scored_token(token: ScoredToken) -> u32 {
    match token {
        ScoredToken::Known(token) => token,
        ScoredToken::Argmax => ARGMAX,
        ScoredToken::Draw(draw) => DRAWN | draw,
    }
}

/// Words of a `TokenDraw` and of a `LogitAdjustment`.
pub(in crate::backend) const DRAW_WORDS: usize = size_of::<TokenDraw>() / 4;
pub(in crate::backend) const ADJUSTMENT_WORDS: usize = size_of::<LogitAdjustment>() / 4;

/// How much of each kind of work the step has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::backend) struct StepCounts {
    pub(in crate::backend) tokens: u32,
    pub(in crate::backend) logits_rows: u32,
    pub(in crate::backend) block_copies: u32,
    pub(in crate::backend) top_k_rows: u32,
    pub(in crate::backend) draws: u32,
    pub(in crate::backend) fed_tokens: u32,
    pub(in crate::backend) scored: u32,
    /// Of the attention; at least one.
    pub(in crate::backend) rounds: Vec<Round>,
}

impl StepCounts {
    /// Rows of an activation.
    pub(in crate::backend) fn rows(&self, rows: Rows) -> u32 {
        match rows {
            Rows::Tokens => self.tokens,
            Rows::Logits => self.logits_rows,
        }
    }
}

/// The words, rebuilt every step in the same allocations.
#[derive(Debug, Default)]
pub(in crate::backend) struct StepWords {
    pub(in crate::backend) words: Vec<u32>,
    pub(in crate::backend) counts: StepCounts,
    items: WorkItems,
}

/// Most work items of a step's decodes: every split of every token that is one. A token that shares its first blocks has one
/// more, where these end.
fn max_decode_items(limits: &StepLimits, block_size: u32, tiling: &AttentionTiling) -> u64 {
    let of_one_token = u64::from(max_splits(limits, block_size, tiling)) + 1;
    let keys = u64::from(limits.max_block_table_entries) * u64::from(block_size);
    let of_a_token_each = keys.div_ceil(u64::from(tiling.split)) + 2 * u64::from(limits.max_seqs);
    let of_all_tokens = u64::from(limits.max_tokens) * of_one_token;
    of_all_tokens.min(u64::from(tiling.decode_tokens) * of_a_token_each)
}

/// Most splits of one token.
fn max_splits(limits: &StepLimits, block_size: u32, tiling: &AttentionTiling) -> u32 {
    let longest_seq = u64::from(limits.max_block_table_entries.div_ceil(limits.max_seqs)) * u64::from(block_size);
    longest_seq.div_ceil(u64::from(tiling.split)) as u32
}

/// Most bytes of partial results, unless one token has more.
const PARTIALS_BYTES: u64 = 64 << 20;

/// Partial results that there is room for: those of a round.
pub(in crate::backend) fn max_partials(
    limits: &StepLimits,
    block_size: u32,
    tiling: &AttentionTiling,
    shape: &AttentionShape,
) -> u32 {
    let most = PARTIALS_BYTES / (4 * u64::from(shape.num_heads) * u64::from(shape.head_dim));
    // Of a token that shares its first blocks: one more, where these end.
    let least = u64::from(max_splits(limits, block_size, tiling)) + 1;
    max_decode_items(limits, block_size, tiling).min(most.max(least)) as u32
}

/// Most words of a step.
pub(in crate::backend) fn max_words(limits: &StepLimits, block_size: u32, tiling: &AttentionTiling) -> usize {
    let prefill_items = u64::from(limits.max_tokens.div_ceil(tiling.prefill_tokens) + limits.max_seqs);
    let items = max_decode_items(limits, block_size, tiling) + prefill_items;
    header::WORDS
        + 3 * limits.max_tokens as usize
        + limits.max_block_table_entries as usize
        + 2 * limits.max_logits_rows as usize
        + 2 * limits.max_block_copies as usize
        + 2 * limits.max_seqs as usize
        + 2 * limits.max_scored() as usize
        + ITEM_WORDS * items as usize
        + (QUERY_WORDS + REDUCE_WORDS) * limits.max_tokens as usize
        + DRAW_WORDS * limits.max_draws as usize
        + ADJUSTMENT_WORDS * limits.max_adjustments as usize
}

impl StepWords {
    /// Lays `input` out, and cuts attention into work items.
    pub(in crate::backend) fn build(
        &mut self,
        input: &StepInput<'_>,
        block_size: u32,
        tiling: &AttentionTiling,
        round_limits: &RoundLimits,
    ) {
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
        self.words[header::FED_TOKENS_AT] = self.words.len() as u32;
        self.words.extend(input.fed_tokens.iter().flat_map(|fed| [fed.token, sampled_by(fed.from)]));
        self.words[header::SCORED_AT] = self.words.len() as u32;
        self.words.extend(input.scored.iter().flat_map(|scored| [scored.row, scored_token(scored.token)]));

        let mut items = std::mem::take(&mut self.items);
        items.cut(input, self.words[header::BLOCK_TABLES_AT], block_size, tiling, round_limits);
        self.section(header::QUERIES_AT, items.queries.as_flattened());
        self.section(header::DECODE_ITEMS_AT, items.decode.as_flattened());
        self.section(header::PREFILL_ITEMS_AT, items.prefill.as_flattened());
        self.section(header::REDUCE_ITEMS_AT, items.reduce.as_flattened());

        let mut rounds = std::mem::take(&mut self.counts.rounds);
        rounds.clone_from(&items.rounds);
        self.counts = StepCounts {
            tokens: input.token_ids.len() as u32,
            logits_rows: input.logits_indices.len() as u32,
            block_copies: input.block_copies.len() as u32,
            top_k_rows: input.top_k_rows.len() as u32,
            draws: input.draws.len() as u32,
            fed_tokens: input.fed_tokens.len() as u32,
            scored: input.scored.len() as u32,
            rounds,
        };
        self.words[header::NUM_TOKENS] = self.counts.tokens;
        self.words[header::NUM_LOGITS_ROWS] = self.counts.logits_rows;
        self.words[header::NUM_BLOCK_COPIES] = self.counts.block_copies;
        self.words[header::NUM_TOP_K_ROWS] = self.counts.top_k_rows;
        self.words[header::TOP_K] = input.top_k;
        self.words[header::NUM_DECODE_ITEMS] = items.decode.len() as u32;
        self.words[header::NUM_PREFILL_ITEMS] = items.prefill.len() as u32;
        self.words[header::NUM_REDUCE_ITEMS] = items.reduce.len() as u32;
        self.items = items;
        self.words[header::NUM_FED_TOKENS] = self.counts.fed_tokens;
        self.words[header::NUM_DRAWS] = self.counts.draws;
        self.words[header::NUM_SCORED] = self.counts.scored;
    }

    fn section(&mut self, header: usize, values: &[u32]) {
        self.words[header] = self.words.len() as u32;
        self.words.extend_from_slice(values);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::kernel_cases::{SeqPlan, StepData};
    use super::super::super::{FedToken, ScoredRow};
    use super::*;
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    thread_local! {
        static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    }

    /// The system's allocator, counting for each thread.
    struct Counting;

    // SAFETY: every call goes to the system's allocator as it came.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            ALLOCATIONS.set(ALLOCATIONS.get() + 1);
            // SAFETY: the caller's promises are passed on.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
            // SAFETY: the caller's promises are passed on.
            unsafe { System.dealloc(ptr, layout) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    /// Decodes of 64 sequences, each token fed by the step before, drawn and scored; `common` blocks are shared by all.
    fn decode(context_len: u32, common: u32) -> StepData {
        let blocks = context_len / 16 + 1;
        let table = |seq: u32| (0..common).chain(1000 * (seq + 1)..1000 * (seq + 1) + blocks - common).collect();
        let seqs: Vec<SeqPlan> = (0..64).map(|seq| SeqPlan { context_len, query_len: 1, table: table(seq) }).collect();
        let mut step = StepData::new(&seqs);
        step.fed_tokens = (0..64).map(|token| FedToken { token, from: SampledBy::Draw(token) }).collect();
        step.draws = (0..64).map(TokenDraw::unfiltered).collect();
        step.scored = (0..64).map(|row| ScoredRow { row, token: ScoredToken::Draw(row) }).collect();
        step
    }

    #[test]
    fn metadata_of_decodes_allocates_nothing() {
        let tiling = AttentionTiling {
            heads_per_group: 3,
            prefill_tokens: 4,
            prefill_keys: 16,
            split: 256,
            decode_tokens: 1,
            share_prefixes: true,
        };
        let one_round = RoundLimits { partials: u32::MAX, items: u32::MAX, keys: u64::MAX };
        for (common, limits) in [(0, one_round), (40, one_round), (40, RoundLimits { partials: 50, ..one_round })] {
            let steps: Vec<StepData> = (700..800).map(|context_len| decode(context_len, common)).collect();
            let mut words = StepWords::default();
            let mut allocations = || {
                let before = ALLOCATIONS.get();
                steps.iter().rev().for_each(|step| words.build(&step.input(), 16, &tiling, &limits));
                ALLOCATIONS.get() - before
            };
            assert!(allocations() > 0, "the first steps make room");
            assert_eq!(allocations(), 0, "{common} blocks in common, {limits:?}");
        }
    }
}
