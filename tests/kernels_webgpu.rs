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
    let mut failures = Vec::new();
    for case in all_cases().iter().filter(|case| keep(case) && case.name.contains(&only)) {
        match run_case(case, &mut || Ok(Box::new(WebGpuBackend::new(gpu.clone())))) {
            Ok(report) if report.passed => {}
            Ok(report) => failures.push(format!("{}: {}", case.name, report.worst)),
            Err(error) => failures.push(format!("{}: {error}", case.name)),
        }
    }
    assert!(failures.is_empty(), "{name}, {variant} kernels, {tuning}:\n{}", failures.join("\n"));
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

/// A step in as many submits as it has matrix products is the same step.
#[test]
fn lavapipe_submits_in_parts() {
    let gpu = open("llvmpipe", Variant::Cpu);
    for case in all_cases().iter().filter(|case| case.kernel == "tiny_model") {
        let run = |budget: u64| {
            run_case(case, &mut || {
                let mut backend = WebGpuBackend::new(gpu.clone());
                backend.set_submit_budget(budget);
                Ok(Box::new(backend))
            })
            .unwrap_or_else(|error| panic!("{}: {error}", case.name))
        };
        // Equal down to the largest error against the reference.
        assert_eq!(run(1), run(u64::MAX), "{}", case.name);
    }
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
