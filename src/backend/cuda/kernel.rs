//! The kernels: which CUDA files make each, with which constants, arguments and parameters.
//!
//! Each is the twin of the WebGPU backend's kernel of the same name: the same arguments in the same order, the step's
//! metadata first and the parameters, by value, last. A kernel's source is a prelude of constants, the files it includes,
//! and its own file, whose `extern "C"` function bears its name. It needs no header, so that NVRTC needs no toolkit.

use super::super::{AttentionShape, KvDtype, RopePairing};
use super::repack::DeviceFormat;
use std::fmt::Write;

mod attention;
mod logits;
mod matmul;
#[cfg(test)]
mod tests;
mod variants;

pub use attention::DecodeKernel;
pub(super) use attention::{
    AttentionParams, ReduceParams, attention_decode, attention_prefill, attention_reduce, attention_tiling,
};
pub(super) use logits::{
    ArgmaxChunksParams, ArgmaxRowsParams, DrawBlocksParams, DrawRowsParams, ScoreRowsParams, TopKChunksParams,
    TopKRowsParams, argmax_chunks, argmax_rows, draw_blocks, draw_rows, score_rows, top_k_chunks, top_k_rows,
};
pub(super) use matmul::{MatMulKernel, MatMulParams, RoundParams, has_tensor_products, round_rows};
pub use variants::kernel_variants;

/// The text of a file in `shaders/cuda/`.
macro_rules! cuda {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/cuda/", $path))
    };
}

/// A kernel's parameters: a struct of 32-bit fields that is the `Params` of its file.
trait Params: bytemuck::Pod {
    /// Type and name of each field, as the file spells them.
    const FIELDS: &'static [(&'static str, &'static str)];
}

/// Defines the parameters of kernels.
macro_rules! params {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $type:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
        pub(in super::super) struct $name {
            $(pub(in super::super) $field: $type,)+
        }

        impl $crate::backend::cuda::kernel::Params for $name {
            const FIELDS: &'static [(&'static str, &'static str)] = &[$((stringify!($type), stringify!($field))),+];
        }
    };
}

use {cuda, params};

/// The most that a kernel may need of a device; the test of the compiled kernels holds the compiler's figures against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Registers of an invocation.
    pub registers: u32,
    /// Workgroup memory that it declares, in bytes.
    pub workgroup_bytes: u32,
    /// Registers that spill into memory, in bytes of an invocation.
    pub spill_bytes: u32,
}

/// Workgroup memory that a kernel may declare on any device, in bytes; more has to be asked for.
pub(super) const WORKGROUP_BYTES: u32 = 48 << 10;

/// The least compute capability that has the products of the kernels on tensor cores, times ten.
const TENSOR_CAPABILITY: u32 = 80;

/// The least compute capability that has asynchronous copies into workgroup memory, times ten.
const ASYNC_CAPABILITY: u32 = 80;

/// Whether a device has tensor cores as the kernels use them.
pub(super) fn has_tensor_cores(compute_capability: u32) -> bool {
    compute_capability >= TENSOR_CAPABILITY
}

/// A kernel, ready to be compiled.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Name of file and function.
    pub name: &'static str,
    /// Invocations of a workgroup.
    pub threads: u32,
    /// Workgroup memory to ask for at the launch, in bytes, beside what the kernel declares.
    pub shared_bytes: u32,
    /// Buffers among its arguments, the step's metadata counted.
    pub buffers: u32,
    /// Size of its last argument; 0 where there is none.
    pub params_bytes: u32,
    /// What it may need.
    pub limits: ResourceLimits,
    /// The least compute capability that has what it needs, times ten.
    pub compute_capability: u32,
    fields: &'static [(&'static str, &'static str)],
    constants: String,
    files: Vec<&'static str>,
}

/// Files that every kernel includes, after those of its device.
const COMMON: [&str; 2] = [cuda!("include/arithmetic.cuh"), cuda!("include/step.cuh")];

impl Kernel {
    /// A kernel with `buffers` buffers beside the step's metadata.
    fn new<P: Params>(name: &'static str, file: &'static str, threads: u32, buffers: u32) -> Self {
        let mut kernel = Self::without_params(name, file, threads, buffers);
        kernel.params_bytes = size_of::<P>() as u32;
        kernel.fields = P::FIELDS;
        kernel
    }

    fn without_params(name: &'static str, file: &'static str, threads: u32, buffers: u32) -> Self {
        Self {
            name,
            threads,
            shared_bytes: 0,
            buffers: buffers + 1,
            params_bytes: 0,
            limits: ResourceLimits { registers: 64, workgroup_bytes: 1024, spill_bytes: 0 },
            compute_capability: 75,
            fields: &[],
            constants: String::new(),
            files: COMMON.into_iter().chain([file]).collect(),
        }
        .constant("BLOCK_SIZE", 16)
        .constant("WG", threads)
    }

    fn constant(mut self, name: &str, value: u32) -> Self {
        writeln!(self.constants, "constexpr u32 {name} = {value}u;").expect("a string takes any write");
        self
    }

    /// Which elements RoPE turns together.
    fn pairing(self, pairing: RopePairing) -> Self {
        self.flag("INTERLEAVED", pairing == RopePairing::Interleaved)
    }

    fn flag(mut self, name: &str, value: bool) -> Self {
        writeln!(self.constants, "constexpr bool {name} = {value};").expect("a string takes any write");
        self
    }

    /// Workgroup memory that is asked for at the launch.
    fn shared(mut self, bytes: u32) -> Self {
        self.shared_bytes = bytes;
        self.constant("SHARED_BYTES", bytes)
    }

    fn include(mut self, file: &'static str) -> Self {
        self.files.insert(self.files.len() - 1, file);
        self
    }

    /// More than the usual registers, or workgroup memory. Of so many the compiler spills a few, where that lets more
    /// workgroups run side by side.
    fn limits(mut self, registers: u32, workgroup_bytes: u32) -> Self {
        self.limits = ResourceLimits { registers, workgroup_bytes, spill_bytes: 32 };
        self
    }

    /// More than the usual spills, of a kernel whose registers are bounded.
    fn spills(mut self, bytes: u32) -> Self {
        self.limits.spill_bytes = bytes;
        self
    }

    fn requires(mut self, compute_capability: u32) -> Self {
        self.compute_capability = compute_capability;
        self
    }

    fn weight(mut self, format: DeviceFormat) -> Self {
        self.buffers += 1 + u32::from(format.has_scales());
        self.include(match format {
            DeviceFormat::F32 => cuda!("include/weight_f32.cuh"),
            DeviceFormat::F16 => cuda!("include/weight_f16.cuh"),
            DeviceFormat::Bf16 => cuda!("include/weight_bf16.cuh"),
            DeviceFormat::Q8 => cuda!("include/weight_q8.cuh"),
            DeviceFormat::Q4 => cuda!("include/weight_q4.cuh"),
        })
    }

    fn reduce(self) -> Self {
        self.include(cuda!("include/reduce.cuh"))
    }

    /// The layout of the KV pool, and the packing of its elements.
    fn kv(self, shape: &AttentionShape, dtype: KvDtype) -> Self {
        self.constant("HEADS", shape.num_heads)
            .constant("KV_HEADS", shape.num_kv_heads)
            .constant("GROUP", shape.num_heads / shape.num_kv_heads)
            .constant("HEAD_DIM", shape.head_dim)
            .constant("ROW_SCALES", u32::from(dtype == KvDtype::Int8))
            .constant("SCALE_GROUP", shape.head_dim)
            .include(match dtype {
                KvDtype::F16 => cuda!("include/kv_f16.cuh"),
                KvDtype::F32 => cuda!("include/kv_f32.cuh"),
                KvDtype::Int8 => cuda!("include/kv_int8.cuh"),
            })
            .include(cuda!("include/kv_page.cuh"))
    }

    /// The whole text, for NVRTC.
    pub fn source(&self) -> String {
        self.source_on(cuda!("include/device.cuh"))
    }

    /// The whole text, on a file that stands for what the device has beyond C++.
    pub(super) fn source_on(&self, device: &str) -> String {
        let mut source = format!("{device}{}", self.constants);
        for file in &self.files {
            source.push_str(file);
        }
        source
    }
}

params! {
    /// Parameters of `embed`.
    EmbedParams { octets: u32, first_row: u32, num_rows: u32 }
}

/// Invocations of a workgroup of the kernels that only map.
const MAP_THREADS: u32 = 128;
/// Those of the kernels that reduce a row.
const REDUCE_THREADS: u32 = 256;

/// Grid: (octets / threads, tokens).
pub(super) fn embed(format: DeviceFormat) -> Kernel {
    Kernel::new::<EmbedParams>("embed", cuda!("embed.cu"), MAP_THREADS, 1).weight(format)
}

/// Writes into the step's metadata. Grid: (tokens of the step before / threads, 1).
pub(super) fn feed_tokens() -> Kernel {
    Kernel::without_params("feed_tokens", cuda!("feed_tokens.cu"), MAP_THREADS, 2)
}

params! {
    /// Parameters of `rms_norm`.
    RmsNormParams { quads: u32, eps: f32 }
}

/// Grid: (rows, 1).
pub(super) fn rms_norm() -> Kernel {
    Kernel::new::<RmsNormParams>("rms_norm", cuda!("rms_norm.cu"), REDUCE_THREADS, 3).reduce()
}

params! {
    /// Parameters of `select_logits_rows`, `silu_mul` and `copy_blocks`.
    QuadsParams { quads: u32 }
}

/// Grid: (quads / threads, logits rows).
pub(super) fn select_logits_rows() -> Kernel {
    Kernel::new::<QuadsParams>("select_logits_rows", cuda!("select_logits_rows.cu"), MAP_THREADS, 2)
}

/// Grid: (quads / threads, rows).
pub(super) fn silu_mul() -> Kernel {
    Kernel::new::<QuadsParams>("silu_mul", cuda!("silu_mul.cu"), MAP_THREADS, 2)
}

/// Grid: (quads / threads, block copies).
pub(super) fn copy_blocks() -> Kernel {
    Kernel::new::<QuadsParams>("copy_blocks", cuda!("copy_blocks.cu"), MAP_THREADS, 2)
}

params! {
    /// Parameters of `fma_peak`.
    FmaPeakParams { rounds: u32, factor: f32 }
}

/// Grid: any.
pub(super) fn fma_peak() -> Kernel {
    Kernel::new::<FmaPeakParams>("fma_peak", cuda!("fma_peak.cu"), MAP_THREADS, 1)
}

params! {
    /// Parameters of `rope_and_cache`.
    RopeParams { qkv_stride: u32, norm_eps: f32 }
}

/// `rope_and_cache`, or `rope_and_cache_int8`. Grid: ((heads + 2 kv heads) * head dim / 8 / threads, tokens).
pub(super) fn rope_and_cache(shape: &AttentionShape, dtype: KvDtype, pairing: RopePairing, has_norm: bool) -> Kernel {
    let (name, file) = match dtype {
        KvDtype::F32 | KvDtype::F16 => ("rope_and_cache", cuda!("rope_and_cache.cu")),
        KvDtype::Int8 => ("rope_and_cache_int8", cuda!("rope_and_cache_int8.cu")),
    };
    // Whole heads.
    let lanes = shape.head_dim / 8;
    let heads = (MAP_THREADS / lanes).max(1);
    Kernel::new::<RopeParams>(name, file, heads * lanes, 6)
        .kv(shape, dtype)
        .pairing(pairing)
        .flag("HEAD_NORM", has_norm)
        .include(cuda!("include/rope.cuh"))
        // Two floats of an invocation for the scales of int8, one for the norm.
        .limits(64, 3 * 4 * MAP_THREADS)
}
