//! `bindery bench`: how fast, how much memory, how accurate, and how near to what the device could do.

mod args;
mod compare;
mod json_file;
mod kernels;
mod latency;
mod measure;
mod perplexity;
mod report;
mod roofline;
mod serve;
mod setup;
mod sharing;
mod statistics;
mod target;
mod throughput;

use anyhow::Result;
use clap::Subcommand;
use std::process::ExitCode;

const AFTER_HELP: &str = "\
Prompts of latency and throughput are random token ids, all different, so that nothing comes from the prefix cache.
Numbers are medians over the iterations; --output-json keeps every iteration and all settings. With --load-format dummy,
weights are made up, and no checkpoint is needed.

Examples:
  bindery bench latency --input-len 128 --output-len 32
  bindery bench latency --batch-size 16 --output-json latency.json
  bindery bench kernels
  bindery bench compare --a webgpu:0 --b webgpu:1
  bindery bench throughput --num-prompts 64 --input-len 256 --output-len 64
  bindery bench latency --load-format dummy --model llama-1b/config.json";

/// Measure speed and memory on this machine
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    kind: BenchKind,
}

#[derive(Debug, Subcommand)]
enum BenchKind {
    Latency(latency::LatencyArgs),
    Throughput(throughput::ThroughputArgs),
    Kernels(kernels::KernelsArgs),
    Compare(Box<compare::CompareArgs>),
    Sharing(sharing::SharingArgs),
    Perplexity(perplexity::PerplexityArgs),
    Serve(serve::ServeArgs),
}

/// Runs the command.
pub(super) fn run(args: BenchArgs) -> Result<ExitCode> {
    match args.kind {
        BenchKind::Latency(args) => latency::run(args),
        BenchKind::Throughput(args) => throughput::run(args),
        BenchKind::Kernels(args) => kernels::run(&args),
        BenchKind::Compare(args) => compare::run(&args),
        BenchKind::Sharing(args) => sharing::run(args),
        BenchKind::Perplexity(args) => perplexity::run(args),
        BenchKind::Serve(args) => serve::run(args),
    }
}
