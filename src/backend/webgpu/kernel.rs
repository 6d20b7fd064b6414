//! The kernels: which WGSL files make each, with which constants, bindings and parameters.
//!
//! A kernel's source is a prelude of constants, the files it includes, and its own file, whose entry point bears its
//! name. Tests hold the tables below against the WGSL by reflection.

use super::super::{AttentionShape, KvDtype, RopePairing};
use super::Variant;
use super::repack::DeviceFormat;
use std::fmt::Write;

mod attention;
mod kv_cache;
mod logits;
mod matmul;

#[cfg(test)]
pub(super) use attention::WORKGROUP_BYTES;
pub(super) use attention::{
    AttentionParams, ReduceParams, attention_decode, attention_prefill, attention_reduce, attention_tiling,
};
pub(super) use kv_cache::{RopeParams, copy_blocks, copy_blocks_of_three, rope_and_cache, rope_groups};
pub(super) use logits::{
    ArgmaxChunksParams, ArgmaxRowsParams, DrawBlocksParams, DrawRowsParams, ScoreRowsParams, TopKChunksParams,
    TopKRowsParams, argmax_chunks, argmax_rows, draw_blocks, draw_rows, score_rows, top_k_chunks, top_k_rows,
};
pub(super) use matmul::{
    Input, MatMulKernel, MatMulParams, Matrices, QuantizeParams, ROPE_AND_CACHE_BUFFERS, TILE_ROWS, VECTOR_ROWS,
    quantize_rows,
};

macro_rules! wgsl {
    ($path:literal) => {
        include_str!(concat!("../../../shaders/wgsl/", $path))
    };
}

/// Rows of a weight whose blocks lie next to each other, so that the lanes of a software adapter, a row each, read one
/// stream; elsewhere the lanes share a row.
pub(super) fn weight_group(variant: Variant) -> usize {
    match variant {
        Variant::Cpu => 16,
        Variant::Matrix | Variant::Subgroup | Variant::Plain => 1,
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
    /// Extensions of WGSL that it needs.
    enables: Vec<&'static str>,
    prelude: String,
    files: Vec<&'static str>,
    /// Whether members of the entry point's `Invocation` are built-in values of subgroups.
    has_subgroup_members: bool,
    /// Storage buffers, by binding number.
    pub(super) bindings: Vec<Binding>,
    /// Size of the kernel's `Params`.
    pub(super) params_bytes: u32,
}

impl Kernel {
    fn new(name: &'static str, file: &'static str, bindings: &[Binding], params_bytes: usize) -> Self {
        let mut all = vec![read(0)];
        all.extend_from_slice(bindings);
        Self::over_step(name, &[wgsl!("include/step_read.wgsl"), wgsl!("include/step.wgsl"), file], all, params_bytes)
    }

    /// A kernel with its own idea of the step's metadata, at binding 0.
    fn over_step(name: &'static str, files: &[&'static str], bindings: Vec<Binding>, params_bytes: usize) -> Self {
        Self {
            name,
            enables: Vec::new(),
            prelude: String::new(),
            files: files.to_vec(),
            has_subgroup_members: false,
            bindings,
            params_bytes: params_bytes as u32,
        }
        .constant("BLOCK_SIZE", 16)
    }

    fn constant(mut self, name: &str, value: u32) -> Self {
        writeln!(self.prelude, "const {name} = {value}u;").expect("a string takes any write");
        self
    }

    /// Which elements RoPE turns together.
    fn pairing(self, pairing: RopePairing) -> Self {
        self.flag("INTERLEAVED", pairing == RopePairing::Interleaved)
    }

    fn flag(mut self, name: &str, value: bool) -> Self {
        writeln!(self.prelude, "const {name} = {value};").expect("a string takes any write");
        self
    }

    fn enable(mut self, extension: &'static str) -> Self {
        self.enables.push(extension);
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
        let kernel = self
            .constant("WEIGHT_GROUP", weight_group(variant) as u32)
            .include(wgsl!("include/weight_layout.wgsl"))
            .include(match format {
                DeviceFormat::F32 => wgsl!("include/weight_f32.wgsl"),
                DeviceFormat::F16 => wgsl!("include/weight_f16.wgsl"),
                DeviceFormat::Bf16 => wgsl!("include/weight_bf16.wgsl"),
                DeviceFormat::Q8 => wgsl!("include/weight_q8.wgsl"),
                DeviceFormat::Q4 => wgsl!("include/weight_q4.wgsl"),
            });
        match (format, variant) {
            (DeviceFormat::Q4, Variant::Cpu) => kernel.include(wgsl!("include/weight_q4_blocks.wgsl")),
            (DeviceFormat::Q4, _) => kernel.include(wgsl!("include/weight_q4_octets.wgsl")),
            _ => kernel,
        }
    }

    fn reduce(mut self, variant: Variant, subgroup_size: u32) -> Self {
        self.has_subgroup_members = matches!(variant, Variant::Matrix | Variant::Subgroup);
        self.constant("SUBGROUP_SIZE", subgroup_size).include(match variant {
            Variant::Cpu => wgsl!("include/reduce_cpu.wgsl"),
            Variant::Matrix | Variant::Subgroup => wgsl!("include/reduce_subgroup.wgsl"),
            Variant::Plain => wgsl!("include/reduce_plain.wgsl"),
        })
    }

    fn heads(self, shape: &AttentionShape) -> Self {
        self.constant("HEADS", shape.num_heads)
            .constant("KV_HEADS", shape.num_kv_heads)
            .constant("GROUP", shape.num_heads / shape.num_kv_heads)
            .constant("HEAD_DIM", shape.head_dim)
    }

    /// The layout of the KV pool, and the packing of its elements.
    fn kv(self, shape: &AttentionShape, dtype: KvDtype) -> Self {
        self.heads(shape).include(wgsl!("include/kv_page.wgsl")).include(match dtype {
            KvDtype::F16 => wgsl!("include/kv_f16.wgsl"),
            KvDtype::F32 => wgsl!("include/kv_f32.wgsl"),
            KvDtype::Int8 => wgsl!("include/kv_int8.wgsl"),
        })
    }

    /// The whole WGSL text.
    pub(super) fn source(&self) -> String {
        let mut source: String = self.enables.iter().map(|extension| format!("enable {extension};\n")).collect();
        source.push_str(&self.prelude);
        for file in &self.files {
            source.push_str(file);
        }
        if self.has_subgroup_members {
            let entry_point = format!("fn {}(inv: Invocation", self.name);
            source = source.replace(&entry_point, &format!("{entry_point}{UNREAD_ARGUMENT}"));
        }
        source
    }
}

/// naga 30 writes such HLSL for built-in values of subgroups as DirectX takes only if one of them is an argument of the
/// entry point itself.
const UNREAD_ARGUMENT: &str = ", @builtin(subgroup_size) _size: u32";

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

/// Writes into the step's metadata.
pub(super) fn feed_tokens() -> Kernel {
    let files = [wgsl!("include/step.wgsl"), wgsl!("feed_tokens.wgsl")];
    Kernel::over_step("feed_tokens", &files, vec![write(0), read(1), read(2)], 0)
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

/// Parameters of `rms_norm_of_partial_sums`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct RmsNormOfPartialSumsParams {
    pub(super) quads: u32,
    pub(super) eps: f32,
    pub(super) rows: u32,
    pub(super) splits: u32,
}

pub(super) fn rms_norm_of_partial_sums(variant: Variant, subgroup_size: u32) -> Kernel {
    let bindings = [read(1), read(2), write(3), write(4)];
    let file = wgsl!("rms_norm_of_partial_sums.wgsl");
    Kernel::new("rms_norm_of_partial_sums", file, &bindings, size_of::<RmsNormOfPartialSumsParams>())
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

/// Parameters of `fma_peak`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct FmaPeakParams {
    pub(super) rounds: u32,
    pub(super) factor: f32,
}

pub(super) fn fma_peak() -> Kernel {
    Kernel::new("fma_peak", wgsl!("fma_peak.wgsl"), &[write(1)], size_of::<FmaPeakParams>())
}

#[cfg(test)]
mod tests {
    use super::super::GpuDevice;
    use super::*;
    use crate::backend::BackendError;

    #[test]
    fn a_kernel_that_does_not_compile_is_an_error_each_time_and_leaves_the_device_as_it_was() {
        let gpu = GpuDevice::open(Some("llvmpipe"), None).unwrap_or_else(|error| {
            panic!("{error}; `cargo xtask test` installs the adapter: mesa-vulkan-drivers (llvmpipe)")
        });
        let twice = silu_mul().constant("BLOCK_SIZE", 32);
        for _ in 0..2 {
            let error = gpu.pipelines(&[&twice]).expect_err("a constant that is there twice");
            assert!(matches!(&error, BackendError::Kernel { kernel, .. } if kernel == "silu_mul"), "{error}");
            assert!(error.to_string().contains("BLOCK_SIZE"), "{error}");
        }
        gpu.check().expect("the device is not at fault");
        gpu.pipelines(&[&silu_mul()]).expect("the kernel itself");
    }
}
