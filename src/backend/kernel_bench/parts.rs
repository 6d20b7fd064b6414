//! A program in the making: one op, several times over weights or pools of its own.

use super::super::kernel_cases::{BLOCK_SIZE, limits_of};
use super::super::{ActId, Activation, AttentionShape, KvDtype, KvLayout, Op, Program, RopeTable, Rows};
use super::{BenchProgram, BenchStep, BenchWeight, ModelShape};

/// The first and the second activation of a program.
pub(super) const IN: ActId = ActId(0);
pub(super) const OUT: ActId = ActId(1);

const MAX_COPIES: u64 = 64;

pub(super) fn tokens_by(name: &'static str, cols: u32) -> Activation {
    Activation { name, rows: Rows::Tokens, cols }
}

/// A program in the making.
pub(super) struct Parts {
    pub(super) op: &'static str,
    pub(super) what: String,
    pub(super) activations: Vec<Activation>,
    pub(super) weights: Vec<BenchWeight>,
    pub(super) copies: u32,
    pub(super) kv: KvLayout,
}

impl Parts {
    /// `ops` gives the ops of each copy; `logits` is an activation whose argmax is taken.
    pub(super) fn program(
        self,
        shape: &ModelShape,
        ops: impl Fn(u32) -> Vec<Op>,
        rope: RopeTable,
        logits: Option<ActId>,
        steps: Vec<BenchStep>,
    ) -> BenchProgram {
        let Self { op, what, activations, weights, copies, kv } = self;
        let limits = limits_of(steps.iter().map(|step| &step.data));
        let activation_bytes = |a: &Activation| 4 * u64::from(limits.max_rows(a.rows)) * u64::from(a.cols);
        let weight_bytes = |w: &BenchWeight| (w.format.row_bytes(w.cols).unwrap_or(0) * w.rows) as u64;
        BenchProgram {
            model: shape.name.clone(),
            op,
            what,
            largest_buffer_bytes: activations.iter().map(activation_bytes).max().unwrap_or(0).max(kv.layer_bytes()),
            total_bytes: activations.iter().map(activation_bytes).sum::<u64>()
                + u64::from(copies) * weights.iter().map(weight_bytes).sum::<u64>()
                + kv.total_bytes(),
            copies,
            counted: "",
            weights,
            program: Program {
                activations,
                ops: (0..copies).flat_map(ops).collect(),
                attention: shape.attention,
                rope,
                logits,
            },
            kv,
            limits,
            steps,
        }
    }
}

/// Copies of an op that moves so many bytes, for more than a cache holds.
pub(super) fn copies_for(bytes: u64, cache_bytes: u64) -> u32 {
    cache_bytes.div_ceil(bytes.max(1)).clamp(1, MAX_COPIES) as u32
}

/// A pool that no op uses.
pub(super) fn no_kv(heads: &AttentionShape, num_blocks: u32) -> KvLayout {
    kv_layout(heads, 1, num_blocks, KvDtype::F16)
}

pub(super) fn kv_layout(heads: &AttentionShape, num_layers: u32, num_blocks: u32, dtype: KvDtype) -> KvLayout {
    let (num_kv_heads, head_dim) = (heads.num_kv_heads, heads.head_dim);
    KvLayout { num_layers, num_blocks, block_size: BLOCK_SIZE, num_kv_heads, head_dim, dtype }
}

/// RoPE's table for as many positions.
pub(super) fn rope_table(heads: &AttentionShape, positions: u32) -> RopeTable {
    let entries = (positions * heads.head_dim / 2) as usize;
    RopeTable { cos: vec![0.8; entries], sin: vec![0.6; entries] }
}
