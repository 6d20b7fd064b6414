//! The attention kernels, and how their work is cut up.

use super::super::super::step_words::AttentionTiling;
use super::super::super::{AttentionShape, KvDtype, KvLayout};
use super::{Kernel, WORKGROUP_BYTES, cuda, params};

params! {
    /// Parameters of `attention_decode` and `attention_prefill`.
    AttentionParams { scale: f32, items_at: u32 }
}

/// Invocations of a workgroup of `attention_decode`.
const DECODE_THREADS: u32 = 128;
/// Keys that a team of it has under way at once.
const DECODE_KEYS: u32 = 2;
/// Lanes of `attention_prefill` that own `PREFILL_TEAM_ROWS` rows.
const PREFILL_LANES: u32 = 16;
const PREFILL_TEAM_ROWS: u32 = 4;

/// Workgroup memory of `attention_prefill`: q, the staged keys and values, and the weights.
fn prefill_bytes(rows: u32, keys: u32, head_dim: u32, kv: KvDtype) -> u32 {
    4 * rows * head_dim + 2 * keys * (head_dim * kv.bytes() as u32 + 16) + 4 * rows * keys
}

/// How the attention is cut up: as many rows and keys in a workgroup of a prefill as fit. Where rows must not depend on the
/// step, every token is a decode.
pub(in super::super) fn attention_tiling(
    shape: &AttentionShape,
    kv: KvDtype,
    batch_invariant: bool,
) -> AttentionTiling {
    let group = shape.num_heads / shape.num_kv_heads;
    let heads_per_group = [4, 2, 1].into_iter().find(|d| group.is_multiple_of(*d)).unwrap_or(1);
    let (rows, prefill_keys) = [(32, 32), (32, 16), (16, 16), (8, 16)]
        .into_iter()
        .find(|&(rows, keys)| prefill_bytes(rows, keys, shape.head_dim, kv) <= WORKGROUP_BYTES)
        .unwrap_or((4, 16));
    let decode_tokens = if batch_invariant { u32::MAX } else { 1 };
    AttentionTiling { heads_per_group, prefill_tokens: rows / heads_per_group, prefill_keys, split: 256, decode_tokens }
}

/// Grid: (decode work items, heads / heads per group).
pub(in super::super) fn attention_decode(
    shape: &AttentionShape,
    layout: &KvLayout,
    tiling: &AttentionTiling,
) -> Kernel {
    let heads = tiling.heads_per_group;
    let lanes = (shape.head_dim / 8).next_power_of_two().min(32);
    // Results of the subgroups, which merge at the end.
    let workgroup_bytes = DECODE_THREADS / 32 * heads * (4 * shape.head_dim + 8);
    Kernel::new::<AttentionParams>("attention_decode", cuda!("attention_decode.cu"), DECODE_THREADS, 6)
        .kv(shape, layout)
        .include(cuda!("include/attention.cuh"))
        .constant("HEADS_PER_GROUP", heads)
        .constant("LANES", lanes)
        .constant("KEYS", DECODE_KEYS)
        .limits(if heads > 1 { 168 } else { 96 }, workgroup_bytes)
}

/// Grid: (prefill work items, heads / heads per group).
pub(in super::super) fn attention_prefill(
    shape: &AttentionShape,
    layout: &KvLayout,
    tiling: &AttentionTiling,
) -> Kernel {
    let rows = tiling.prefill_tokens * tiling.heads_per_group;
    let threads = rows / PREFILL_TEAM_ROWS * PREFILL_LANES;
    let workgroup_bytes = prefill_bytes(rows, tiling.prefill_keys, shape.head_dim, layout.dtype);
    Kernel::new::<AttentionParams>("attention_prefill", cuda!("attention_prefill.cu"), threads, 4)
        .kv(shape, layout)
        .include(cuda!("include/attention.cuh"))
        .constant("HEADS_PER_GROUP", tiling.heads_per_group)
        .constant("TOKENS", tiling.prefill_tokens)
        .constant("KEYS", tiling.prefill_keys)
        .limits(168, workgroup_bytes)
}

/// Grid: (decode tokens whose keys were split, heads).
pub(in super::super) fn attention_reduce(shape: &AttentionShape, layout: &KvLayout) -> Kernel {
    Kernel::without_params("attention_reduce", cuda!("attention_reduce.cu"), 32, 3).kv(shape, layout)
}
