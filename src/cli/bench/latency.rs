//! `bindery bench latency`: one batch from its first prompt token to its last completion token.

use super::args::CommonArgs;
use super::setup::Bench;
use anyhow::{Result, bail};
use serde_json::json;
use std::process::ExitCode;

const AFTER_HELP: &str = "\
All requests of a batch start together. \"prefill\" is prompt tokens over the time until every request has its first
token; \"decode\" is the tokens after that moment over the remaining time. \"roofline\" is the least that must be done
(decode: bytes to read, weights once, keys and values of every sequence; prefill: operations) and the time that it takes
at what buffer copies, or f32 multiply-adds, reach on the same device in the same run. Products on matrix units can
pass the latter.

Examples:
  bindery bench latency
  bindery bench latency --batch-size 16 --input-len 512 --output-len 64 --output-json out.json";

/// One batch at a time: prefill and decode rates, TTFT, ITL
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct LatencyArgs {
    /// Requests in the batch
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch_size: u32,

    #[command(flatten)]
    common: CommonArgs,
}

/// Runs the command.
pub(super) fn run(args: LatencyArgs) -> Result<ExitCode> {
    let options = args.common.engine.options()?;
    if args.batch_size == 0 || args.batch_size > options.max_num_seqs {
        bail!("--batch-size {}: must be 1 to --max-num-seqs ({})", args.batch_size, options.max_num_seqs);
    }
    let mut bench = Bench::open(&args.common, options, args.batch_size)?;
    let iterations = bench.iterate()?;
    let latencies: Vec<f64> = iterations.iter().map(|iteration| iteration.elapsed_s).collect();
    let own = json!({
        "avg_latency": latencies.iter().sum::<f64>() / latencies.len() as f64,
        "latencies": latencies,
    });
    bench.report("latency", "batch_size", &iterations, own)?;
    Ok(ExitCode::SUCCESS)
}
