//! `bindery bench sharing`: how many KV blocks parallel samples and beams save by sharing, on the real engine.

use super::super::engine_args::EngineArgs;
use super::super::load::bar;
use super::super::table::table;
use super::json_file::JsonFile;
use super::setup::open_model;
use anyhow::{Result, bail};
use bindery::engine::TokenId;
use bindery::llm::Llm;
use bindery::sampling::SamplingParams;
use bindery::simulate::{Arrival, Synthetic, preset};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What the prompts are cut from: beams over text part later than beams over noise.
const TEXT: &str = include_str!("../../../tests/data/public_domain.txt");

const AFTER_HELP: &str = "\
Prompts are pieces of a text in the public domain, of log-normal lengths with the means of the PagedAttention paper's
data sets (alpaca: 19 tokens in, 58 out; sharegpt: 161 in, 338 out); answers have their drawn lengths. Samples are drawn
at temperature 1. \"saved\" is 1 - blocks used / blocks of all block tables, over all steps, as in the paper's section
6.3; prefix caching is off, so that nothing is shared but by samples and beams. \"copying\" is the time that the copies
on write take at the copy bandwidth measured in the same run, against the whole time.

Examples:
  bindery bench sharing
  bindery bench sharing --lengths alpaca --num-prompts 4 --output-json sharing.json";

/// Blocks saved by sharing, for parallel samples and beam search
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct SharingArgs {
    /// Lengths: alpaca, sharegpt
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "alpaca,sharegpt")]
    lengths: Vec<String>,

    /// Numbers of parallel samples
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "2,4,6")]
    n: Vec<u32>,

    /// Beam widths
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "2,4,6")]
    beam_width: Vec<u32>,

    /// Requests of each row
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    num_prompts: u32,

    /// Keep all counts in this file
    #[arg(long, value_name = "FILE")]
    output_json: Option<PathBuf>,

    #[command(flatten)]
    engine: EngineArgs,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
struct Kind {
    beams: bool,
    sequences: u32,
}

impl Kind {
    fn name(self) -> String {
        if self.beams { format!("beam width {}", self.sequences) } else { format!("n = {}", self.sequences) }
    }

    fn params(self, max_tokens: u32, seed: u64) -> SamplingParams {
        SamplingParams {
            n: self.sequences,
            use_beam_search: self.beams,
            temperature: if self.beams { 0.0 } else { 1.0 },
            seed: Some(seed),
            max_tokens: Some(max_tokens),
            ignore_eos: true,
            detokenize: false,
            ..SamplingParams::default()
        }
    }
}

/// What a row counts, over all its steps.
#[derive(Debug, Default)]
struct Counts {
    prompt_tokens: u64,
    completion_tokens: u64,
    steps: u64,
    used_blocks: u64,
    table_entries: u64,
    copies: u64,
    took: Duration,
}

impl Counts {
    fn saved(&self) -> f64 {
        1.0 - self.used_blocks as f64 / self.table_entries as f64
    }
}

/// Runs the command.
pub(super) fn run(args: SharingArgs) -> Result<ExitCode> {
    let mut options = args.engine.options()?;
    options.enable_prefix_caching = false;
    for name in &args.lengths {
        if preset(name).is_none() {
            bail!("--lengths {name}: must be alpaca or sharegpt");
        }
    }
    let kinds: Vec<Kind> = [(false, &args.n), (true, &args.beam_width)]
        .into_iter()
        .flat_map(|(beams, all)| all.iter().map(move |&sequences| Kind { beams, sequences }))
        .collect();
    if let Some(kind) = kinds.iter().find(|kind| !(1..=options.max_num_seqs).contains(&kind.sequences)) {
        bail!("{}: must be 1 to --max-num-seqs ({})", kind.name(), options.max_num_seqs);
    }
    let mut file = JsonFile::create(args.output_json.as_deref())?;
    let (mut llm, peaks, _) = open_model(&options)?;
    let copy_bandwidth = peaks.copy_bytes_per_s;
    let text = llm.tokenizer()?.encode(TEXT, false)?;
    let block_bytes = llm.kv_memory().block_bytes;
    let total = args.lengths.len() * kinds.len() * args.num_prompts as usize;
    let progress = bar(total as u64, "[{bar:40}] {msg} {pos}/{len} requests {elapsed}");
    let (mut rows, mut json_rows): (Vec<Vec<String>>, Vec<Value>) = (Vec::new(), Vec::new());
    for lengths in &args.lengths {
        let arrivals = arrivals(lengths, args.num_prompts, llm.max_model_len(), options.seed);
        for kind in &kinds {
            progress.set_message(format!("{lengths}, {}", kind.name()));
            let counts = count(&mut llm, &text, &arrivals, *kind, &mut || progress.inc(1))?;
            // Each copied block is read and written once.
            let copying = (counts.copies * 2 * block_bytes) as f64 / copy_bandwidth / counts.took.as_secs_f64();
            rows.push(vec![
                lengths.clone(),
                kind.name(),
                format!("{:.1}", 100.0 * counts.saved()),
                counts.copies.to_string(),
                format!("{:.3}", 100.0 * copying),
                format!("{:.0}", counts.prompt_tokens as f64 / arrivals.len() as f64),
                format!("{:.0}", counts.completion_tokens as f64 / (arrivals.len() as f64 * f64::from(kind.sequences))),
            ]);
            json_rows.push(json!({
                "lengths": lengths, "beam_search": kind.beams, "sequences": kind.sequences,
                "requests": arrivals.len(), "prompt_tokens": counts.prompt_tokens,
                "completion_tokens": counts.completion_tokens, "steps": counts.steps,
                "used_block_steps": counts.used_blocks, "block_table_entry_steps": counts.table_entries,
                "saved": counts.saved(), "copies_on_write": counts.copies,
                "copying_share_of_time": copying, "elapsed_s": counts.took.as_secs_f64(),
            }));
        }
    }
    progress.finish_and_clear();
    let head = ["lengths", "request", "saved, %", "copies", "copying, %", "tokens in", "tokens out"];
    writeln!(std::io::stdout(), "{}\n{}", llm.device_description(), table(&head, &rows))?;
    file.write(&json!({
        "benchmark": "sharing", "version": env!("CARGO_PKG_VERSION"), "device": llm.device_description(),
        "model": options.model, "seed": options.seed, "copy_bandwidth_bytes_per_s": copy_bandwidth,
        "kv_block_bytes": block_bytes, "rows": json_rows,
    }))?;
    Ok(ExitCode::SUCCESS)
}

/// Requests of the data set's lengths, all there from the start.
fn arrivals(lengths: &str, num_requests: u32, max_model_len: u32, seed: u64) -> Vec<Arrival> {
    let (prompt, output) = preset(lengths).expect("checked before");
    let synthetic = Synthetic {
        name: lengths.to_owned(),
        num_requests,
        rate: f64::INFINITY,
        prompt,
        output,
        num_prefixes: 0,
        prefix_tokens: 0,
        prefix_share: 0.0,
        max_model_len,
        seed,
    };
    synthetic.generate().expect("the data sets' lengths are in range").arrivals
}

/// Serves the requests to their end.
fn count(
    llm: &mut Llm,
    text: &[TokenId],
    arrivals: &[Arrival],
    kind: Kind,
    on_done: &mut dyn FnMut(),
) -> Result<Counts> {
    let mut counts = Counts::default();
    let before = llm.stats();
    let start = Instant::now();
    for (number, arrival) in arrivals.iter().enumerate() {
        let len = (arrival.prompt_tokens as usize).min(text.len() - 1);
        let at = number * 997 % (text.len() - len);
        counts.prompt_tokens += len as u64;
        counts.completion_tokens += u64::from(arrival.output_tokens) * u64::from(kind.sequences);
        llm.add(text[at..at + len].to_vec(), kind.params(arrival.output_tokens, number as u64))?;
    }
    let mut events = Vec::new();
    while llm.step(&mut events)? {
        let done = events.drain(..).filter(|event| matches!(event, bindery::llm::Event::Done { .. })).count();
        (0..done).for_each(|_| on_done());
        let stats = llm.stats();
        counts.used_blocks += u64::from(stats.used_blocks);
        counts.table_entries += stats.block_table_entries;
    }
    let after = llm.stats();
    counts.took = start.elapsed();
    counts.steps = after.steps - before.steps;
    counts.copies = after.cow_copies - before.cow_copies;
    Ok(counts)
}
