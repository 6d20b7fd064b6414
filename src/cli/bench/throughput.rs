//! `bindery bench throughput`: many requests at once, as many of them running as fit.

use super::args::CommonArgs;
use super::setup::Bench;
use super::statistics::median;
use anyhow::{Result, bail};
use serde_json::json;
use std::process::ExitCode;

const AFTER_HELP: &str = "\
All requests are there from the start; up to --max-num-seqs of them run together, the others wait, and TTFT counts their
waiting. Prompts and completions share steps, so the rates are tokens over the whole time.

Examples:
  bindery bench throughput
  bindery bench throughput --num-prompts 200 --max-num-seqs 64 --num-gpu-blocks-override 512";

/// Many requests in one continuous batch: tokens per second in all
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ThroughputArgs {
    /// Requests
    #[arg(long, value_name = "N", default_value_t = 32)]
    num_prompts: u32,

    #[command(flatten)]
    common: CommonArgs,
}

/// Runs the command.
pub(super) fn run(args: ThroughputArgs) -> Result<ExitCode> {
    let options = args.common.engine.options()?;
    if args.num_prompts == 0 {
        bail!("--num-prompts 0: must be at least 1");
    }
    let mut bench = Bench::open(&args.common, options, args.num_prompts)?;
    let iterations = bench.iterate()?;
    let elapsed = median(iterations.iter().map(|iteration| iteration.elapsed_s));
    let requests = f64::from(args.num_prompts);
    let tokens = requests * f64::from(args.common.input_len + args.common.output_len);
    let own = json!({
        "elapsed_time": elapsed,
        "num_requests": args.num_prompts,
        "total_num_tokens": tokens as u64,
        "requests_per_second": requests / elapsed,
        "tokens_per_second": tokens / elapsed,
    });
    bench.report("throughput", "num_prompts", &iterations, own)?;
    Ok(ExitCode::SUCCESS)
}
