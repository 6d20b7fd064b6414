//! `bindery bench compare`: one model on two backends, devices or kernel variants, in turns.

mod end_to_end;
mod kernels;
mod page;

use super::super::engine_args::EngineArgs;
use super::super::exit::Failure;
use super::super::table::table;
use super::super::units::human_count;
use super::json_file::JsonFile;
use super::statistics::median;
use super::target::{OpenTarget, Target};
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

const AFTER_HELP: &str = "\
A target is BACKEND[:[DEVICE][/VARIANT]]: webgpu, webgpu:nvidia, webgpu:llvmpipe/cpu, cuda:/blocks. Both run the same
weights and the same prompts in one process, in turns; each figure is the median of the runs. Kernels are timed by the
device where it has timestamps. \"B is\" says how many times as fast B is as A. Variants of CUDA are its three kernels
for the attention of decodes: teams (the default), async and blocks.

Examples:
  bindery bench compare --a webgpu:0 --b webgpu:1
  bindery bench compare --a webgpu:llvmpipe/cpu --b webgpu:llvmpipe/subgroup --kernel matmul
  bindery bench compare --a webgpu:0/subgroup --b webgpu:0/plain --output-json out.json --output-html out.html";

/// One model on two backends, devices or kernel variants, in turns: ratio per kernel and end to end
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct CompareArgs {
    /// The first
    #[arg(long, value_name = "TARGET")]
    a: Target,

    /// The second
    #[arg(long, value_name = "TARGET")]
    b: Target,

    /// What is compared: kernels, end-to-end
    #[arg(long, value_name = "PARTS", value_delimiter = ',', default_value = "kernels,end-to-end")]
    parts: Vec<Part>,

    /// Only kernel programs with this in their name
    #[arg(long, value_name = "TEXT", default_value = "")]
    kernel: String,

    /// Runs on each that count, after one that does not
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    num_iters: u32,

    /// Prompt tokens of prefill, and of the longest request of the mixed case
    #[arg(long, value_name = "TOKENS", value_parser = human_count, default_value = "128")]
    input_len: u32,

    /// Completion tokens of decode and of the mixed case
    #[arg(long, value_name = "TOKENS", value_parser = human_count, default_value = "16")]
    output_len: u32,

    /// Sequences that decode together
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "1,8,64")]
    batch_sizes: Vec<u32>,

    /// Keep every run in this file
    #[arg(long, value_name = "FILE")]
    output_json: Option<PathBuf>,

    /// A page with plots
    #[arg(long, value_name = "FILE")]
    output_html: Option<PathBuf>,

    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Kernels,
    EndToEnd,
}

/// One thing that both did, some times each.
#[derive(Debug)]
struct Comparison {
    /// What it is.
    name: String,
    /// Kernels that ran on A and on B; none end to end.
    kernels: Option<[String; 2]>,
    /// `us` (less is better), or `tokens/s` (more is better).
    unit: Unit,
    /// The values of every run of A and of B.
    runs: [Vec<f64>; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Microseconds,
    TokensPerSecond,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Microseconds => "us",
            Self::TokensPerSecond => "tokens/s",
        }
    }
}

impl Comparison {
    fn medians(&self) -> [f64; 2] {
        [0, 1].map(|which| median(self.runs[which].iter().copied()))
    }

    /// How many times as fast B is as A.
    fn speed_of_b(&self) -> f64 {
        let [a, b] = self.medians();
        if self.unit == Unit::Microseconds { a / b } else { b / a }
    }

    fn cells(&self) -> Vec<String> {
        let [a, b] = self.medians();
        let kernels = match &self.kernels {
            None => String::new(),
            Some([a, b]) if a == b => a.clone(),
            Some([a, b]) => format!("{a} | {b}"),
        };
        let speed = format!("{:.2}x", self.speed_of_b());
        vec![self.name.clone(), format!("{a:.1}"), format!("{b:.1}"), self.unit.name().into(), speed, kernels]
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "unit": self.unit.name(), "kernels": self.kernels, "median": self.medians(),
            "speed_of_b": self.speed_of_b(), "runs_a": self.runs[0], "runs_b": self.runs[1],
        })
    }
}

/// Runs the command.
pub(super) fn run(args: &CompareArgs) -> Result<ExitCode> {
    let options = args.engine.options()?;
    if args.engine.names_device() {
        bail!("--backend, --device and --variant: name them in --a and --b, as in --a webgpu:0/plain");
    }
    if args.input_len == 0 || args.output_len < 2 {
        bail!("--input-len must be at least 1, --output-len at least 2");
    }
    if let Some(size) = args.batch_sizes.iter().find(|size| !(1..=options.max_num_seqs).contains(size)) {
        bail!("--batch-sizes {size}: must be 1 to --max-num-seqs ({})", options.max_num_seqs);
    }
    let mut json_file = JsonFile::create(args.output_json.as_deref())?;
    let checkpoint = options.open_checkpoint()?;
    let targets = [args.a.open()?, args.b.open()?];
    let has = |part| args.parts.contains(&part);
    let kernels =
        if has(Part::Kernels) { kernels::compare(args, &options, &checkpoint, &targets)? } else { Vec::new() };
    let rates =
        if has(Part::EndToEnd) { end_to_end::compare(args, &options, &checkpoint, &targets)? } else { Vec::new() };
    let text = text(&targets, &[&kernels[..], &rates[..]]);
    writeln!(std::io::stdout(), "{text}")?;
    let heading = format!("{}, medians of {}", options.model.display(), args.num_iters);
    if let Some(path) = &args.output_html {
        let page = page::html(&heading, &targets, &kernels, &rates, &text)?;
        std::fs::write(path, page).with_context(|| format!("--output-html {}: cannot be written", path.display()))?;
    }
    let all = |comparisons: &[Comparison]| comparisons.iter().map(Comparison::json).collect::<Vec<_>>();
    json_file.write(&json!({
        "benchmark": "compare",
        "version": env!("CARGO_PKG_VERSION"),
        "a": targets[0].description, "b": targets[1].description,
        "model": options.model.display().to_string(),
        "num_iters": args.num_iters, "input_len": args.input_len, "output_len": args.output_len,
        "kernels": all(&kernels),
        "end_to_end": all(&rates),
    }))?;
    match kernels.is_empty() && rates.is_empty() {
        true => Err(Failure("nothing was compared".into()).into()),
        false => Ok(ExitCode::SUCCESS),
    }
}

fn text(targets: &[OpenTarget; 2], parts: &[&[Comparison]]) -> String {
    let mut lines = vec![format!("A: {}", targets[0].description), format!("B: {}", targets[1].description)];
    for part in parts.iter().filter(|part| !part.is_empty()) {
        let rows: Vec<Vec<String>> = part.iter().map(Comparison::cells).collect();
        lines.push(String::new());
        lines.push(table(&["", "A", "B", "unit", "B is", "kernels"], &rows));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faster_is_above_one_whatever_the_unit() {
        let of = |unit, a: &[f64], b: &[f64]| {
            Comparison { name: "x".into(), kernels: None, unit, runs: [a.to_vec(), b.to_vec()] }.speed_of_b()
        };
        assert_eq!(of(Unit::Microseconds, &[9.0, 10.0, 30.0], &[5.0]), 2.0);
        assert_eq!(of(Unit::TokensPerSecond, &[10.0], &[5.0]), 0.5);
    }
}
