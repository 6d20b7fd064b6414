//! Every CUDA kernel that the processor can run against the reference backend: the kernels' own text, compiled as C++, and
//! the CUDA backend above it.

#![cfg(feature = "cuda")]

use bindery::backend::cuda::{CudaBackend, DecodeKernel, Driver, EmulatedDevice, measure_fma_peak};
use bindery::backend::kernel_cases::{KernelCase, all_cases, run_case};
use std::path::Path;
use std::sync::Arc;

/// A device of this compute capability, times ten.
fn device(compute_capability: u32) -> Arc<EmulatedDevice> {
    EmulatedDevice::open_as(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-emulation"), compute_capability)
        .unwrap_or_else(|error| panic!("{error}; `cargo xtask test` installs what is missing"))
}

fn run(device: Arc<EmulatedDevice>, decode: DecodeKernel, keep: impl Fn(&KernelCase) -> bool) {
    let only = std::env::var("BINDERY_KERNEL_CASE").unwrap_or_default();
    let mut failures = Vec::new();
    let keep = |case: &&KernelCase| keep(case) && !case.large;
    for case in all_cases().iter().filter(keep).filter(|case| case.name.contains(&only)) {
        match run_case(case, &mut || Ok(Box::new(CudaBackend::new(device.clone()).with_decode_kernel(decode)))) {
            Ok(report) if report.passed => {}
            Ok(report) => failures.push(format!("{}: {}", case.name, report.worst)),
            Err(error) => failures.push(format!("{}: {error}", case.name)),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_kernel_but_attention() {
    run(device(80), DecodeKernel::Teams, |case| case.kernel != "paged_attention");
}

#[test]
fn attention() {
    run(device(80), DecodeKernel::Teams, |case| case.kernel == "paged_attention");
}

#[test]
fn attention_by_blocks() {
    run(device(80), DecodeKernel::Blocks, |case| case.name.starts_with("paged_attention/decode"));
}

#[test]
fn attention_by_asynchronous_copies() {
    run(device(80), DecodeKernel::Async, |case| case.name.starts_with("paged_attention/decode"));
}

/// As many rounds as there are tokens or work items give the same as one.
#[test]
fn attention_in_rounds() {
    let device = device(80);
    for case in all_cases().iter().filter(|case| case.quick && case.kernel == "paged_attention") {
        let run = |keys| {
            run_case(case, &mut || Ok(Box::new(CudaBackend::new(device.clone()).with_round_keys(keys))))
                .unwrap_or_else(|error| panic!("{}: {error}", case.name))
        };
        // Equal down to the largest error against the reference.
        assert_eq!(run(1), run(u64::MAX), "{}", case.name);
    }
}

#[test]
fn products_and_attention_without_tensor_cores() {
    let replaced = |case: &KernelCase| ["matmul", "paged_attention"].contains(&case.kernel);
    run(device(75), DecodeKernel::Teams, |case| replaced(case) && case.quick);
}

#[test]
fn the_peak_is_measured() {
    let driver: Arc<dyn Driver> = device(80);
    let flops_per_s = measure_fma_peak(&driver).unwrap_or_else(|error| panic!("{error}"));
    assert!(flops_per_s.is_finite() && flops_per_s > 1e6, "{flops_per_s}");
}
