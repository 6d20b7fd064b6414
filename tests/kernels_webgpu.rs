//! Every WebGPU kernel variant against the reference backend, on every software adapter that the test command installs.

#![cfg(feature = "webgpu")]

use bindery::backend::kernel_cases::{KernelCase, all_cases, run_case};
use bindery::backend::webgpu::{GpuDevice, Tuning, Variant, WebGpuBackend, tuning_candidates};
use std::sync::Arc;

/// Opens an adapter that the test command installs.
fn open(name: &str, variant: Variant) -> Arc<GpuDevice> {
    GpuDevice::open(Some(name), Some(variant)).unwrap_or_else(|error| {
        panic!("{error}; `cargo xtask test` installs the adapters: mesa-vulkan-drivers (llvmpipe), chromium-common (SwiftShader)")
    })
}

fn run(name: &str, variant: Variant, keep: impl Fn(&KernelCase) -> bool) {
    run_tuned(name, variant, Tuning::default(), keep);
}

fn run_tuned(name: &str, variant: Variant, tuning: Tuning, keep: impl Fn(&KernelCase) -> bool) {
    let gpu = open(name, variant).with_kernels(variant, tuning);
    let only = std::env::var("BINDERY_KERNEL_CASE").unwrap_or_default();
    let cases = all_cases().into_iter().filter(|case| keep(case) && case.name.contains(&only));
    assert_pass(&gpu, &tuning.to_string(), &cases.collect::<Vec<_>>());
}

/// The quick cases with products, whose activations may be rounded to int8.
fn run_with_quantized_activations(name: &str, variant: Variant) {
    let gpu = open(name, variant);
    let mut cases: Vec<KernelCase> =
        all_cases().into_iter().filter(|case| case.quick && case.f16_tolerance.is_some()).collect();
    cases.iter_mut().for_each(|case| case.quantize_activations = true);
    assert_pass(&gpu, "activations in int8", &cases);
}

fn assert_pass(gpu: &Arc<GpuDevice>, how: &str, cases: &[KernelCase]) {
    let mut failures = Vec::new();
    for case in cases {
        match run_case(case, &mut || Ok(Box::new(WebGpuBackend::new(gpu.clone())))) {
            Ok(report) if report.passed => {}
            Ok(report) => failures.push(format!("{}: {}", case.name, report.worst)),
            Err(error) => failures.push(format!("{}: {error}", case.name)),
        }
    }
    let (name, variant) = (&gpu.summary().name, gpu.variant());
    assert!(failures.is_empty(), "{name}, {variant} kernels, {how}:\n{}", failures.join("\n"));
}

#[test]
fn lavapipe_cpu_kernels() {
    run("llvmpipe", Variant::Cpu, |_| true);
}

#[test]
fn lavapipe_subgroup_kernels() {
    run("llvmpipe", Variant::Subgroup, |case| case.quick);
}

#[test]
fn lavapipe_plain_kernels() {
    run("llvmpipe", Variant::Plain, |case| case.quick);
}

#[test]
fn swiftshader_cpu_kernels() {
    run("SwiftShader", Variant::Cpu, |case| case.quick);
}

#[test]
fn swiftshader_plain_kernels() {
    run("SwiftShader", Variant::Plain, |case| case.quick);
}

/// Whatever numbers a timing may choose, the results are right.
#[test]
fn lavapipe_tuned_kernels() {
    for variant in [Variant::Subgroup, Variant::Plain, Variant::Cpu] {
        for tuning in tuning_candidates() {
            let tuned = |case: &KernelCase| case.quick && ["matmul", "paged_attention"].contains(&case.kernel);
            run_tuned("llvmpipe", variant, tuning, tuned);
        }
    }
}

#[test]
fn lavapipe_cpu_kernels_with_quantized_activations() {
    run_with_quantized_activations("llvmpipe", Variant::Cpu);
}

#[test]
fn lavapipe_subgroup_kernels_with_quantized_activations() {
    run_with_quantized_activations("llvmpipe", Variant::Subgroup);
}

#[test]
fn swiftshader_cpu_kernels_with_quantized_activations() {
    run_with_quantized_activations("SwiftShader", Variant::Cpu);
}
