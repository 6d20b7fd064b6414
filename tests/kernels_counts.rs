//! How WebGPU's kernels for GPUs meet memory, counted by GPUs in lockstep at the shapes of a real model: what all of the weights
//! and keys go through is read by neighbours side by side, and workgroup memory keeps nobody waiting for a bank.

#![cfg(feature = "webgpu")]

use bindery::backend::WeightFormat;
use bindery::backend::kernel_bench::{ModelShape, Selection, programs};
use bindery::backend::webgpu::{GpuDevice, Variant, WebGpuBackend};
use bindery_lockstep::{Access, Counts, Gpu, Meter, metered_adapter};

/// Dispatches of the programs of Llama 3.2 1B with this in their name.
fn count(gpu: Gpu, variant: Variant, name: &str, rows: u32) -> Vec<Counts> {
    let meter = Meter::new(2);
    let device = GpuDevice::open_adapter(metered_adapter(gpu, meter.clone()), Some(variant)).expect("a device");
    let shape = ModelShape::known().into_iter().find(|shape| shape.name == "Llama-3.2-1B").expect("it is known");
    let selection = Selection {
        formats: vec![WeightFormat::F16, WeightFormat::Q8_0, WeightFormat::Q4_0],
        rows: vec![rows],
        decode: vec![(2, 1024)],
        prefill: vec![(256, 64)],
        cache_bytes: 0,
        ..Selection::default()
    };
    let mut all = Vec::new();
    for program in programs(&shape, &selection).iter().filter(|program| program.name().contains(name)) {
        let mut backend = WebGpuBackend::new(device.clone());
        backend.set_submit_budget(u64::MAX);
        let clock = program.prepare(&mut backend).expect("it fits");
        for step in &program.steps {
            meter.take();
            program.run(step, clock, &mut backend).expect("it runs");
            all.extend(meter.take());
        }
    }
    assert!(!all.is_empty(), "no program's name has {name}");
    all
}

/// The accesses to some memory by kernels of this name, each with the kernel's.
fn accesses<'c>(counts: &'c [Counts], kernel: &str, memory: &[&str]) -> Vec<&'c Access> {
    let of_kernel = counts.iter().filter(|counts| counts.kernel == kernel);
    let all = of_kernel.flat_map(|counts| &counts.accesses);
    let found: Vec<&Access> = all.filter(|access| memory.contains(&access.memory.as_str())).collect();
    for name in memory {
        assert!(found.iter().any(|access| access.memory == *name), "{kernel} has no {name}");
    }
    found
}

/// Most passes of as many words as the least.
#[track_caller]
fn assert_passes(accesses: &[&Access], most: f64) {
    for access in accesses {
        let passes = access.passes as f64 / access.fewest_passes as f64;
        assert!(passes <= most, "{passes:.2} times the fewest passes: {access:?}");
    }
}

/// Least part of the sectors that is used.
#[track_caller]
fn assert_sectors_are_used(accesses: &[&Access], least: f64) {
    for access in accesses {
        let used = access.words as f64 / 8.0 / access.sectors as f64;
        assert!(used >= least, "{used:.2} of the sectors are used: {access:?}");
    }
}

#[test]
fn products_of_few_rows_read_weights_side_by_side() {
    for variant in [Variant::Subgroup, Variant::Plain] {
        for rows in [1, 8] {
            let counts = count(Gpu::NVIDIA, variant, "matmul down 2048x8192", rows);
            let weights = accesses(&counts, "matvec", &["weights"]);
            assert_eq!(weights.len(), 3, "one for each format");
            assert_passes(&weights, 1.0);
            assert_sectors_are_used(&weights, 1.0);
        }
    }
}

#[test]
fn products_by_matrices_stage_without_conflicts() {
    for rows in [32, 64, 512] {
        let counts = count(Gpu::NVIDIA, Variant::Matrix, "matmul norm, gate and up, silu", rows);
        assert_passes(&accesses(&counts, "matmul_coop", &["tile_x", "tile_w"]), 1.0);
    }
}

#[test]
fn products_in_tiles_stage_without_conflicts() {
    for rows in [16, 64] {
        let counts = count(Gpu::NVIDIA, Variant::Subgroup, "matmul norm, gate and up, silu", rows);
        assert_passes(&accesses(&counts, "matmul", &["tile_x", "tile_w"]), 1.0);
    }
}

#[test]
fn attention_reads_pages_side_by_side() {
    let counts = count(Gpu::NVIDIA, Variant::Subgroup, "/decode", 1);
    let pools = accesses(&counts, "attention_decode", &["k_pool", "v_pool"]);
    assert_passes(&pools, 1.0);
    assert_sectors_are_used(&pools, 1.0);
}

#[test]
fn prefills_by_matrices_stage_without_conflicts() {
    let counts = count(Gpu::NVIDIA, Variant::Matrix, "/prefill", 1);
    let pools = accesses(&counts, "attention_prefill_coop", &["k_pool", "v_pool"]);
    assert_passes(&pools, 1.0);
    assert_sectors_are_used(&pools, 1.0);
    assert_passes(&accesses(&counts, "attention_prefill_coop", &["sums"]), 1.1);
    // Heads of 64 have too few slices for all banks.
    assert_passes(&accesses(&counts, "attention_prefill_coop", &["k_rows", "v_rows"]), 2.0);
}
