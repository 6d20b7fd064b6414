//! The buffers of a prepared program: which there are, and how large for the largest step.

use super::super::{BackendError, KvLayout, MAX_TOP_K, Program, StepLimits};
use super::step_words::{AttentionTiling, max_partials, max_words};

/// Columns of the logits that one workgroup of `argmax_chunks` or `top_k_chunks` looks at.
pub(in crate::backend) const LOGITS_CHUNK: u32 = 4096;
/// Columns of the logits in a block of `draw_blocks`.
pub(in crate::backend) const DRAW_BLOCK: u32 = 32;

/// The buffers, each a `B`.
pub(in crate::backend) struct Buffers<B> {
    /// The step's metadata.
    pub(in crate::backend) step: B,
    /// By [`ActId`](super::super::ActId).
    pub(in crate::backend) activations: Vec<B>,
    /// By layer.
    pub(in crate::backend) k_pool: Vec<B>,
    pub(in crate::backend) v_pool: Vec<B>,
    /// `[positions][head_dim / 2]` cosines and sines, f32.
    pub(in crate::backend) rope: B,
    /// `[partial results of a round][heads][head_dim]`, f32.
    pub(in crate::backend) partial_out: B,
    /// `[partial results of a round][heads]` maxima and sums, f32.
    pub(in crate::backend) partial_stats: B,
    /// `[logits rows][chunks]` largest logits and their columns.
    pub(in crate::backend) chunk_max: B,
    /// `[logits rows]` argmax, u32.
    pub(in crate::backend) ids: B,
    pub(in crate::backend) top_k: TopKBuffers<B>,
    pub(in crate::backend) draws: DrawBuffers<B>,
    /// `[scored tokens]` log probabilities and ranks.
    pub(in crate::backend) scores: B,
    /// Given where a kernel has an input that an op does not use.
    pub(in crate::backend) unused: B,
}

/// Those of the likeliest tokens.
pub(in crate::backend) struct TopKBuffers<B> {
    /// `[rows][chunks]`, f32.
    pub(in crate::backend) chunk_sums: B,
    /// `[rows][chunks][MAX_TOP_K]` logits and columns.
    pub(in crate::backend) chunk_top: B,
    /// `[rows][MAX_TOP_K]` tokens and log probabilities.
    pub(in crate::backend) scores: B,
}

/// Those of the draws.
pub(in crate::backend) struct DrawBuffers<B> {
    /// `[draws][blocks][DRAW_BLOCK]`, u32.
    pub(in crate::backend) keys: B,
    /// `[draws][blocks]` largest keys and sums.
    pub(in crate::backend) stats: B,
    /// `[draws]` tokens, u32.
    pub(in crate::backend) drawn: B,
}

impl<B> Buffers<B> {
    /// All of them; `buffer` makes one, given what it is for and its bytes, which may be 0.
    pub(in crate::backend) fn new(
        program: &Program,
        kv: &KvLayout,
        limits: &StepLimits,
        tiling: &AttentionTiling,
        mut buffer: impl FnMut(&str, u64) -> Result<B, BackendError>,
    ) -> Result<Self, BackendError> {
        let mut activations = Vec::new();
        for activation in &program.activations {
            let rows = limits.max_rows(activation.rows);
            activations.push(buffer(activation.name, 4 * u64::from(rows) * u64::from(activation.cols))?);
        }
        let (mut k_pool, mut v_pool) = (Vec::new(), Vec::new());
        for layer in 0..kv.num_layers {
            k_pool.push(buffer(&format!("the K pool of layer {layer}"), kv.layer_bytes())?);
            v_pool.push(buffer(&format!("the V pool of layer {layer}"), kv.layer_bytes())?);
        }
        let shape = &program.attention;
        let partials = u64::from(max_partials(limits, kv.block_size, tiling, shape)) * u64::from(shape.num_heads);
        let words = max_words(limits, kv.block_size, tiling);
        let vocab = program.logits.map_or(1, |id| program.activations[id.0 as usize].cols);
        let chunks = vocab.div_ceil(LOGITS_CHUNK);
        let draw_blocks = u64::from(limits.max_draws) * u64::from(vocab.div_ceil(DRAW_BLOCK));
        let rows = u64::from(limits.max_logits_rows.max(1));
        Ok(Self {
            step: buffer("the step's metadata", 4 * words as u64)?,
            activations,
            k_pool,
            v_pool,
            rope: buffer("RoPE's table", 8 * program.rope.cos.len() as u64)?,
            partial_out: buffer("partial attention", 4 * partials * u64::from(shape.head_dim))?,
            partial_stats: buffer("partial attention", 8 * partials)?,
            chunk_max: buffer("the argmax", 8 * rows * u64::from(chunks))?,
            ids: buffer("token ids", 4 * rows)?,
            top_k: TopKBuffers {
                chunk_sums: buffer("the likeliest tokens", 4 * rows * u64::from(chunks))?,
                chunk_top: buffer("the likeliest tokens", 8 * rows * u64::from(chunks * MAX_TOP_K))?,
                scores: buffer("the likeliest tokens", 8 * rows * u64::from(MAX_TOP_K))?,
            },
            draws: DrawBuffers {
                keys: buffer("draws", 4 * u64::from(DRAW_BLOCK) * draw_blocks)?,
                stats: buffer("draws", 8 * draw_blocks)?,
                drawn: buffer("draws", 4 * u64::from(limits.max_draws))?,
            },
            scores: buffer("log probabilities", 8 * u64::from(limits.max_scored()))?,
            unused: buffer("an input that is not there", 16)?,
        })
    }
}

/// Bytes of all buffers but the KV pool, whatever its number of blocks.
pub(in crate::backend) fn scratch_bytes(
    program: &Program,
    kv: &KvLayout,
    limits: &StepLimits,
    tiling: &AttentionTiling,
) -> u64 {
    let mut total = 0;
    let no_pool = KvLayout { num_blocks: 0, ..*kv };
    let count = |_: &str, bytes| {
        total += bytes;
        Ok(())
    };
    Buffers::<()>::new(program, &no_pool, limits, tiling, count).expect("to count cannot fail");
    total
}
