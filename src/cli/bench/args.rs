//! Flags that all benchmarks share.

use super::super::engine_args::EngineArgs;
use super::super::units::human_count;
use std::path::PathBuf;

/// Shapes of the requests, and where results go.
#[derive(Debug, clap::Args)]
pub(super) struct CommonArgs {
    /// Prompt tokens of each request
    #[arg(long, value_name = "TOKENS", value_parser = human_count, default_value = "128")]
    pub(super) input_len: u32,

    /// Completion tokens of each request
    #[arg(long, value_name = "TOKENS", value_parser = human_count, default_value = "32")]
    pub(super) output_len: u32,

    /// Iterations that count
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) num_iters: u32,

    /// Iterations before them that do not count
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) num_iters_warmup: u32,

    /// Keep settings, medians and every iteration in this file
    #[arg(long, value_name = "FILE")]
    pub(super) output_json: Option<PathBuf>,

    #[command(flatten)]
    pub(super) engine: EngineArgs,
}
