//! WebGPU's kernel variants against the reference backend, on every software adapter that the test command installs. None of
//! these has cooperative matrices: the variant `matrix` runs in `kernels_lockstep.rs`, and in a driver by `cargo xtask coopmat`.

#![cfg(feature = "webgpu")]

use bindery::backend::kernel_cases::{KernelCase, all_cases, run_case};
use bindery::backend::webgpu::{GpuDevice, Tuning, Variant, WebGpuBackend, tuning_candidates};
use std::sync::Arc;

#[path = "support/kernels.rs"]
mod kernels;
use kernels::{run_on, run_with_quantized_activations};

/// Opens an adapter that the test command installs.
fn open(name: &str, variant: Variant) -> Arc<GpuDevice> {
    GpuDevice::open(Some(name), Some(variant)).unwrap_or_else(|error| {
        panic!("{error}; `cargo xtask test` installs the adapters: mesa-vulkan-drivers (llvmpipe), chromium-common (SwiftShader)")
    })
}

fn run(name: &str, variant: Variant, keep: impl Fn(&KernelCase) -> bool) {
    run_on(&open(name, variant), Tuning::default(), keep);
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
    run_with_quantized_activations(&open("llvmpipe", Variant::Subgroup));
}

#[test]
fn lavapipe_plain_kernels_with_quantized_activations() {
    run_with_quantized_activations(&open("llvmpipe", Variant::Plain));
}

#[test]
fn swiftshader_plain_kernels_with_quantized_activations() {
    run_with_quantized_activations(&open("SwiftShader", Variant::Plain));
}
