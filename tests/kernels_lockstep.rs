//! WebGPU's kernel variants against the reference backend on GPUs in lockstep (`tests/lockstep`): with subgroups as wide as
//! those of GPUs, functions as rough as WGSL allows, and no data race, no memory read before it was written, no access out of
//! bounds.

#![cfg(feature = "webgpu")]

use bindery::backend::kernel_cases::KernelCase;
use bindery::backend::webgpu::{GpuDevice, Tuning, Variant, tuning_candidates};
use bindery_lockstep::{Gpu, adapter};
use std::sync::Arc;

#[path = "support/kernels.rs"]
mod kernels;
use kernels::{run_on, run_with_quantized_activations};

fn open(gpu: Gpu, variant: Variant) -> Arc<GpuDevice> {
    GpuDevice::open_adapter(adapter(gpu), Some(variant)).unwrap_or_else(|error| panic!("{error}"))
}

fn run(gpu: Gpu, variant: Variant) {
    run_on(&open(gpu, variant), Tuning::default(), |case| case.quick);
}

#[test]
fn nvidia_matrix_kernels() {
    run(Gpu::NVIDIA, Variant::Matrix);
}

#[test]
fn nvidia_subgroup_kernels() {
    run(Gpu::NVIDIA, Variant::Subgroup);
}

#[test]
fn amd_subgroup_kernels_in_wide_subgroups() {
    run(Gpu { subgroup_sizes: &[64], ..Gpu::AMD }, Variant::Subgroup);
}

#[test]
fn amd_matrix_kernels() {
    run(Gpu::AMD, Variant::Matrix);
}

#[test]
fn intel_subgroup_kernels() {
    run(Gpu::INTEL, Variant::Subgroup);
}

#[test]
fn apple_matrix_kernels() {
    run(Gpu::APPLE, Variant::Matrix);
}

#[test]
fn qualcomm_subgroup_kernels() {
    run(Gpu::QUALCOMM, Variant::Subgroup);
}

#[test]
fn scattered_subgroup_kernels() {
    run(Gpu { scattered_subgroups: true, ..Gpu::NVIDIA }, Variant::Matrix);
}

#[test]
fn small_plain_kernels() {
    run(Gpu::SMALL, Variant::Plain);
}

#[test]
fn amd_kernels_with_quantized_activations() {
    run_with_quantized_activations(&open(Gpu::AMD, Variant::Subgroup));
}

/// With the numbers that change which invocation does what, the kernels that they change.
#[test]
fn intel_tuned_kernels() {
    let gpu = open(Gpu::INTEL, Variant::Subgroup);
    let of_attention = |tuning: &Tuning| tuning.attention_heads != Tuning::default().attention_heads;
    let of_products = |tuning: &Tuning| tuning.matvec_cols != Tuning::default().matvec_cols;
    let tunings = tuning_candidates().into_iter().filter(|tuning| of_attention(tuning) || of_products(tuning));
    let tunings: Vec<Tuning> = tunings.collect();
    assert_eq!(tunings.len(), 4);
    for tuning in tunings {
        let kernel = if of_attention(&tuning) { "paged_attention" } else { "matmul" };
        run_on(&gpu, tuning, |case: &KernelCase| case.quick && case.kernel == kernel);
    }
}
