//! What goes to the device for one step, and what comes back.

use super::Rows;
use std::time::Duration;

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
    /// Most draws in a step.
    pub max_draws: u32,
    /// Most adjustments of all draws of a step together.
    pub max_adjustments: u32,
    /// Whether what a token comes to must be the same to the bit whatever else is in its step, and wherever its
    /// sequence is cut into steps. Backends then use one kernel where the number of rows would choose.
    pub batch_invariant: bool,
    /// Whether products of quantised weights may round activations to int8 ([`ProductInputs::Int8`](super::ProductInputs)).
    /// CUDA refuses it, and so does WebGPU with `batch_invariant` or with kernels for software adapters; the reference
    /// rounds nothing.
    pub quantize_activations: bool,
    /// Whether blocks that several tokens of a step begin with, of one sequence or of several, may be read once for all of
    /// them. The results are the same but for rounding, so a batch-invariant backend does not.
    pub cascade_attention: bool,
}

impl StepLimits {
    /// Most scored tokens in a step: one for each row, and one for each draw.
    pub fn max_scored(&self) -> u32 {
        self.max_logits_rows + self.max_draws
    }

    /// Most rows of an activation in a step.
    pub fn max_rows(&self, rows: Rows) -> u32 {
        match rows {
            Rows::Tokens => self.max_tokens,
            Rows::Logits => self.max_logits_rows,
        }
    }
}

/// A token of the step before, put among the token ids of this one by the device: the host does not know it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FedToken {
    /// Index into [`StepInput::token_ids`]; what stands there does not matter.
    pub token: u32,
    /// Where it comes from.
    pub from: SampledBy,
}

/// One of the tokens that a step samples, as an index into its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampledBy {
    /// Of [`StepOutput::argmax`].
    Argmax(u32),
    /// Of [`StepOutput::drawn`]. If nothing could be drawn, what the next step computes from it means nothing.
    Draw(u32),
}

/// A token whose log probability comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScoredRow {
    /// The logits row, an index below `L`.
    pub row: u32,
    /// The token.
    pub token: ScoredToken,
}

/// Which token of a row is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScoredToken {
    /// This one.
    Known(u32),
    /// The row's of [`StepOutput::argmax`].
    Argmax,
    /// That of this draw in [`StepOutput::drawn`].
    Draw(u32),
}

/// One step's metadata, as flat arrays: the device's view of [`crate::engine::Batch`], where each is documented.
#[derive(Debug, Clone, Copy)]
pub struct StepInput<'a> {
    /// `[T]`
    pub token_ids: &'a [u32],
    /// Those of them that come from the step before.
    pub fed_tokens: &'a [FedToken],
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
    /// Tokens to draw, `[D]`.
    pub draws: &'a [TokenDraw],
    /// What the draws change in their rows before anything else.
    pub adjustments: &'a [LogitAdjustment],
    /// Tokens whose log probabilities come back.
    pub scored: &'a [ScoredRow],
}

/// One token to be drawn from a logits row.
///
/// 1. Each of its [`LogitAdjustment`]s changes one logit, in f32.
/// 2. A token's weight is `exp((logit - largest logit) / temperature)`.
/// 3. Tokens are ranked by logit, the larger first (of the two zeros `+0`), equal ones by id, the lower first. Those with
///    a weight below `min_p` go; of the others the first `top_k` stay; of these the fewest that have at least `top_p` of
///    the weight of these.
/// 4. Of the tokens that are left, in the order of their ids, the first is drawn whose weight and those before it are more
///    than `uniform` of them all.
///
/// A logit of -inf is never drawn. There is no randomness here: the same numbers give the same token.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct TokenDraw {
    /// The logits row, an index below `L`. Several draws may share a row.
    pub row: u32,
    /// Its adjustments are [`StepInput::adjustments`] from here.
    pub first_adjustment: u32,
    /// How many they are.
    pub num_adjustments: u32,
    /// Tokens that stay; 0 for all of them.
    pub top_k: u32,
    /// Share of the weight that stays, in (0, 1].
    pub top_p: f32,
    /// Least weight, in [0, 1]; the likeliest token has 1.
    pub min_p: f32,
    /// Above 0.
    pub temperature: f32,
    /// Divides positive logits of seen tokens and multiplies negative ones (Keskar et al., arXiv:1909.05858); 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted from a logit once for each time that its token occurs in the output.
    pub frequency_penalty: f32,
    /// Subtracted from the logits of all tokens that occur in the output.
    pub presence_penalty: f32,
    /// In [0, 1].
    pub uniform: f32,
}

impl TokenDraw {
    /// A draw from all tokens of a row as the logits have them: no filter, no adjustment, temperature 1. `uniform` is 0.
    pub const fn unfiltered(row: u32) -> Self {
        Self {
            row,
            first_adjustment: 0,
            num_adjustments: 0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            temperature: 1.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            uniform: 0.0,
        }
    }
}

/// What is known about one token before a draw. In this order: the bias, the repetition penalty if it has been seen, then
/// frequency and presence penalty if it is in the output. A finite logit that overflows becomes the largest or lowest finite
/// one.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct LogitAdjustment {
    /// The token; a draw's are in ascending order, none twice.
    pub token: u32,
    /// 1 if it occurs in prompt or output, else 0.
    pub seen: u32,
    /// How often it occurs in the output.
    pub count: u32,
    /// Added to the logit; -inf excludes the token.
    pub bias: f32,
}

/// [`StepOutput::drawn`] from a row that holds a NaN or +inf.
pub const DRAWN_BROKEN: u32 = u32::MAX;
/// [`StepOutput::drawn`] from a row of which every token is excluded.
pub const DRAWN_NOTHING: u32 = u32::MAX - 1;

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

/// How likely a token is among all of its row.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct TokenRank {
    /// Natural logarithm of its probability under the row as it is: `logit - ln(sum(exp(logits)))`.
    pub logprob: f32,
    /// 1 + the number of tokens with a larger logit.
    pub rank: u32,
}

/// What one step gave. A caller keeps one and passes it to every step, so that its vectors are allocated once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepOutput {
    /// For each logits row the token of the largest logit, ties to the lowest id: `[L]`.
    pub argmax: Vec<u32>,
    /// For each draw its token, or [`DRAWN_BROKEN`] or [`DRAWN_NOTHING`]: `[D]`.
    pub drawn: Vec<u32>,
    /// The rows asked for by `read_logits_rows`, `[rows][vocab]` f32.
    pub logits: Vec<f32>,
    /// The likeliest tokens of each row in `top_k_rows`, likeliest first, equals by the lower id: `[rows][top_k]`.
    /// Unspecified for a row that holds a logit which is not finite, apart from its log probabilities, which are not
    /// finite either.
    pub top_k: Vec<TokenScore>,
    /// For each of [`StepInput::scored`]. Unspecified for a draw that gave no token, and for a row that holds a logit which is
    /// NaN or +inf, apart from its log probability, which is not finite either.
    pub scores: Vec<TokenRank>,
    /// How long the host waited for the device; zero where the host is the device.
    pub waited: Duration,
}

impl StepOutput {
    /// The token ids of the step after this one, on a device that is done with this one: those that it feeds are in place.
    pub(super) fn feed(&self, input: &StepInput<'_>, token_ids: &mut Vec<u32>) {
        token_ids.clear();
        token_ids.extend_from_slice(input.token_ids);
        for fed in input.fed_tokens {
            token_ids[fed.token as usize] = match fed.from {
                SampledBy::Argmax(row) => self.argmax[row as usize],
                SampledBy::Draw(draw) => match self.drawn[draw as usize] {
                    DRAWN_BROKEN | DRAWN_NOTHING => 0,
                    drawn => drawn,
                },
            };
        }
    }

    /// Empties it, and keeps its allocations.
    pub fn clear(&mut self) {
        self.argmax.clear();
        self.drawn.clear();
        self.logits.clear();
        self.top_k.clear();
        self.scores.clear();
        self.waited = Duration::ZERO;
    }
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
        assert!(self.fed_tokens.len() <= seqs, "{} tokens from the step before", self.fed_tokens.len());
        for fed in self.fed_tokens {
            let (index, most) = match fed.from {
                SampledBy::Argmax(row) => (row, limits.max_logits_rows),
                SampledBy::Draw(draw) => (draw, limits.max_draws),
            };
            assert!((fed.token as usize) < tokens && index < most, "{fed:?} beyond the step, or the one before");
        }
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
        self.check_draws(limits);
    }

    fn check_draws(&self, limits: &StepLimits) {
        assert!(self.scored.len() <= limits.max_scored() as usize, "{} scored tokens in a step", self.scored.len());
        for scored in self.scored {
            assert!((scored.row as usize) < self.logits_indices.len(), "{scored:?}: row beyond the step");
            if let ScoredToken::Draw(draw) = scored.token {
                assert!((draw as usize) < self.draws.len(), "{scored:?}: draw beyond the step");
            }
        }
        assert!(self.draws.len() <= limits.max_draws as usize, "{} draws in a step", self.draws.len());
        assert!(self.adjustments.len() <= limits.max_adjustments as usize, "too many adjustments");
        for (i, draw) in self.draws.iter().enumerate() {
            assert!((draw.row as usize) < self.logits_indices.len(), "draw {i}: row beyond the step");
            let range = draw.first_adjustment as usize..draw.first_adjustment as usize + draw.num_adjustments as usize;
            let adjustments = self.adjustments.get(range).expect("a draw's adjustments are in the step");
            assert!(adjustments.is_sorted_by(|a, b| a.token < b.token), "draw {i}: adjustments not ascending");
            assert!(draw.temperature > 0.0, "draw {i}: temperature {}", draw.temperature);
            assert!(draw.top_p > 0.0 && draw.top_p <= 1.0, "draw {i}: top_p {}", draw.top_p);
            assert!((0.0..=1.0).contains(&draw.min_p), "draw {i}: min_p {}", draw.min_p);
            assert!((0.0..=1.0).contains(&draw.uniform), "draw {i}: uniform {}", draw.uniform);
        }
    }
}
