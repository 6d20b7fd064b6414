//! `bindery simulate`: what paging does to KV memory, with no GPU and no model.

mod args;
mod page;
mod report;

use anyhow::{Context, Result, anyhow, bail};
use bindery::simulate::{
    CostModel, Layout, Length, MODELS, Plan, Reserve, Setup, Suite, Synthetic, Workload, preset, read_trace,
};
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::process::ExitCode;

pub(super) use args::SimulateArgs;
use args::{Allocator, Choice};

/// Bytes of a trace at most.
const MAX_TRACE_BYTES: u64 = 4 << 30;

pub(super) fn run(args: &SimulateArgs) -> Result<ExitCode> {
    let setup = setup(args)?;
    let plan = plan(args, &setup)?;
    let workload = workload(args)?;
    let suite = Suite::run(&workload, &setup, &plan);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", report::text(&workload, &setup, &suite))?;
    if let Some(path) = &args.output_json {
        let json = serde_json::to_string_pretty(&report::json(&workload, &setup, &suite))?;
        write(path, &json)?;
    }
    if let Some(path) = &args.output_html {
        write(path, &page::html(&workload, &setup, &suite)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|error| super::exit::Failure(format!("{}: {error}", path.display())).into())
}

fn setup(args: &SimulateArgs) -> Result<Setup> {
    let model = MODELS.iter().find(|model| model.name == args.model);
    let Some(&model) = model else {
        let names: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
        bail!("--model {}: there is {}", args.model, names.join(", "));
    };
    let num_slots = match args.num_blocks {
        Some(blocks) => u64::from(blocks) * u64::from(args.block_size[0]),
        None => args.kv_cache_memory_bytes / model.kv_bytes_per_token(),
    };
    let setup = Setup {
        num_slots,
        max_num_seqs: args.max_num_seqs,
        max_num_batched_tokens: args.max_num_batched_tokens,
        max_model_len: args.max_model_len,
        enable_prefix_caching: !args.no_enable_prefix_caching,
        layout: match args.allocator {
            Allocator::FirstFit => Layout::FirstFit,
            Allocator::Buddy => Layout::Buddy,
        },
        n: args.n,
        beam_width: args.beam_width,
        beam_replacement: args.beam_replacement,
        cost: CostModel { model, bandwidth_bytes_per_s: args.bandwidth * 1e9, flops_per_s: args.tflops * 1e12 },
        seed: args.seed,
    };
    setup.check()?;
    Ok(setup)
}

fn plan(args: &SimulateArgs, setup: &Setup) -> Result<Plan> {
    for &block_size in &args.block_size {
        if !(1..=256).contains(&block_size) || u64::from(block_size) > setup.num_slots {
            bail!("--block-size {block_size}: blocks hold 1 to 256 tokens, and one must fit the KV memory");
        }
    }
    if args.block_size.len() > 64 || args.sharing.0.len() > 64 {
        bail!("--block-size and --sharing take at most 64 values each");
    }
    if let Some(many) = args.sharing.0.iter().find(|&&many| many == 0 || many > args.max_num_seqs) {
        bail!("--sharing {many}: it must be 1 to --max-num-seqs, {}", args.max_num_seqs);
    }
    let all = args.policy == Choice::All;
    let contiguous =
        [(Choice::Max, Reserve::Max), (Choice::Pow2, Reserve::PowerOfTwo), (Choice::Oracle, Reserve::Oracle)];
    let chosen = contiguous.iter().filter(|(choice, _)| all || *choice == args.policy);
    let paged = all || args.policy == Choice::Paged;
    Ok(Plan {
        block_sizes: if paged { args.block_size.clone() } else { Vec::new() },
        reserve: chosen.map(|&(_, reserve)| reserve).collect(),
        sharing: if paged { args.sharing.0.clone() } else { Vec::new() },
    })
}

fn workload(args: &SimulateArgs) -> Result<Workload> {
    let Some(path) = &args.trace else { return synthetic(args) };
    let named = || path.display().to_string();
    let file = File::open(path).with_context(named)?;
    let metadata = file.metadata().with_context(named)?;
    if metadata.is_dir() {
        bail!("{}: a folder, not a trace", path.display());
    }
    if metadata.len() > MAX_TRACE_BYTES {
        bail!("{}: larger than 4 GiB", path.display());
    }
    let name = path.file_name().map_or_else(named, |name| name.to_string_lossy().into_owned());
    read_trace(BufReader::new(file), &name, args.max_model_len).with_context(named)
}

fn synthetic(args: &SimulateArgs) -> Result<Workload> {
    let Some((prompt, output)) = preset(&args.preset) else {
        bail!("--preset {}: there is sharegpt and alpaca", args.preset);
    };
    let length = |preset: Length, mean: Option<f64>, sigma: Option<f64>| Length {
        mean: mean.unwrap_or(preset.mean),
        sigma: sigma.unwrap_or(preset.sigma),
    };
    let synthetic = Synthetic {
        name: args.preset.clone(),
        num_requests: args.num_requests,
        rate: args.rate,
        prompt: length(prompt, args.input_len, args.input_sigma),
        output: length(output, args.output_len, args.output_sigma),
        num_prefixes: args.num_prefixes,
        prefix_tokens: args.prefix_len,
        prefix_share: args.prefix_share,
        max_model_len: args.max_model_len,
        seed: args.seed,
    };
    // Its values bear the names of the flags.
    synthetic.generate().map_err(|error| anyhow!("--{} {}: must be {}", error.name, error.value, error.range))
}
