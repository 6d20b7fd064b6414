//! A model's forward pass as a list of fused kernels.

use super::WeightId;

/// An activation of the program: a row-major f32 matrix on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ActId(pub u32);

/// What counts the rows of an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rows {
    /// One row for each token of the step.
    Tokens,
    /// One row for each entry of the step's `logits_indices`.
    Logits,
}

/// Shape of an activation; its dtype is f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activation {
    /// Name for messages and profiles.
    pub name: &'static str,
    /// What counts its rows.
    pub rows: Rows,
    /// Its columns.
    pub cols: u32,
}

/// Which two elements of a head RoPE rotates together, for `i < head_dim / 2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RopePairing {
    /// `(i, i + head_dim / 2)`: Hugging Face checkpoints.
    Halves,
    /// `(2 i, 2 i + 1)`: GGUF files of the llama architecture.
    Interleaved,
}

/// Heads of the attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub num_heads: u32,
    /// Key and value heads; divides `num_heads`, query head `h` reads key head `h / (num_heads / num_kv_heads)`.
    pub num_kv_heads: u32,
    /// Elements of one head, a multiple of 8.
    pub head_dim: u32,
    /// Factor on `q . k` before the softmax, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
}

/// Cosines and sines of RoPE, `[max_positions][head_dim / 2]` each, computed on the host in f64.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RopeTable {
    /// Cosines.
    pub cos: Vec<f32>,
    /// Sines.
    pub sin: Vec<f32>,
}

/// RMSNorm of each query and key head before RoPE (Qwen3, arXiv:2505.09388).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadNorm {
    /// `[1][2 head_dim]`, F32: of query heads, then of key heads.
    pub weight: WeightId,
    /// Added to the mean square.
    pub eps: f32,
}

/// One fused kernel. `out` is always overwritten, apart from `MatMul` with `accumulate`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    /// `out[t] = table[token_ids[t]]`, dequantised.
    Embed {
        /// `[vocab][hidden]`.
        table: WeightId,
        /// `[T][hidden]`.
        out: ActId,
    },
    /// `out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight` (Zhang and Sennrich 2019, arXiv:1910.07467).
    RmsNorm {
        /// `[R][n]`.
        x: ActId,
        /// `[1][n]`, F32.
        weight: WeightId,
        /// Added to the mean square.
        eps: f32,
        /// `[R][n]`.
        out: ActId,
    },
    /// `out[i] = x[logits_indices[i]]`.
    SelectLogitsRows {
        /// `[T][n]`.
        x: ActId,
        /// `[L][n]`.
        out: ActId,
    },
    /// `out = x W^T (+ bias)`, or `out += ...` with `accumulate`; f32 accumulation.
    MatMul {
        /// `[R][cols]`.
        x: ActId,
        /// `[rows][cols]`.
        weight: WeightId,
        /// `[1][rows]`, F32.
        bias: Option<WeightId>,
        /// `[R][rows]`.
        out: ActId,
        /// Add to `out` (a residual) instead of overwriting it.
        accumulate: bool,
    },
    /// Normalises q and k if the model does, rotates them (Su et al. 2021, arXiv:2104.09864), writes q to `q`, and k and v to
    /// the slots of `slot_mapping` in this layer's KV pool.
    RopeAndCache {
        /// Layer whose KV pool is written.
        layer: u32,
        /// `[T][(num_heads + 2 num_kv_heads) * head_dim]`: q heads, then k heads, then v heads.
        qkv: ActId,
        /// `[T][num_heads * head_dim]`, rotated but not scaled.
        q: ActId,
        /// Which elements are rotated together.
        pairing: RopePairing,
        /// What comes before the rotation.
        norm: Option<HeadNorm>,
    },
    /// Causal softmax attention of each query token over its sequence's KV blocks, read through the block table
    /// (Kwon et al. 2023, arXiv:2309.06180).
    PagedAttention {
        /// Layer whose KV pool is read.
        layer: u32,
        /// `[T][num_heads * head_dim]`.
        q: ActId,
        /// `[T][num_heads * head_dim]`.
        out: ActId,
    },
    /// `out[r][i] = silu(gate_up[r][i]) * gate_up[r][n + i]` for `i < n` (Shazeer 2020, arXiv:2002.05202).
    SiluMul {
        /// `[R][2 n]`: gate, then up; `n` is a multiple of 4.
        gate_up: ActId,
        /// `[R][n]`.
        out: ActId,
    },
}

/// A model's forward pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// The activations; [`ActId`] is an index into it.
    pub activations: Vec<Activation>,
    /// The kernels, in order.
    pub ops: Vec<Op>,
    /// Heads of every attention op.
    pub attention: AttentionShape,
    /// RoPE's table, used by every [`Op::RopeAndCache`].
    pub rope: RopeTable,
    /// Where the logits stand after the last op: `[L][vocab]`. `None` in tests of single kernels.
    pub logits: Option<ActId>,
}
