//! A step's metadata for a test case: an owner for [`StepInput`]'s arrays, and sequences scattered over a KV pool.

use super::SplitMix64;
use crate::backend::{FedToken, KvLayout, LogitAdjustment, ScoredRow, StepInput, StepLimits, TokenDraw};

/// Tokens in a block, in every case.
pub const BLOCK_SIZE: u32 = 16;

/// Owns the arrays of a [`StepInput`], whose fields these are.
#[derive(Debug, Clone, Default)]
pub struct StepData {
    /// `[T]`
    pub token_ids: Vec<u32>,
    /// Those of them that come from the step before.
    pub fed_tokens: Vec<FedToken>,
    /// `[T]`
    pub positions: Vec<u32>,
    /// `[T]`
    pub slot_mapping: Vec<u32>,
    /// `[S + 1]`
    pub query_start_loc: Vec<u32>,
    /// `[S]`
    pub seq_lens: Vec<u32>,
    /// One block table after the other.
    pub block_tables: Vec<u32>,
    /// `[S + 1]`
    pub block_table_start: Vec<u32>,
    /// `[L]`
    pub logits_indices: Vec<u32>,
    /// `(src, dst)` block ids.
    pub block_copies: Vec<(u32, u32)>,
    /// Ascending rows of the logits.
    pub read_logits_rows: Vec<u32>,
    /// Ascending rows of the logits.
    pub top_k_rows: Vec<u32>,
    /// Likeliest tokens of each.
    pub top_k: u32,
    /// Tokens to draw.
    pub draws: Vec<TokenDraw>,
    /// What they change first.
    pub adjustments: Vec<LogitAdjustment>,
    /// Tokens that are scored.
    pub scored: Vec<ScoredRow>,
}

/// One sequence of a step.
#[derive(Debug, Clone)]
pub struct SeqPlan {
    /// Tokens already in the KV cache.
    pub context_len: u32,
    /// Tokens of this step.
    pub query_len: u32,
    /// Block ids, at least as many as the tokens need.
    pub table: Vec<u32>,
}

impl SeqPlan {
    /// Tokens once the step is done.
    pub const fn seq_len(&self) -> u32 {
        self.context_len + self.query_len
    }
}

impl StepData {
    /// A step of these sequences; token ids 0, no logits rows.
    pub fn new(seqs: &[SeqPlan]) -> Self {
        let mut step = Self { query_start_loc: vec![0], block_table_start: vec![0], ..Self::default() };
        for seq in seqs {
            for position in seq.context_len..seq.seq_len() {
                step.token_ids.push(0);
                step.positions.push(position);
                let block = seq.table[(position / BLOCK_SIZE) as usize];
                step.slot_mapping.push(block * BLOCK_SIZE + position % BLOCK_SIZE);
            }
            step.query_start_loc.push(step.token_ids.len() as u32);
            step.seq_lens.push(seq.seq_len());
            step.block_tables.extend(&seq.table);
            step.block_table_start.push(step.block_tables.len() as u32);
        }
        step
    }

    /// One fresh sequence of `tokens` tokens in blocks 0, 1, ...: for kernels that know no sequences.
    pub fn of_tokens(tokens: u32) -> Self {
        let table = (0..tokens.div_ceil(BLOCK_SIZE)).collect();
        Self::new(&[SeqPlan { context_len: 0, query_len: tokens, table }])
    }

    /// The same step with logits for these token indices, all of them read back.
    pub fn with_logits(mut self, indices: Vec<u32>) -> Self {
        self.read_logits_rows = (0..indices.len() as u32).collect();
        self.logits_indices = indices;
        self
    }

    /// Borrows the arrays.
    pub fn input(&self) -> StepInput<'_> {
        StepInput {
            token_ids: &self.token_ids,
            fed_tokens: &self.fed_tokens,
            positions: &self.positions,
            slot_mapping: &self.slot_mapping,
            query_start_loc: &self.query_start_loc,
            seq_lens: &self.seq_lens,
            block_tables: &self.block_tables,
            block_table_start: &self.block_table_start,
            logits_indices: &self.logits_indices,
            block_copies: &self.block_copies,
            read_logits_rows: &self.read_logits_rows,
            top_k_rows: &self.top_k_rows,
            top_k: self.top_k,
            draws: &self.draws,
            adjustments: &self.adjustments,
            scored: &self.scored,
        }
    }
}

/// Limits that hold all `steps`, with room for three more tokens, sequences, rows and copies: a kernel that takes the
/// limit for the length then reads poison.
pub fn limits_of<'a>(steps: impl Iterator<Item = &'a StepData> + Clone) -> StepLimits {
    let most = |len: fn(&StepData) -> usize| steps.clone().map(len).max().unwrap_or(0) as u32 + 3;
    StepLimits {
        max_tokens: most(|step| step.token_ids.len()),
        max_seqs: most(|step| step.seq_lens.len()),
        max_logits_rows: most(|step| step.logits_indices.len()),
        max_block_table_entries: most(|step| step.block_tables.len()),
        max_block_copies: most(|step| step.block_copies.len()),
        max_draws: most(|step| step.draws.len()),
        max_adjustments: most(|step| step.adjustments.len()),
        batch_invariant: false,
        quantize_activations: false,
        cascade_attention: true,
    }
}

/// Places sequences of `(context_len, query_len)` tokens on random blocks of a pool with a few blocks to spare, and
/// returns them with the pool's number of blocks.
///
/// Every third sequence shares the full blocks that it can with the one before, as a cached prefix would.
pub fn scatter(rng: &mut SplitMix64, lens: &[(u32, u32)]) -> (Vec<SeqPlan>, u32) {
    let needed = |&(context, query): &(u32, u32)| (context + query).div_ceil(BLOCK_SIZE);
    let num_blocks = lens.iter().map(needed).sum::<u32>() + 5;
    let mut free = rng.permutation(num_blocks).into_iter();
    let mut seqs: Vec<SeqPlan> = Vec::new();
    for (i, lens @ &(context_len, query_len)) in lens.iter().enumerate() {
        let mut table = match seqs.last() {
            Some(previous) if i % 3 == 2 => {
                let shared = previous.context_len.min(context_len) / BLOCK_SIZE;
                previous.table[..shared as usize].to_vec()
            }
            _ => Vec::new(),
        };
        while table.len() < needed(lens) as usize {
            table.push(free.next().expect("the pool holds every sequence"));
        }
        seqs.push(SeqPlan { context_len, query_len, table });
    }
    (seqs, num_blocks)
}

/// One layer's K (or V) pool with random values of standard deviation 1 in the slots of `seqs`, NaN everywhere else.
pub fn poisoned_pool(rng: &mut SplitMix64, kv: &KvLayout, seqs: &[SeqPlan]) -> Vec<f32> {
    let mut pool = vec![f32::NAN; kv.layer_elements()];
    let head_dim = kv.head_dim as usize;
    for seq in seqs {
        for position in 0..seq.seq_len() {
            let block = seq.table[(position / BLOCK_SIZE) as usize];
            for head in 0..kv.num_kv_heads {
                let row = (block * kv.num_kv_heads + head) * BLOCK_SIZE + position % BLOCK_SIZE;
                pool[row as usize * head_dim..][..head_dim].copy_from_slice(&rng.values(head_dim, 1.0));
            }
        }
    }
    pool
}
