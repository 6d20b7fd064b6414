//! `bindery bench perplexity`: how well a model predicts a text, as it is loaded.

use super::super::engine_args::EngineArgs;
use super::super::load::{bar, load};
use super::super::notices::Notices;
use super::super::table::table;
use super::super::units::human_count;
use anyhow::{Context as _, Result, bail};
use bindery::backend::KvDtype;
use bindery::backend::webgpu::MOST_INT8_ROWS;
use bindery::engine::DEFAULT_BLOCK_SIZE;
use bindery::llm::Perplexity;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

const AFTER_HELP: &str = "\
The text is cut into windows that begin every --stride tokens; each token is predicted once, from the tokens of its window
before it. Perplexity is exp of the mean of -ln(probability) over all tokens but the first: lower is better, and what a
format of weights or of the KV pool costs shows as a ratio. With --quantize-activations, everything is measured without
it first; only steps of up to 8 tokens do it, so all must be.

Examples:
  bindery bench perplexity --text tests/data/public_domain.txt
  bindery bench perplexity --text tests/data/public_domain.txt --kv-cache-dtypes f16,int8
  bindery bench perplexity --text tests/data/public_domain.txt --quantize-activations --max-num-batched-tokens 8 \
    --max-num-seqs 8";

/// What formats of weights, KV pool or activations cost in accuracy, on a text
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct PerplexityArgs {
    /// UTF-8 file with the text
    #[arg(long, value_name = "FILE")]
    text: PathBuf,

    /// Tokens of a window
    #[arg(long, value_name = "TOKENS", value_parser = human_count, default_value = "1024")]
    window: u32,

    /// Tokens from the start of one window to that of the next
    #[arg(long, value_name = "TOKENS", value_parser = human_count, default_value = "512")]
    stride: u32,

    /// Measure these, one after the other, instead of --kv-cache-dtype
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    kv_cache_dtypes: Vec<String>,

    /// Keep the numbers in this file
    #[arg(long, value_name = "FILE")]
    output_json: Option<PathBuf>,

    #[command(flatten)]
    engine: EngineArgs,
}

/// Runs the command.
pub(super) fn run(args: PerplexityArgs) -> Result<ExitCode> {
    let mut options = args.engine.options()?;
    let text = std::fs::read_to_string(&args.text).with_context(|| format!("--text {}", args.text.display()))?;
    if !(1..args.window).contains(&args.stride) {
        bail!(
            "--window {} and --stride {}: the stride must be at least 1, and less than the window",
            args.window,
            args.stride
        );
    }
    let mut dtypes = Vec::new();
    for name in &args.kv_cache_dtypes {
        match KvDtype::ALL.into_iter().find(|dtype| dtype.name() == name) {
            Some(dtype) => dtypes.push(dtype),
            None => bail!("--kv-cache-dtypes {name}: must be {}", KvDtype::ALL.map(KvDtype::name).join(", ")),
        }
    }
    if dtypes.is_empty() {
        dtypes.push(options.kv_cache_dtype);
    }
    let quantize = options.quantize_activations;
    if quantize && options.max_num_batched_tokens > MOST_INT8_ROWS {
        bail!(
            "--quantize-activations with --max-num-batched-tokens {}: steps of more than {MOST_INT8_ROWS} tokens do not \
             round activations, so --max-num-batched-tokens must be at most that",
            options.max_num_batched_tokens
        );
    }
    let each = |quantize_activations| dtypes.iter().map(move |&dtype| (dtype, quantize_activations));
    let settings = each(false).chain(each(true).filter(|_| quantize));
    let create = |path: &PathBuf| File::create(path).with_context(|| format!("--output-json {}", path.display()));
    let file = args.output_json.as_ref().map(create).transpose()?;

    let (mut rows, mut json_rows): (Vec<Vec<String>>, Vec<Value>) = (Vec::new(), Vec::new());
    let mut first = None;
    let mut device = String::new();
    for (dtype, quantize_activations) in settings {
        (options.kv_cache_dtype, options.quantize_activations) = (dtype, quantize_activations);
        let activations = if quantize_activations { "int8" } else { "f32" };
        let mut llm = load(&options, Notices::Lines)?;
        if args.window >= llm.max_model_len() {
            bail!("--window {}: must be less than the longest sequence, {} tokens", args.window, llm.max_model_len());
        }
        let tokens = llm.tokenizer()?.encode(&text, true)?;
        if tokens.len() < 2 {
            bail!("--text {}: {} tokens, at least 2 are needed", args.text.display(), tokens.len());
        }
        let progress = bar(tokens.len() as u64, "[{bar:40}] {pos}/{len} tokens {elapsed}");
        let measured = Perplexity::measure(&mut llm, &tokens, args.window, args.stride, &mut |at| {
            progress.set_position(at as u64)
        })?;
        progress.finish_and_clear();
        let token_bytes = llm.kv_memory().block_bytes / u64::from(DEFAULT_BLOCK_SIZE);
        let (perplexity, of_first) = (measured.value(), *first.get_or_insert(measured.value()));
        device = llm.device_description();
        rows.push(vec![
            dtype.name().to_owned(),
            activations.to_owned(),
            tokens.len().to_string(),
            format!("{perplexity:.4}"),
            format!("{:+.3} %", 100.0 * (perplexity / of_first - 1.0)),
            token_bytes.to_string(),
        ]);
        json_rows.push(json!({
            "kv_cache_dtype": dtype.name(), "activations": activations, "tokens": tokens.len(),
            "predicted_tokens": measured.predicted_tokens, "perplexity": perplexity, "mean_nll": measured.mean_nll,
            "kv_token_bytes": token_bytes,
        }));
    }
    let head = ["KV pool", "activations", "tokens", "perplexity", "to the first", "bytes of KV for a token"];
    writeln!(std::io::stdout(), "{device}\n{}", table(&head, &rows))?;
    if let Some(mut file) = file {
        let json = json!({
            "benchmark": "perplexity", "version": env!("CARGO_PKG_VERSION"), "device": device,
            "model": options.model, "text": args.text, "window": args.window, "stride": args.stride, "rows": json_rows,
        });
        serde_json::to_writer_pretty(&mut file, &json)?;
        file.write_all(b"\n")?;
    }
    Ok(ExitCode::SUCCESS)
}
