//! What WebGPU's kernels for GPUs would cost on one, counted by GPUs in lockstep (`tests/lockstep`) at the shapes of known models,
//! with no GPU: how near to the bandwidth of memory the counts let a kernel come, and which lines are in its way.
//!
//! `cargo run --release --example kernel_counts -- [NAME] [VARIANT] [GPU] [lines]`, where NAME is a part of a program's and its
//! step's (`8B/matmul gate and up 28672x4096 q4_0, 1`; all of them take half an hour), GPU a part of one below, and `lines`
//! shows those that cost most.
//!
//! It is a bound, not a prediction: latencies, clocks, what drivers do, and how parts of a kernel overlap are not counted.

use bindery::backend::kernel_bench::{BenchProgram, BenchStep, ModelShape, Selection, programs};
use bindery::backend::webgpu::{GpuDevice, Variant, WebGpuBackend};
use bindery_lockstep::{Counts, Gpu, Meter, metered_adapter};
use std::error::Error;
use std::sync::Arc;

/// A GPU's rates, from its maker's documents.
struct Rates {
    name: &'static str,
    gpu: Gpu,
    /// Streaming multiprocessors: what has an L1 cache.
    cores: f64,
    /// Cycles a second.
    clock: f64,
    /// Bytes a second.
    bandwidth: f64,
    /// Instructions of a core in a cycle, each for one invocation.
    instructions: f64,
    conversions: f64,
    special: f64,
    /// Multiply-adds of f16 matrices with f32 sums, of a core in a cycle.
    matrix_multiply_adds: f64,
}

const GPUS: [Rates; 2] = [
    Rates {
        name: "H200",
        gpu: Gpu::NVIDIA,
        cores: 132.0,
        clock: 1.785e9,
        bandwidth: 4.8e12,
        instructions: 128.0,
        conversions: 64.0,
        special: 16.0,
        matrix_multiply_adds: 2048.0,
    },
    Rates {
        name: "RTX 4090",
        gpu: Gpu::NVIDIA,
        cores: 128.0,
        clock: 2.52e9,
        bandwidth: 1.008e12,
        instructions: 128.0,
        conversions: 64.0,
        special: 16.0,
        matrix_multiply_adds: 256.0,
    },
];

/// Workgroups that are run of each dispatch.
const SAMPLES: u32 = 8;

/// Lines that cost less than this part of the dearest are not shown.
const LEAST_SHARE: u64 = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_default();
    let variant = args.next().map_or(Ok(Variant::Matrix), |name| name.parse())?;
    let gpu = args.next().unwrap_or_else(|| GPUS[0].name.to_owned());
    let with_lines = args.next().is_some_and(|arg| arg == "lines");
    let known = || GPUS.map(|rates| rates.name).join(", ");
    let rates = GPUS.iter().find(|rates| rates.name.contains(&gpu));
    let rates = rates.ok_or_else(|| format!("no GPU {gpu:?}; there are {}", known()))?;
    let meter = Meter::new(SAMPLES);
    let device = GpuDevice::open_adapter(metered_adapter(rates.gpu.clone(), meter.clone()), Some(variant))?;
    println!("{}, {variant} kernels. What memory takes for the bytes that must move, and of that time:", rates.name);
    println!(
        "instructions, conversions, special functions, passes of L1 and workgroup memory, matrices; of those bytes: what"
    );
    println!("comes through L2");
    let selection = Selection { rows: vec![1, 2, 4, 8, 16, 32, 64, 512], cache_bytes: 0, ..Selection::default() };
    for shape in ModelShape::known() {
        for program in programs(&shape, &selection) {
            let wanted = |step: &&BenchStep| format!("{}, {}", program.name(), step.label).contains(&name);
            let steps: Vec<&BenchStep> = program.steps.iter().filter(wanted).collect();
            if !steps.is_empty() {
                show(&program, &steps, &device, &meter, rates, with_lines)?;
            }
        }
    }
    Ok(())
}

fn show(
    program: &BenchProgram,
    steps: &[&BenchStep],
    device: &Arc<GpuDevice>,
    meter: &Meter,
    rates: &Rates,
    with_lines: bool,
) -> Result<(), Box<dyn Error>> {
    let mut backend = WebGpuBackend::new(device.clone());
    backend.set_submit_budget(u64::MAX);
    let clock = program.prepare(&mut backend)?;
    for step in steps {
        meter.take();
        program.run(step, clock, &mut backend)?;
        println!("{}, {}", program.name(), step.label);
        // Programs have their op more than once.
        let mut shown: Vec<Counts> = Vec::new();
        for counts in meter.take() {
            let is_another = |other: &Counts| other.kernel != counts.kernel || other.operations != counts.operations;
            if shown.iter().all(is_another) {
                show_times(&counts, step.bytes as f64, rates);
                if with_lines {
                    show_lines(&counts);
                }
                shown.push(counts);
            }
        }
    }
    Ok(())
}

fn show_times(counts: &Counts, bytes: f64, rates: &Rates) {
    let scale = f64::from(counts.workgroups) / f64::from(counts.sampled);
    let cycle_s = scale / rates.cores / rates.clock;
    let of_subgroups = |count: u64, rate: f64| count as f64 * counts.subgroup_size as f64 / rate * cycle_s;
    // Parameters stand in registers, or nearly.
    let accesses = || counts.accesses.iter().filter(|access| access.memory != "parameters");
    let requests: u64 = accesses().map(|access| access.requests).sum();
    let passes: u64 = accesses().map(|access| access.passes).sum();
    let Counts { operations, conversions, special, exchanges, matrix_multiply_adds, .. } = *counts;
    let issued = operations + conversions + special + exchanges + requests;
    let memory_s = bytes / rates.bandwidth;
    let of_memory = |seconds: f64| format!("{:6.2}", seconds / memory_s);
    let moved: u64 = counts.buffers.iter().map(|traffic| traffic.moved_bytes).sum();
    println!(
        "  {:8.1} us {:24} {} {} {} {} {}; {:6.2}",
        memory_s * 1e6,
        counts.kernel,
        of_memory(of_subgroups(issued, rates.instructions)),
        of_memory(of_subgroups(conversions, rates.conversions)),
        of_memory(of_subgroups(special, rates.special)),
        of_memory((passes + exchanges) as f64 * cycle_s),
        of_memory(matrix_multiply_adds as f64 / rates.matrix_multiply_adds * cycle_s),
        scale * moved as f64 / bytes
    );
}

fn show_lines(counts: &Counts) {
    let per = |count: u64| count as f64 / f64::from(counts.sampled);
    let (workgroups, size) = (counts.workgroups, counts.workgroup_size);
    println!("    {workgroups} workgroups of {size}, subgroups of {}; of a workgroup:", counts.subgroup_size);
    let most = counts.lines.iter().map(|(_, times)| *times).max().unwrap_or(0);
    for (line, times) in counts.lines.iter().filter(|(_, times)| *times >= most / LEAST_SHARE) {
        println!("      {:9.0} operations  {line}", per(*times));
    }
    let most = counts.accesses.iter().map(|access| access.passes).max().unwrap_or(0);
    for access in counts.accesses.iter().filter(|access| access.passes >= most / LEAST_SHARE) {
        println!(
            "      {:9.0} passes, {:.2} of the fewest; {:.2} of sectors used; {}{}, {}",
            per(access.passes),
            access.passes as f64 / access.fewest_passes as f64,
            access.words as f64 / 8.0 / access.sectors as f64,
            access.memory,
            if access.writes { " =" } else { "" },
            access.line
        );
    }
    for traffic in &counts.buffers {
        println!(
            "      {:9.0} bytes, {:.0} moved  {}",
            per(traffic.used_bytes),
            per(traffic.moved_bytes),
            traffic.buffer
        );
    }
}
