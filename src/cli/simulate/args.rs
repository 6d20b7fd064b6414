//! The flags of `bindery simulate`.

use clap::ValueEnum;
use std::path::PathBuf;

use super::super::units::{at_least, human_count, human_number};

const AFTER_HELP: &str = "\
What is compared, in KV memory of the same size:
  paged   this engine's own scheduler: blocks shared, copied on write, preempted
  max     every sequence gets room for --max-model-len tokens when it is admitted
  pow2    its prompt and the next power of two of its output length, which it is told
  oracle  exactly what it will need, which it is told
The defaults are the setting of the PagedAttention paper (arXiv 2309.06180): OPT-13B, 12 GiB of KV memory, ShareGPT
lengths; all requests arrive at once, so that memory is what limits everyone. The last three policies keep each sequence
in one piece; --allocator buddy rounds the pieces as the paper assumes.

Columns, as shares of the KV memory while requests wait: tokens (holds one), reserved (the same request will write it
later), internal (given away, never written), external (free, but of no use to whoever waits). waste is the last three
together, as a share of themselves and tokens. A step takes max(bytes / bandwidth, operations / peak).

Traces: CSV with the columns timestamp (seconds) or arrival_step, prompt_tokens, output_tokens and, if you like,
prefix_group and prefix_tokens (requests of a group start alike); or the same as JSON lines, where prompt (token ids),
max_tokens and sys may stand instead. Times in steps make every step as long as the other.

Examples:
  bindery simulate
  bindery simulate --output-json report.json --output-html report.html
  bindery simulate --preset alpaca --n 4 --policy paged
  bindery simulate --rate 3 --num-prefixes 4 --prefix-len 300 --prefix-share 0.8
  bindery simulate --trace requests.csv --model llama-3.1-8b --bandwidth 256
  bindery simulate --policy paged --block-size 16 --sharing '' --num-requests 1M";

/// Which policies to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Choice {
    All,
    Paged,
    Max,
    Pow2,
    Oracle,
}

/// How contiguous policies lay out their ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Allocator {
    /// Exact lengths, in the first hole that is long enough
    FirstFit,
    /// Powers of two at multiples of themselves
    Buddy,
}

/// Compare paged KV memory with contiguous reservations on a stream of requests, without a GPU
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct SimulateArgs {
    /// Replay this CSV or JSON-lines file instead of making requests up
    #[arg(long, value_name = "FILE", help_heading = "Requests")]
    pub(super) trace: Option<PathBuf>,

    /// Lengths of a data set: sharegpt (means 161 in, 338 out) or alpaca (19 in, 58 out)
    #[arg(long, default_value = "sharegpt", help_heading = "Requests")]
    pub(super) preset: String,

    /// Requests to make up
    #[arg(long, value_parser = human_count, default_value = "1000", help_heading = "Requests")]
    pub(super) num_requests: u32,

    /// Requests a second, Poisson; inf for all at once
    #[arg(long, default_value = "inf", help_heading = "Requests")]
    pub(super) rate: f64,

    /// Mean prompt length, log-normal [default: the preset's]
    #[arg(long, value_name = "TOKENS", help_heading = "Requests")]
    pub(super) input_len: Option<f64>,

    /// Standard deviation of the prompt length's logarithm [default: the preset's]
    #[arg(long, value_name = "SIGMA", help_heading = "Requests")]
    pub(super) input_sigma: Option<f64>,

    /// Mean output length, log-normal [default: the preset's]
    #[arg(long, value_name = "TOKENS", help_heading = "Requests")]
    pub(super) output_len: Option<f64>,

    /// Standard deviation of the output length's logarithm [default: the preset's]
    #[arg(long, value_name = "SIGMA", help_heading = "Requests")]
    pub(super) output_sigma: Option<f64>,

    /// Shared prefixes (system prompts) in use
    #[arg(long, value_parser = human_count, default_value = "0", help_heading = "Requests")]
    pub(super) num_prefixes: u32,

    /// Tokens of each shared prefix, before the prompt's own
    #[arg(long, value_parser = human_count, default_value = "256", value_name = "TOKENS", help_heading = "Requests")]
    pub(super) prefix_len: u32,

    /// Share of the requests that start with a shared prefix
    #[arg(long, default_value = "1", help_heading = "Requests")]
    pub(super) prefix_share: f64,

    /// Parallel samples of each request
    #[arg(long, value_parser = human_count, default_value = "1", help_heading = "Requests")]
    pub(super) n: u32,

    /// Beams of each request; 1 for no beam search
    #[arg(long, value_parser = human_count, default_value = "1", help_heading = "Requests")]
    pub(super) beam_width: u32,

    /// Share of the beams that one step replaces by a fork of another beam
    #[arg(long, default_value = "0.02", value_name = "SHARE", help_heading = "Requests")]
    pub(super) beam_replacement: f64,

    /// Seed of everything random
    #[arg(long, default_value_t = 0, value_parser = at_least(0_u64), help_heading = "Requests")]
    pub(super) seed: u64,

    /// Policies to run
    #[arg(long, value_enum, default_value = "all", help_heading = "Engine")]
    pub(super) policy: Choice,

    /// Tokens in a block: the first is compared with the other policies, the others make the sweep
    #[arg(
        long,
        value_parser = human_count,
        value_delimiter = ',',
        default_value = "16,1,4,8,32,64,128,256",
        value_name = "TOKENS,...",
        help_heading = "Engine"
    )]
    pub(super) block_size: Vec<u32>,

    /// Numbers of samples and of beams whose sharing is measured besides (300 requests each); '' for none
    #[arg(long, value_parser = sharing, default_value = "2,4,6", value_name = "SEQS,...", help_heading = "Engine")]
    pub(super) sharing: Sharing,

    /// KV memory: 12Gi, 500M and such
    #[arg(long, value_parser = human_number, default_value = "12Gi", value_name = "BYTES", help_heading = "Engine")]
    pub(super) kv_cache_memory_bytes: u64,

    /// KV memory in blocks of the first block size, instead
    #[arg(long, value_parser = human_count, value_name = "BLOCKS", help_heading = "Engine")]
    pub(super) num_blocks: Option<u32>,

    /// Tokens of a request at most, prompt and completion
    #[arg(long, value_parser = human_count, default_value = "2048", value_name = "TOKENS", help_heading = "Engine")]
    pub(super) max_model_len: u32,

    /// Sequences that run at the same time, at most
    #[arg(long, value_parser = human_count, default_value = "256", value_name = "SEQS", help_heading = "Engine")]
    pub(super) max_num_seqs: u32,

    /// Tokens computed in one step, at most
    #[arg(long, value_parser = human_count, default_value = "2048", value_name = "TOKENS", help_heading = "Engine")]
    pub(super) max_num_batched_tokens: u32,

    /// Do not share blocks among requests with the same prefix
    #[arg(long, help_heading = "Engine")]
    pub(super) no_enable_prefix_caching: bool,

    /// How the policies without paging lay out their ranges
    #[arg(long, value_enum, default_value = "first-fit", help_heading = "Engine")]
    pub(super) allocator: Allocator,

    /// smollm2-135m, llama-3.2-1b, llama-3.1-8b or opt-13b: bytes of a token's keys and values, work of a step
    #[arg(long, default_value = "opt-13b", help_heading = "Cost model")]
    pub(super) model: String,

    /// Memory bandwidth of the device in GB/s (an A100 with 40 GB by default)
    #[arg(long, default_value = "1555", value_name = "GB/S", help_heading = "Cost model")]
    pub(super) bandwidth: f64,

    /// What the device computes, in TFLOP/s
    #[arg(long, default_value = "312", value_name = "TFLOPS", help_heading = "Cost model")]
    pub(super) tflops: f64,

    /// Write all numbers here, as JSON
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) output_json: Option<PathBuf>,

    /// Write a page with plots here, one HTML file that needs nothing else
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) output_html: Option<PathBuf>,
}

/// Numbers of sequences; possibly none.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) struct Sharing(pub(super) Vec<u32>);

fn sharing(text: &str) -> Result<Sharing, String> {
    let numbers = text.split(',').map(str::trim).filter(|number| !number.is_empty());
    Ok(Sharing(numbers.map(human_count).collect::<Result<_, _>>()?))
}
