//! Runs kernel cases on a device.
#![allow(dead_code, reason = "each test binary uses its own part")]

use bindery::backend::BackendError;
use bindery::backend::kernel_cases::{KernelCase, all_cases, run_case};
use bindery::backend::webgpu::{GpuDevice, Tuning, WebGpuBackend};
use std::sync::Arc;

/// Runs the cases that `keep` says, with these numbers; of them, those with `BINDERY_KERNEL_CASE` in their name.
pub fn run_on(gpu: &Arc<GpuDevice>, tuning: Tuning, keep: impl Fn(&KernelCase) -> bool) {
    let gpu = gpu.with_kernels(gpu.variant(), tuning);
    let only = std::env::var("BINDERY_KERNEL_CASE").unwrap_or_default();
    let kept: Vec<KernelCase> = all_cases().into_iter().filter(keep).collect();
    assert!(!kept.is_empty(), "no case is kept");
    let cases: Vec<KernelCase> = kept.into_iter().filter(|case| case.name.contains(&only)).collect();
    assert_pass(&gpu, &tuning.to_string(), &cases);
}

/// Quick cases of quantised weights, with activations rounded to int8.
pub fn run_with_quantized_activations(gpu: &Arc<GpuDevice>) {
    let is_wanted = |case: &KernelCase| case.quick && case.int8_tolerance.is_some();
    let mut cases: Vec<KernelCase> = all_cases().into_iter().filter(is_wanted).collect();
    cases.iter_mut().for_each(|case| case.quantize_activations = true);
    assert_pass(gpu, "activations in int8", &cases);
}

fn assert_pass(gpu: &Arc<GpuDevice>, how: &str, cases: &[KernelCase]) {
    let mut failures = Vec::new();
    for case in cases {
        match run_case(case, &mut || Ok(Box::new(WebGpuBackend::new(gpu.clone())))) {
            Ok(report) if report.passed => {}
            Ok(report) => failures.push(format!("{}: {}", case.name, report.worst)),
            Err(error) => {
                failures.push(format!("{}: {error}", case.name));
                // What a device reports on its own, it reports from then on.
                if matches!(error, BackendError::Device(_)) {
                    break;
                }
            }
        }
    }
    let (name, variant) = (&gpu.summary().name, gpu.variant());
    assert!(failures.is_empty(), "{name}, {variant} kernels, {how}:\n{}", failures.join("\n"));
}
