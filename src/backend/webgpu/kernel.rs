//! The kernels: which WGSL files make each, with which constants, bindings and parameters.
//!
//! A kernel's source is a prelude of constants, the files it includes, and its own file, whose entry point bears its
//! name. Tests hold the tables below against the WGSL by reflection.

use super::super::{AttentionShape, KvDtype, KvLayout, RopePairing};
use super::Variant;
use std::fmt::Write;

mod logits;

pub(super) use logits::{
    ArgmaxChunksParams, ArgmaxRowsParams, DRAW_BLOCK, DrawBlocksParams, DrawRowsParams, LOGITS_CHUNK, TopKChunksParams,
    TopKRowsParams, argmax_chunks, argmax_rows, draw_blocks, draw_rows, top_k_chunks, top_k_rows,
};

macro_rules! wgsl {
    ($path:literal) => {
        include_str!(concat!("../../../shaders/wgsl/", $path))
    };
}

/// How a weight lies on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum DeviceFormat {
    F32,
    F16,
    Bf16,
    /// Q8_0 in planes.
    Q8,
    /// Q4_0 and Q4_1 in planes.
    Q4,
}

impl DeviceFormat {
    #[cfg(test)]
    pub(super) const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Bf16, Self::Q8, Self::Q4];

    fn file(self) -> &'static str {
        match self {
            Self::F32 => wgsl!("include/weight_f32.wgsl"),
            Self::F16 => wgsl!("include/weight_f16.wgsl"),
            Self::Bf16 => wgsl!("include/weight_bf16.wgsl"),
            Self::Q8 => wgsl!("include/weight_q8.wgsl"),
            Self::Q4 => wgsl!("include/weight_q4.wgsl"),
        }
    }

    /// Whether there is a second plane, of scales.
    pub(super) fn has_scales(self) -> bool {
        matches!(self, Self::Q8 | Self::Q4)
    }
}

/// Rows of a weight whose blocks lie next to each other, so that the lanes of a software adapter, a row each, read one
/// stream; elsewhere the lanes share a row.
pub(super) fn weight_group(variant: Variant) -> usize {
    match variant {
        Variant::Cpu => 16,
        Variant::Subgroup | Variant::Plain => 1,
    }
}

/// One storage buffer of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Binding {
    pub(super) number: u32,
    pub(super) written: bool,
}

const fn read(number: u32) -> Binding {
    Binding { number, written: false }
}

const fn write(number: u32) -> Binding {
    Binding { number, written: true }
}

/// A kernel, ready to be compiled.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    /// Name of file and entry point.
    pub(super) name: &'static str,
    prelude: String,
    files: Vec<&'static str>,
    /// Storage buffers, by binding number.
    pub(super) bindings: Vec<Binding>,
    /// Size of the kernel's `Params`.
    pub(super) params_bytes: u32,
}

impl Kernel {
    fn new(name: &'static str, file: &'static str, bindings: &[Binding], params_bytes: usize) -> Self {
        let mut all = vec![read(0)];
        all.extend_from_slice(bindings);
        Self {
            name,
            prelude: String::new(),
            files: vec![wgsl!("include/step.wgsl"), file],
            bindings: all,
            params_bytes: params_bytes as u32,
        }
        .constant("BLOCK_SIZE", 16)
    }

    fn constant(mut self, name: &str, value: u32) -> Self {
        writeln!(self.prelude, "const {name} = {value}u;").expect("a string takes any write");
        self
    }

    fn include(mut self, file: &'static str) -> Self {
        self.files.insert(self.files.len() - 1, file);
        self
    }

    fn weight(mut self, format: DeviceFormat, variant: Variant) -> Self {
        self.bindings.insert(1, read(1));
        if format.has_scales() {
            self.bindings.insert(2, read(2));
        }
        self.constant("WEIGHT_GROUP", weight_group(variant) as u32)
            .include(wgsl!("include/weight_layout.wgsl"))
            .include(format.file())
    }

    fn reduce(self, variant: Variant, subgroup_size: u32) -> Self {
        self.constant("SUBGROUP_SIZE", subgroup_size).include(match variant {
            Variant::Cpu => wgsl!("include/reduce_cpu.wgsl"),
            Variant::Subgroup => wgsl!("include/reduce_subgroup.wgsl"),
            Variant::Plain => wgsl!("include/reduce_plain.wgsl"),
        })
    }

    fn kv(self, shape: &AttentionShape, layout: &KvLayout) -> Self {
        self.constant("HEADS", shape.num_heads)
            .constant("KV_HEADS", shape.num_kv_heads)
            .constant("GROUP", shape.num_heads / shape.num_kv_heads)
            .constant("HEAD_DIM", shape.head_dim)
            .include(match layout.dtype {
                KvDtype::F16 => wgsl!("include/kv_f16.wgsl"),
                KvDtype::F32 => wgsl!("include/kv_f32.wgsl"),
            })
    }

    /// The whole WGSL text.
    pub(super) fn source(&self) -> String {
        let mut source = self.prelude.clone();
        for file in &self.files {
            source.push_str(file);
        }
        source
    }
}

/// Parameters of `embed`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct EmbedParams {
    pub(super) octets: u32,
    pub(super) first_row: u32,
    pub(super) num_rows: u32,
}

pub(super) fn embed(format: DeviceFormat, variant: Variant) -> Kernel {
    Kernel::new("embed", wgsl!("embed.wgsl"), &[write(3)], size_of::<EmbedParams>()).weight(format, variant)
}

/// Parameters of `rms_norm`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct RmsNormParams {
    pub(super) quads: u32,
    pub(super) eps: f32,
}

pub(super) fn rms_norm(variant: Variant, subgroup_size: u32) -> Kernel {
    Kernel::new("rms_norm", wgsl!("rms_norm.wgsl"), &[read(1), read(2), write(3)], size_of::<RmsNormParams>())
        .reduce(variant, subgroup_size)
}

/// Parameters of `select_logits_rows` and `silu_mul`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct QuadsParams {
    pub(super) quads: u32,
}

pub(super) fn select_logits_rows() -> Kernel {
    let file = wgsl!("select_logits_rows.wgsl");
    Kernel::new("select_logits_rows", file, &[read(1), write(2)], size_of::<QuadsParams>())
}

pub(super) fn silu_mul() -> Kernel {
    Kernel::new("silu_mul", wgsl!("silu_mul.wgsl"), &[read(1), write(2)], size_of::<QuadsParams>())
}

pub(super) fn copy_blocks() -> Kernel {
    Kernel::new("copy_blocks", wgsl!("copy_blocks.wgsl"), &[write(1), write(2)], size_of::<QuadsParams>())
}

pub(super) fn copy_blocks_of_three() -> Kernel {
    let bindings = [1, 2, 3, 4, 5, 6].map(write);
    let file = wgsl!("copy_blocks_of_three.wgsl");
    Kernel::new("copy_blocks_of_three", file, &bindings, size_of::<QuadsParams>())
}

/// Parameters of the matrix products; `matvec` alone reads `grid_width`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct MatMulParams {
    pub(super) blocks: u32,
    pub(super) cols: u32,
    pub(super) out_stride: u32,
    pub(super) out_offset: u32,
    pub(super) rows: u32,
    pub(super) accumulate: u32,
    pub(super) has_bias: u32,
    pub(super) grid_width: u32,
}

/// A matrix product for at most `tile` rows (`matvec`), or any number (`matmul`, `matmul_cpu`), and the output columns of
/// one workgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MatMulKernel {
    /// `matmul_cpu` with this many rows in a tile.
    Cpu { tile: u32 },
    /// `matvec` with this many rows.
    Vector { tile: u32 },
    /// `matmul`.
    Tiled,
}

/// Invocations of a workgroup of `matmul_cpu`, and output columns of a workgroup of `matvec`.
const CPU_WG: u32 = 16;
const VECTOR_COLS: u32 = 4;

/// Output columns of a lane of `matmul_cpu`: as many as pay before the registers spill.
fn cpu_cols(tile: u32, format: DeviceFormat) -> u32 {
    match format {
        DeviceFormat::Q8 => 4,
        DeviceFormat::Q4 if tile < 8 => 4,
        _ => 2,
    }
}

impl MatMulKernel {
    /// The kernels of a variant, each with the largest number of rows that it is chosen for; only one of them where rows
    /// must not depend on each other.
    pub(super) fn choices(variant: Variant, batch_invariant: bool) -> Vec<(u32, Self)> {
        match variant {
            // One sum in one order, whatever the tile: these are batch-invariant as they are.
            Variant::Cpu => vec![
                (1, Self::Cpu { tile: 1 }),
                (2, Self::Cpu { tile: 2 }),
                (4, Self::Cpu { tile: 4 }),
                (u32::MAX, Self::Cpu { tile: 8 }),
            ],
            Variant::Subgroup | Variant::Plain if batch_invariant => vec![(u32::MAX, Self::Tiled)],
            Variant::Subgroup | Variant::Plain => vec![
                (1, Self::Vector { tile: 1 }),
                (2, Self::Vector { tile: 2 }),
                (4, Self::Vector { tile: 4 }),
                (8, Self::Vector { tile: 8 }),
                (u32::MAX, Self::Tiled),
            ],
        }
    }

    /// Output columns of one workgroup.
    pub(super) fn group_cols(self, format: DeviceFormat) -> u32 {
        match self {
            Self::Cpu { tile } => CPU_WG * cpu_cols(tile, format),
            Self::Vector { .. } => VECTOR_COLS,
            Self::Tiled => 64,
        }
    }

    /// Rows of x of one workgroup.
    pub(super) fn group_rows(self) -> u32 {
        match self {
            Self::Cpu { tile } | Self::Vector { tile } => tile,
            Self::Tiled => 64,
        }
    }

    pub(super) fn kernel(self, format: DeviceFormat, variant: Variant, subgroup_size: u32) -> Kernel {
        let bindings = [read(3), read(4), write(5)];
        let bytes = size_of::<MatMulParams>();
        match self {
            Self::Cpu { tile } => Kernel::new("matmul_cpu", wgsl!("matmul_cpu.wgsl"), &bindings, bytes)
                .constant("SUBGROUP_SIZE", subgroup_size)
                .constant("X_REGISTERS", 8 / subgroup_size)
                .constant("TILE", tile)
                .constant("WG", CPU_WG)
                .constant("COLS", cpu_cols(tile, format)),
            Self::Vector { tile } => Kernel::new("matvec", wgsl!("matvec.wgsl"), &bindings, bytes)
                .constant("TILE", tile)
                .constant("COLS", VECTOR_COLS)
                .reduce(variant, subgroup_size),
            Self::Tiled => Kernel::new("matmul", wgsl!("matmul.wgsl"), &bindings, bytes),
        }
        .weight(format, variant)
    }
}

/// Parameters of `rope_and_cache`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct RopeParams {
    pub(super) qkv_stride: u32,
}

pub(super) fn rope_and_cache(shape: &AttentionShape, layout: &KvLayout, pairing: RopePairing) -> Kernel {
    let bindings = [read(1), read(2), write(3), write(4), write(5)];
    let mut kernel = Kernel::new("rope_and_cache", wgsl!("rope_and_cache.wgsl"), &bindings, size_of::<RopeParams>())
        .kv(shape, layout);
    writeln!(kernel.prelude, "const INTERLEAVED = {};", pairing == RopePairing::Interleaved)
        .expect("a string takes any write");
    kernel
}

/// Parameters of the attention kernels.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct AttentionParams {
    pub(super) scale: f32,
    pub(super) items_at: u32,
}

/// How attention's work is cut up for one device and shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AttentionTiling {
    /// Query heads of one workgroup; divides the group of heads that share a KV head.
    pub(super) heads_per_group: u32,
    /// Query tokens of one prefill work item.
    pub(super) prefill_tokens: u32,
    /// Keys that prefill stages in workgroup memory at once; divides the block size.
    pub(super) prefill_keys: u32,
    /// Keys of one decode work item.
    pub(super) split: u32,
    /// New tokens of a sequence, at most, that are decode work items each; more of them are prefill work items.
    pub(super) decode_tokens: u32,
}

/// Workgroup memory that every adapter has, in bytes (WebGPU's least `maxComputeWorkgroupStorageSize`). `wgpu` does not hold
/// kernels to it.
pub(super) const WORKGROUP_BYTES: u32 = 16384;

/// Workgroup memory of `attention_prefill`: q, the staged keys and values, and the scores.
fn prefill_bytes(rows: u32, keys: u32, head_dim: u32, kv: KvDtype) -> u32 {
    4 * rows * head_dim + 2 * keys * head_dim * kv.bytes() as u32 + 4 * rows * keys
}

impl AttentionTiling {
    /// Where rows must not depend on the step, a token at one position gets the same work items in every step: all its
    /// keys in one where decode and prefill are one kernel, and else those of a decode.
    pub(super) fn new(variant: Variant, shape: &AttentionShape, kv: KvDtype, batch_invariant: bool) -> Self {
        let group = shape.num_heads / shape.num_kv_heads;
        let divisor = |most: u32| (1..=group.min(most).max(1)).rev().find(|d| group.is_multiple_of(*d)).unwrap_or(1);
        match variant {
            // As many rows as stay in (spilled) vector registers without blowing up compile time.
            Variant::Cpu => {
                let heads_per_group = divisor((256 / shape.head_dim).max(1));
                let rows = (768 / shape.head_dim).max(1);
                let split = if batch_invariant { u32::MAX } else { 256 };
                let prefill_tokens = (rows / heads_per_group).max(1);
                Self { heads_per_group, prefill_tokens, prefill_keys: 16, split, decode_tokens: 1 }
            }
            // As many rows and keys as fit.
            Variant::Subgroup | Variant::Plain => {
                let heads_per_group = [4, 2, 1].into_iter().find(|d| group.is_multiple_of(*d)).unwrap_or(1);
                let (rows, prefill_keys) = [(16, 16), (16, 8), (8, 8), (4, 8), (4, 4), (4, 2)]
                    .into_iter()
                    .find(|&(rows, keys)| prefill_bytes(rows, keys, shape.head_dim, kv) <= WORKGROUP_BYTES)
                    .unwrap_or((4, 1));
                let decode_tokens = if batch_invariant { u32::MAX } else { 1 };
                let prefill_tokens = rows / heads_per_group;
                Self { heads_per_group, prefill_tokens, prefill_keys, split: 256, decode_tokens }
            }
        }
    }
}

fn attention(
    name: &'static str,
    file: &'static str,
    bindings: &[Binding],
    shape: &AttentionShape,
    layout: &KvLayout,
    tiling: &AttentionTiling,
) -> Kernel {
    Kernel::new(name, file, bindings, size_of::<AttentionParams>())
        .kv(shape, layout)
        .constant("HEADS_PER_GROUP", tiling.heads_per_group)
}

const DECODE_BINDINGS: [Binding; 6] = [read(1), read(2), read(3), write(4), write(5), write(6)];

pub(super) fn attention_decode(
    variant: Variant,
    subgroup_size: u32,
    shape: &AttentionShape,
    layout: &KvLayout,
    tiling: &AttentionTiling,
) -> Kernel {
    let build = |name, file| attention(name, file, &DECODE_BINDINGS, shape, layout, tiling);
    match variant {
        Variant::Cpu => build("attention_cpu", wgsl!("attention_cpu.wgsl"))
            .constant("SUBGROUP_SIZE", subgroup_size)
            .constant("TOKENS", 1),
        // As many teams of eight lanes as their accumulators leave room for.
        Variant::Subgroup => {
            let bytes_of_team = tiling.heads_per_group * (shape.head_dim * 4 + 8);
            let teams = (1..=16)
                .rev()
                .find(|&t: &u32| t.is_power_of_two() && t * bytes_of_team <= WORKGROUP_BYTES)
                .unwrap_or(1);
            build("attention_decode", wgsl!("attention_decode.wgsl")).constant("WG", 8 * teams)
        }
        Variant::Plain => {
            build("attention_decode_plain", wgsl!("attention_decode_plain.wgsl")).constant("SPLIT", tiling.split)
        }
    }
}

pub(super) fn attention_prefill(
    variant: Variant,
    subgroup_size: u32,
    shape: &AttentionShape,
    layout: &KvLayout,
    tiling: &AttentionTiling,
) -> Kernel {
    match variant {
        Variant::Cpu => {
            attention("attention_cpu", wgsl!("attention_cpu.wgsl"), &DECODE_BINDINGS, shape, layout, tiling)
                .constant("SUBGROUP_SIZE", subgroup_size)
                .constant("TOKENS", tiling.prefill_tokens)
        }
        Variant::Subgroup | Variant::Plain => {
            let bindings = [read(1), read(2), read(3), write(4)];
            attention("attention_prefill", wgsl!("attention_prefill.wgsl"), &bindings, shape, layout, tiling)
                .constant("TOKENS", tiling.prefill_tokens)
                .constant("KEYS", tiling.prefill_keys)
        }
    }
}

pub(super) fn attention_reduce(shape: &AttentionShape, layout: &KvLayout) -> Kernel {
    Kernel::new("attention_reduce", wgsl!("attention_reduce.wgsl"), &[read(1), read(2), write(3)], 0).kv(shape, layout)
}
