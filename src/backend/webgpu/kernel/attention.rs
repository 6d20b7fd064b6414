//! The attention kernels, and how their work is cut up.

use super::super::super::{AttentionShape, KvDtype, StepLimits};
use super::super::step_words::{AttentionTiling, DECODE_TOKENS};
use super::super::{Tuning, Variant};
use super::{Binding, Kernel, Matrices, read, write};

macro_rules! wgsl {
    ($path:literal) => {
        include_str!(concat!("../../../../shaders/wgsl/", $path))
    };
}

/// Parameters of the attention kernels.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(in super::super) struct AttentionParams {
    pub(in super::super) scale: f32,
    pub(in super::super) items_at: u32,
    /// See [`Grid::first_item`](super::super::grid::Grid::first_item).
    pub(in super::super) first_item: u32,
}

/// Parameters of `attention_reduce`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(in super::super) struct ReduceParams {
    /// See [`Grid::first_item`](super::super::grid::Grid::first_item).
    pub(in super::super) first_item: u32,
}

/// Workgroup memory that every adapter has, in bytes (WebGPU's least `maxComputeWorkgroupStorageSize`). `wgpu` does not hold
/// kernels to it.
pub(in super::super) const WORKGROUP_BYTES: u32 = 16384;

/// Most invocations of a workgroup of `attention_decode`.
const DECODE_WG: u32 = 128;

/// Most elements of a lane of `attention_decode`, of q and as many of the result: they are in registers.
const LANE_ELEMENTS: u32 = 80;

/// Most heads of a workgroup of `attention_decode_plain`, whose scores are in workgroup memory.
const PLAIN_HEADS: u32 = 4;

/// Rows of a team of `attention_prefill`.
const PREFILL_TEAM_ROWS: u32 = 4;

/// Workgroup memory of `attention_prefill`: q, the staged keys or values, the scores and the weights.
fn prefill_bytes(rows: u32, keys: u32, head_dim: u32, kv: KvDtype) -> u32 {
    let rows = rows.next_multiple_of(PREFILL_TEAM_ROWS);
    4 * rows * head_dim + keys * head_dim * kv.element_bytes() + 2 * 4 * rows * keys
}

/// Rows of a workgroup of `attention_prefill_coop`.
const COOP_ROWS: u32 = 64;
/// Largest head of it: workgroup memory holds no more of keys and values, nor registers of q and the result.
const COOP_HEAD_DIM: u32 = 128;

/// The matrices that prefills use: K and V are halves, or bytes, which are exact as halves.
fn coop_matrices(matrices: Option<Matrices>, shape: &AttentionShape, kv: KvDtype) -> Option<Matrices> {
    matrices.filter(|_| kv != KvDtype::F32 && shape.head_dim <= COOP_HEAD_DIM)
}

/// Where rows must not depend on the step, a token at one position gets the same work items in every step: all its
/// keys in one where decode and prefill are one kernel, and else those of a decode.
pub(in super::super) fn attention_tiling(
    variant: Variant,
    subgroup_size: u32,
    matrices: Option<Matrices>,
    shape: &AttentionShape,
    kv: KvDtype,
    limits: &StepLimits,
    tuning: &Tuning,
) -> AttentionTiling {
    let batch_invariant = limits.batch_invariant;
    // What a token is read together with is up to its neighbours.
    let share_prefixes = limits.cascade_attention && !batch_invariant;
    let group = shape.num_heads / shape.num_kv_heads;
    // As many heads of a group as share it evenly.
    let heads_up_to = |most: u32| {
        let most = most.min(tuning.attention_heads).min(group);
        (1..=most).rev().find(|&heads| group.is_multiple_of(heads)).unwrap_or(1)
    };
    match variant {
        // As many rows as pay (twice as many were slower): their loops are unrolled, and they stay in (spilled) vector
        // registers. Heads first, so that keys and values are loaded once for as many of a group as possible.
        Variant::Cpu => {
            let rows = (1024 / shape.head_dim).max(1);
            let heads_per_group = heads_up_to(rows);
            let split = if batch_invariant { u32::MAX } else { tuning.attention_split };
            // A power of two: what shares a prefix tends to come in such numbers.
            let prefill_tokens = 1 << (rows / heads_per_group).max(1).ilog2();
            AttentionTiling {
                heads_per_group,
                prefill_tokens,
                prefill_keys: 16,
                split,
                decode_tokens: 1,
                share_prefixes,
            }
        }
        // As many rows and keys as fit.
        Variant::Matrix | Variant::Subgroup | Variant::Plain => {
            let fitting = [(32, 16), (16, 16), (8, 16), (8, 8), (4, 8), (4, 4), (4, 2)]
                .into_iter()
                .find(|&(rows, keys)| prefill_bytes(rows, keys, shape.head_dim, kv) <= WORKGROUP_BYTES);
            let (rows, prefill_keys) = match coop_matrices(matrices, shape, kv) {
                Some(_) => (COOP_ROWS, 16),
                None => fitting.unwrap_or((4, 1)),
            };
            let most_heads = match variant {
                Variant::Plain => PLAIN_HEADS,
                _ => (LANE_ELEMENTS * team_lanes(shape, subgroup_size) / shape.head_dim).max(4),
            };
            let heads_per_group = heads_up_to(most_heads.min(rows));
            let decode_tokens = if batch_invariant { u32::MAX } else { DECODE_TOKENS };
            let prefill_tokens = rows / heads_per_group;
            let split = tuning.attention_split;
            AttentionTiling { heads_per_group, prefill_tokens, prefill_keys, split, decode_tokens, share_prefixes }
        }
    }
}

/// Lanes of a team of `attention_decode`: one for each octet of a head, as far as the smallest subgroup has so many.
fn team_lanes(shape: &AttentionShape, subgroup_size: u32) -> u32 {
    (shape.head_dim / 8).next_power_of_two().min(subgroup_size)
}

fn attention(
    name: &'static str,
    file: &'static str,
    bindings: &[Binding],
    shape: &AttentionShape,
    kv: KvDtype,
    tiling: &AttentionTiling,
) -> Kernel {
    Kernel::new(name, file, bindings, size_of::<AttentionParams>())
        .kv(shape, kv)
        .include(match kv {
            KvDtype::F32 | KvDtype::F16 => wgsl!("include/kv_scales_none.wgsl"),
            KvDtype::Int8 => wgsl!("include/kv_scales_int8.wgsl"),
        })
        .include(wgsl!("include/attention.wgsl"))
        .constant("HEADS_PER_GROUP", tiling.heads_per_group)
}

const BINDINGS: [Binding; 6] = [read(1), read(2), read(3), write(4), write(5), write(6)];

pub(in super::super) fn attention_decode(
    variant: Variant,
    subgroup_size: u32,
    shape: &AttentionShape,
    kv: KvDtype,
    tiling: &AttentionTiling,
) -> Kernel {
    let build = |name, file| attention(name, file, &BINDINGS, shape, kv, tiling);
    match variant {
        Variant::Cpu => build("attention_cpu", wgsl!("attention_cpu.wgsl"))
            .constant("SUBGROUP_SIZE", subgroup_size)
            .constant("TOKENS", 1),
        // As many subgroups as their accumulators leave room for.
        Variant::Matrix | Variant::Subgroup => {
            let subgroups = |wg: u32| wg.div_ceil(subgroup_size);
            let bytes_of_subgroup = tiling.heads_per_group * (shape.head_dim * 4 + 8);
            let wg = [DECODE_WG, DECODE_WG / 2, DECODE_WG / 4, DECODE_WG / 8]
                .into_iter()
                .find(|&wg| subgroups(wg) * bytes_of_subgroup <= WORKGROUP_BYTES)
                .unwrap_or(subgroup_size);
            build("attention_decode", wgsl!("attention_decode.wgsl"))
                .constant("WG", wg)
                .constant("MOST_SUBGROUPS", subgroups(wg))
                .constant("LANES", team_lanes(shape, subgroup_size))
        }
        Variant::Plain => {
            build("attention_decode_plain", wgsl!("attention_decode_plain.wgsl")).constant("SPLIT", tiling.split)
        }
    }
}

pub(in super::super) fn attention_prefill(
    variant: Variant,
    subgroup_size: u32,
    matrices: Option<Matrices>,
    shape: &AttentionShape,
    kv: KvDtype,
    tiling: &AttentionTiling,
) -> Kernel {
    let build = |name, file| attention(name, file, &BINDINGS, shape, kv, tiling);
    match (variant, coop_matrices(matrices, shape, kv)) {
        (Variant::Cpu, _) => build("attention_cpu", wgsl!("attention_cpu.wgsl"))
            .constant("SUBGROUP_SIZE", subgroup_size)
            .constant("TOKENS", tiling.prefill_tokens),
        (_, None) => build("attention_prefill", wgsl!("attention_prefill.wgsl"))
            .constant("TOKENS", tiling.prefill_tokens)
            .constant("KEYS", tiling.prefill_keys),
        // Weights times scales of bytes are 127 times smaller than values; times this they keep their precision as halves,
        // and stay in range.
        (_, Some(matrices)) => build("attention_prefill_coop", wgsl!("attention_prefill_coop.wgsl"))
            .matrices(matrices)
            .constant("ROWS", COOP_ROWS)
            .constant("V_FACTOR", if kv == KvDtype::Int8 { 64 } else { 1 }),
    }
}

/// Teams of `attention_reduce`: software adapters take partial results one after the other, without a barrier; a GPU would
/// wait for memory for each.
const REDUCE_TEAMS: u32 = 8;

pub(in super::super) fn attention_reduce(variant: Variant, shape: &AttentionShape) -> Kernel {
    let bindings = [read(1), read(2), write(3)];
    Kernel::new("attention_reduce", wgsl!("attention_reduce.wgsl"), &bindings, size_of::<ReduceParams>())
        .heads(shape)
        .constant("TEAMS", if variant == Variant::Cpu { 1 } else { REDUCE_TEAMS })
}
