//! Every CUDA kernel that the processor can run against the reference backend: the kernels' own text, compiled as C++, and
//! the CUDA backend above it.

#![cfg(feature = "cuda")]

use bindery::backend::cuda::{CudaBackend, EmulatedDevice};
use bindery::backend::kernel_cases::{KernelCase, all_cases, run_case};
use std::path::Path;
use std::sync::Arc;

fn device() -> Arc<EmulatedDevice> {
    EmulatedDevice::open(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-emulation"))
        .unwrap_or_else(|error| panic!("{error}; `cargo xtask test` installs what is missing"))
}

fn run(keep: impl Fn(&KernelCase) -> bool) {
    let device = device();
    let only = std::env::var("BINDERY_KERNEL_CASE").unwrap_or_default();
    let mut failures = Vec::new();
    for case in all_cases().iter().filter(|case| keep(case) && case.name.contains(&only)) {
        let start = std::time::Instant::now();
        match run_case(case, &mut || Ok(Box::new(CudaBackend::new(device.clone())))) {
            Ok(report) if report.passed => {}
            Ok(report) => failures.push(format!("{}: {}", case.name, report.worst)),
            Err(error) => failures.push(format!("{}: {error}", case.name)),
        }
        println!("{} {:.2}", case.name, start.elapsed().as_secs_f64());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

// Two tests, for two processors.
#[test]
fn dense_kernels() {
    run(|case| case.kernel != "paged_attention" && !case.large);
}

#[test]
fn attention_kernels() {
    run(|case| case.kernel == "paged_attention");
}
