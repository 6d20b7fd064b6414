//! The attention kernels, and how their work is cut up.

use super::super::super::{AttentionShape, KvDtype};
use super::super::step_words::{AttentionTiling, DECODE_TOKENS};
use super::{ASYNC_CAPABILITY, Kernel, TENSOR_CAPABILITY, WORKGROUP_BYTES, cuda, has_tensor_cores, params};
use std::fmt;
use std::str::FromStr;

params! {
    /// Parameters of `attention_decode` and `attention_prefill`; for the last see
    /// [`Grid::first_item`](super::super::grid::Grid::first_item).
    AttentionParams { scale: f32, items_at: u32, first_item: u32 }
}

params! {
    /// Parameters of `attention_reduce`.
    ReduceParams { first_item: u32 }
}

/// Which kernel does the attention of decodes; what they compute is the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DecodeKernel {
    /// `attention_decode`: teams of lanes with a key each, which go straight into registers.
    #[default]
    Teams,
    /// The same, keys brought into workgroup memory by asynchronous copies; as `Teams` over pools of int8, with heads for which
    /// that is too little, and on devices without such copies.
    Async,
    /// `attention_decode_block`: a subgroup with all keys of a block.
    Blocks,
}

impl DecodeKernel {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Teams, Self::Async, Self::Blocks];
}

impl FromStr for DecodeKernel {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "teams" => Ok(Self::Teams),
            "async" => Ok(Self::Async),
            "blocks" => Ok(Self::Blocks),
            _ => Err(format!("{name:?} is none of CUDA's decode kernels: teams, async, blocks")),
        }
    }
}

impl fmt::Display for DecodeKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Teams => "teams",
            Self::Async => "async",
            Self::Blocks => "blocks",
        })
    }
}

/// Invocations of a workgroup of the decode kernels.
const DECODE_THREADS: u32 = 128;
/// Keys that a team of it has under way at once.
const DECODE_KEYS: u32 = 2;
/// Rounds of keys that it has in workgroup memory at once where copies bring them: the most that fit.
const DECODE_STAGES: [u32; 3] = [4, 3, 2];
/// Lanes of `attention_prefill` that own `PREFILL_TEAM_ROWS` rows.
const PREFILL_LANES: u32 = 16;
const PREFILL_TEAM_ROWS: u32 = 4;

/// Invocations, rows and keys at once of a workgroup of `attention_prefill_tensor`: a subgroup for each 16 rows.
const TENSOR_THREADS: u32 = 128;
const TENSOR_ROWS: u32 = 64;
const TENSOR_KEYS: u32 = 32;
/// Largest head whose results stay in registers there.
const TENSOR_HEAD_DIM: u32 = 128;

/// Whether prefills run on tensor cores: K and V are halves, or bytes, which are exact as halves.
fn has_tensor_prefill(shape: &AttentionShape, kv: KvDtype, compute_capability: u32) -> bool {
    has_tensor_cores(compute_capability) && kv != KvDtype::F32 && shape.head_dim <= TENSOR_HEAD_DIM
}

/// Workgroup memory of `attention_prefill`: q, the staged keys and values, each with room for eight scales, and the weights.
fn prefill_bytes(rows: u32, keys: u32, head_dim: u32, kv: KvDtype) -> u32 {
    4 * rows * head_dim + 2 * keys * (head_dim * kv.element_bytes() + 16) + 4 * rows * keys
}

/// How the attention is cut up: as many rows and keys in a workgroup of a prefill as fit. Where rows must not depend on the
/// step, every token is a decode.
pub(in super::super) fn attention_tiling(
    shape: &AttentionShape,
    kv: KvDtype,
    compute_capability: u32,
    batch_invariant: bool,
    cascade_attention: bool,
) -> AttentionTiling {
    let group = shape.num_heads / shape.num_kv_heads;
    // A lane has an octet or two of q and of the result for each head in registers.
    let most_heads = (1024 / shape.head_dim).clamp(4, 8);
    let heads_per_group = (1..=most_heads).rev().find(|&heads| group.is_multiple_of(heads)).unwrap_or(1);
    let (prefill_tokens, prefill_keys) = if has_tensor_prefill(shape, kv, compute_capability) {
        (TENSOR_ROWS / heads_per_group, TENSOR_KEYS)
    } else {
        let fits = |&(rows, keys): &(u32, u32)| prefill_bytes(rows, keys, shape.head_dim, kv) <= WORKGROUP_BYTES;
        let (rows, keys) = [(32, 32), (32, 16), (16, 16), (8, 16)].into_iter().find(fits).unwrap_or((4, 16));
        (rows / heads_per_group, keys)
    };
    let decode_tokens = if batch_invariant { u32::MAX } else { DECODE_TOKENS };
    // What a token is read together with is up to its neighbours.
    let share_prefixes = cascade_attention && !batch_invariant;
    AttentionTiling { heads_per_group, prefill_tokens, prefill_keys, split: 256, decode_tokens, share_prefixes }
}

/// Grid: (decode work items, heads / heads per group).
pub(in super::super) fn attention_decode(
    which: DecodeKernel,
    shape: &AttentionShape,
    kv: KvDtype,
    tiling: &AttentionTiling,
    compute_capability: u32,
) -> Kernel {
    let heads = tiling.heads_per_group;
    // Results of the subgroups, which merge at the end.
    let results_bytes = (DECODE_THREADS / 32 * heads * (4 * shape.head_dim + 8)).next_multiple_of(16);
    let build = |name, file| {
        Kernel::new::<AttentionParams>(name, file, DECODE_THREADS, 6)
            .kv(shape, kv)
            .constant("HEADS_PER_GROUP", heads)
            .include(cuda!("include/attention.cuh"))
            .include(cuda!("include/attention_merge.cuh"))
    };
    let registers = match heads {
        1 => 96,
        2..=4 => 168,
        _ => 208,
    };
    let lanes = (shape.head_dim / 8).next_power_of_two().min(32);
    let teams = || {
        build("attention_decode", cuda!("attention_decode.cu"))
            .constant("LANES", lanes)
            .constant("KEYS", DECODE_KEYS)
            .include(cuda!("include/attention_team.cuh"))
            .limits(registers, results_bytes)
    };
    // K and V of the octets of a lane, for each of its keys.
    let stage_bytes = DECODE_THREADS * DECODE_KEYS * (shape.head_dim / 8).div_ceil(lanes) * 2 * 8 * kv.element_bytes();
    let fits = |stages: &u32| stages * stage_bytes + results_bytes <= WORKGROUP_BYTES;
    let copies = kv != KvDtype::Int8 && compute_capability >= ASYNC_CAPABILITY;
    match (which, DECODE_STAGES.into_iter().find(fits).filter(|_| copies)) {
        (DecodeKernel::Async, Some(stages)) => teams()
            .constant("STAGES", stages)
            .shared(stages * stage_bytes)
            .requires(ASYNC_CAPABILITY)
            .include(cuda!("include/keys_async.cuh")),
        (DecodeKernel::Teams | DecodeKernel::Async, _) => teams().include(cuda!("include/keys_direct.cuh")),
        (DecodeKernel::Blocks, _) => build("attention_decode_block", cuda!("attention_decode_block.cu"))
            .limits(168, results_bytes + 4 * heads * shape.head_dim)
            .spills(if heads > 4 { 80 } else { 32 }),
    }
}

/// Grid: (prefill work items, heads / heads per group).
pub(in super::super) fn attention_prefill(
    shape: &AttentionShape,
    kv: KvDtype,
    tiling: &AttentionTiling,
    compute_capability: u32,
) -> Kernel {
    let build = |name, file, threads| Kernel::new::<AttentionParams>(name, file, threads, 6);
    if has_tensor_prefill(shape, kv, compute_capability) {
        // Two tiles of K and V, each row eight halves longer than the head, with its scales.
        let workgroup_bytes = 2 * TENSOR_KEYS * (2 * 2 * (shape.head_dim + 8) + 2 * 4);
        build("attention_prefill_tensor", cuda!("attention_prefill_tensor.cu"), TENSOR_THREADS)
            .limits(232, workgroup_bytes)
            .requires(TENSOR_CAPABILITY)
    } else {
        let rows = (tiling.prefill_tokens * tiling.heads_per_group).next_multiple_of(PREFILL_TEAM_ROWS);
        let workgroup_bytes = prefill_bytes(rows, tiling.prefill_keys, shape.head_dim, kv);
        build("attention_prefill", cuda!("attention_prefill.cu"), rows / PREFILL_TEAM_ROWS * PREFILL_LANES)
            .limits(224, workgroup_bytes)
    }
    .kv(shape, kv)
    .include(cuda!("include/attention.cuh"))
    .constant("HEADS_PER_GROUP", tiling.heads_per_group)
    .constant("KEYS", tiling.prefill_keys)
}

/// Grid: (decode tokens whose keys were split, heads).
pub(in super::super) fn attention_reduce(shape: &AttentionShape, kv: KvDtype) -> Kernel {
    Kernel::new::<ReduceParams>("attention_reduce", cuda!("attention_reduce.cu"), 32, 3).kv(shape, kv)
}
