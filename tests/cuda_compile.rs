//! Every CUDA kernel variant through NVRTC, for every architecture that the project supports: no GPU is needed. What the
//! compiler says of registers, workgroup memory and spills is held against the limits beside each kernel.

#![cfg(feature = "cuda")]

use bindery::backend::cuda::{Kernel, kernel_variants, nvrtc};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Turing, Ampere (data centre, consumer), Ada, Hopper, Blackwell (data centre, consumer).
const ARCHITECTURES: [u32; 7] = [75, 80, 86, 89, 90, 100, 120];

/// What the compiler says that a kernel needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Figures {
    registers: u32,
    workgroup_bytes: u32,
    /// Spilled registers and other local memory, in bytes.
    spill_bytes: u32,
}

impl Figures {
    fn of(log: &str) -> Option<Self> {
        // "Used 40 registers, used 1 barriers, 1024 bytes smem"; "0 bytes stack frame, 0 bytes spill stores, ...".
        let before = |what: &str| {
            let words: Vec<&str> = log[..log.find(what)?].split_whitespace().collect();
            words.last()?.parse().ok()
        };
        Some(Self {
            registers: before(" registers")?,
            workgroup_bytes: before(" bytes smem").unwrap_or(0),
            spill_bytes: before(" bytes stack frame")?.max(before(" bytes spill stores")?),
        })
    }
}

/// Compiles a kernel to machine code and to PTX; what is wrong with it otherwise.
fn compile(label: &str, kernel: &Kernel, architecture: u32) -> Result<Figures, String> {
    let source = kernel.source();
    let compiled = nvrtc::compile(kernel.name, &source, &format!("sm_{architecture}"))
        .map_err(|error| format!("{label}: {error}"))?;
    if !compiled.image.starts_with(b"\x7fELF") {
        return Err(format!("{label}: no machine code for sm_{architecture}"));
    }
    let ptx = String::from_utf8_lossy(&compiled.ptx);
    if !ptx.contains(&format!(".target sm_{architecture}")) || !ptx.contains(&format!(".entry {}(", kernel.name)) {
        return Err(format!("{label}: no PTX of this kernel for sm_{architecture}"));
    }
    let log = &compiled.log;
    let figures = Figures::of(log).ok_or_else(|| format!("{label}: no figures in the compiler's log:\n{log}"))?;
    let limits = kernel.limits;
    let within = figures.registers <= limits.registers
        && figures.workgroup_bytes <= limits.workgroup_bytes
        && figures.spill_bytes <= limits.spill_bytes;
    if within { Ok(figures) } else { Err(format!("{label}, sm_{architecture}: {figures:?} is above {limits:?}")) }
}

#[test]
fn every_kernel_compiles_within_its_limits() {
    nvrtc::require().unwrap_or_else(|error| panic!("{error}; `cargo xtask test` does both"));
    let variants = kernel_variants();
    let jobs: Vec<(&str, &Kernel, u32)> = ARCHITECTURES
        .iter()
        .flat_map(|&architecture| variants.iter().map(move |(label, kernel)| (label.as_str(), kernel, architecture)))
        .filter(|(_, kernel, architecture)| *architecture >= kernel.compute_capability)
        .collect();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(&(label, kernel, architecture)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = compile(label, kernel, architecture);
                    done.lock().expect("no thread panics").push((kernel.name, result));
                }
            });
        }
    });
    let done = done.into_inner().expect("no thread panics");
    assert_eq!(done.len(), jobs.len());
    let mut most: BTreeMap<&str, Figures> = BTreeMap::new();
    for (name, figures) in done.iter().filter_map(|(name, result)| Some((name, result.as_ref().ok()?))) {
        let of_name = most.entry(name).or_default();
        of_name.registers = of_name.registers.max(figures.registers);
        of_name.workgroup_bytes = of_name.workgroup_bytes.max(figures.workgroup_bytes);
        of_name.spill_bytes = of_name.spill_bytes.max(figures.spill_bytes);
    }
    println!("{} kernels, {} compilations; the most of each kernel:", variants.len(), jobs.len());
    for (name, Figures { registers, workgroup_bytes, spill_bytes }) in most {
        println!(
            "{name:20} {registers:4} registers {workgroup_bytes:6} bytes of workgroup memory {spill_bytes:3} spilled"
        );
    }
    let failures: Vec<&String> = done.iter().filter_map(|(_, result)| result.as_ref().err()).collect();
    let shown: Vec<&str> = failures.iter().take(20).map(|failure| failure.as_str()).collect();
    assert!(failures.is_empty(), "{} of {} failed:\n{}", failures.len(), jobs.len(), shown.join("\n"));
}

#[test]
fn a_broken_kernel_fails_with_its_log() {
    nvrtc::require().unwrap_or_else(|error| panic!("{error}; `cargo xtask test` does both"));
    let (_, kernel) = kernel_variants().swap_remove(0);
    let broken = kernel.source().replace("blockIdx.x", "blockIdx.q");
    assert_ne!(broken, kernel.source());
    let error = nvrtc::compile(kernel.name, &broken, "sm_90").expect_err("there is no blockIdx.q");
    let message = error.to_string();
    assert!(message.contains(kernel.name) && message.contains("has no member \"q\""), "{message}");
}

#[test]
fn figures_are_read_from_the_log() {
    let log = "ptxas info    : Function properties for k2\n\
        ptxas         .     256 bytes stack frame, 28 bytes spill stores, 32 bytes spill loads\n\
        ptxas info    : Used 32 registers, used 1 barriers, 256 bytes cumulative stack size, 1024 bytes smem";
    assert_eq!(Figures::of(log), Some(Figures { registers: 32, workgroup_bytes: 1024, spill_bytes: 256 }));
    assert_eq!(Figures::of(&log.replace(", 1024 bytes smem", "")).map(|figures| figures.workgroup_bytes), Some(0));
    assert_eq!(Figures::of("nothing of the kind"), None);
}
