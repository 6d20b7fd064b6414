//! WebGPU's kernel variants against the reference backend, on GPUs that run in lockstep: subgroups as wide as those of GPUs,
//! and no data race, no memory read before it was written, no access out of bounds (`tests/lockstep`).

#![cfg(feature = "webgpu")]

use bindery::backend::kernel_cases::{KernelCase, all_cases, run_case};
use bindery::backend::webgpu::{GpuDevice, Variant, WebGpuBackend};
use bindery_lockstep::Gpu;
use std::sync::Arc;

const GPU: Gpu = Gpu {
    name: "lockstep",
    backend: wgpu::Backend::Vulkan,
    device_type: wgpu::DeviceType::DiscreteGpu,
    subgroup_sizes: &[],
    matrix_sizes: &[],
    storage_buffers: 16,
};

fn open(gpu: Gpu, variant: Variant) -> Arc<GpuDevice> {
    GpuDevice::open_adapter(bindery_lockstep::adapter(gpu), Some(variant)).unwrap_or_else(|error| panic!("{error}"))
}

fn run(gpu: Gpu, variant: Variant, keep: impl Fn(&KernelCase) -> bool) {
    let only = std::env::var("BINDERY_KERNEL_CASE").unwrap_or_default();
    let mut failures = Vec::new();
    for case in all_cases().into_iter().filter(|case| keep(case) && case.name.contains(&only)) {
        let began = std::time::Instant::now();
        // A device of its own, as a fault stays with it.
        let gpu = open(gpu.clone(), variant);
        match run_case(&case, &mut || Ok(Box::new(WebGpuBackend::new(gpu.clone())))) {
            Ok(report) if report.passed => {}
            Ok(report) => failures.push(format!("{}: {}", case.name, report.worst)),
            Err(error) => failures.push(format!("{}: {error}", case.name)),
        }
        eprintln!("{} {:?}", case.name, began.elapsed());
    }
    assert!(failures.is_empty(), "{variant} kernels:\n{}", failures.join("\n"));
}

#[test]
fn quick_32() {
    run(Gpu { subgroup_sizes: &[32], ..GPU }, Variant::Subgroup, |case| case.quick);
}
#[test]
fn quick_plain() {
    run(GPU, Variant::Plain, |case| case.quick);
}
#[test]
fn quick_matrix() {
    run(Gpu { subgroup_sizes: &[32], matrix_sizes: &[16], ..GPU }, Variant::Matrix, |case| case.quick);
}
