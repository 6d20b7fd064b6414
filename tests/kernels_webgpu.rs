//! WebGPU's kernel variants against the reference backend, on every software adapter that the test command installs. None of
//! these has cooperative matrices: for the variant `matrix` there is `cargo xtask coopmat`.

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
    run_on(&open(name, variant), Tuning::default(), keep);
}

fn run_on(gpu: &Arc<GpuDevice>, tuning: Tuning, keep: impl Fn(&KernelCase) -> bool) {
    let gpu = gpu.with_kernels(gpu.variant(), tuning);
    let only = std::env::var("BINDERY_KERNEL_CASE").unwrap_or_default();
    let cases = all_cases().into_iter().filter(|case| keep(case) && case.name.contains(&only));
    assert_pass(&gpu, &tuning.to_string(), &cases.collect::<Vec<_>>());
}

/// Quick cases of quantised weights, with activations rounded to int8.
fn run_with_quantized_activations(name: &str, variant: Variant) {
    let gpu = open(name, variant);
    let is_wanted = |case: &KernelCase| case.quick && case.int8_tolerance.is_some();
    let mut cases: Vec<KernelCase> = all_cases().into_iter().filter(is_wanted).collect();
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

/// A step in as many submits as it has matrix products, with its attention in as many rounds as it has tokens or work items,
/// is the same step.
#[test]
fn lavapipe_submits_in_parts() {
    let cpu = open("llvmpipe", Variant::Cpu);
    let others = [Variant::Subgroup, Variant::Plain].map(|variant| open("llvmpipe", variant));
    let cases = all_cases();
    let names = ["decode/14:2x64/f16", "prefill/9:3x64/f32", "common start/9:3x64/f16"];
    let attention = |case: &&KernelCase| names.iter().any(|name| case.name == format!("paged_attention/{name}"));
    let of_all =
        others.iter().chain([&cpu]).flat_map(|gpu| cases.iter().filter(attention).map(move |case| (gpu, case)));
    let tiny_models = cases.iter().filter(|case| case.kernel == "tiny_model").map(|case| (&cpu, case));
    for (gpu, case) in of_all.chain(tiny_models) {
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

/// Whatever numbers a timing may choose, the results are right: each kernel with those that change it.
#[test]
fn lavapipe_tuned_kernels() {
    let Tuning { matvec_rows, matvec_cols, split_workgroups, .. } = Tuning::default();
    for variant in [Variant::Subgroup, Variant::Plain, Variant::Cpu] {
        let gpu = open("llvmpipe", variant);
        for tuning in tuning_candidates().into_iter().filter(|&tuning| tuning != Tuning::default()) {
            let of_vectors = (tuning.matvec_rows, tuning.matvec_cols) != (matvec_rows, matvec_cols);
            let of_splits = tuning.split_workgroups != split_workgroups;
            if variant == Variant::Cpu && (of_vectors || of_splits) {
                continue;
            }
            run_on(&gpu, tuning, |case| {
                case.quick
                    && match (of_vectors, of_splits) {
                        (true, _) => ["matmul", "matmul_rope"].contains(&case.kernel),
                        (_, true) => case.name.contains("after long rows"),
                        _ => case.kernel == "paged_attention",
                    }
            });
        }
    }
}

#[test]
fn lavapipe_subgroup_kernels_with_quantized_activations() {
    run_with_quantized_activations("llvmpipe", Variant::Subgroup);
}

#[test]
fn lavapipe_plain_kernels_with_quantized_activations() {
    run_with_quantized_activations("llvmpipe", Variant::Plain);
}

#[test]
fn swiftshader_plain_kernels_with_quantized_activations() {
    run_with_quantized_activations("SwiftShader", Variant::Plain);
}
