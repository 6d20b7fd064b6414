//! `bindery bench kernels`: every kernel at the shapes of real models, against what the device reaches at best.

use super::super::engine_args::KvCacheDtype;
use super::super::load::bar;
use super::super::table::table;
use super::json_file::JsonFile;
use super::roofline::peaks_text;
use super::statistics::median;
use super::target::{OpenTarget, Target};
use anyhow::{Result, bail};
use bindery::backend::kernel_bench::{BenchProgram, BenchStep, ModelShape, Selection, StepTime, programs};
use bindery::backend::webgpu::Variant;
use bindery::backend::{Backend, BackendError, BackendKind, DevicePeaks, KernelVariant, WeightFormat};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const AFTER_HELP: &str = "\
Each row is one op of a model, timed by the device's timestamps where it has them (\"host\" where not). Matrix products
and row-wise kernels: the step is the number of rows. decode: sequences x tokens of each. prefill: new tokens after
those in the KV pool. shared: decodes that begin with the same tokens, sequences x (those + their own). GB/s are the bytes that must move (weights, keys, values, inputs, outputs, once each) over the
time, \"of copy\" their share of what buffer copies reach on this device in this run; GFLOP/s and \"of FMA\" the same
against f32 multiply-adds that touch no memory. Ops of few rows cycle through more weights than a cache holds.

Examples:
  bindery bench kernels
  bindery bench kernels --shapes Llama-3.1-8B --formats f16,q4_0 --kernel matmul
  bindery bench kernels --device llvmpipe --all --output-json kernels.json";

/// Measure each kernel at the shapes of real models: GB/s, GFLOP/s, share of what the device can do
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct KernelsArgs {
    /// What runs the kernels: webgpu, cuda, or auto
    #[arg(long, value_name = "BACKEND", default_value_t = BackendKind::default())]
    backend: BackendKind,

    /// Which adapter: its index or a part of its name, as `bindery devices` lists them [default: the fastest kind]
    #[arg(long, value_name = "INDEX|NAME")]
    device: Option<String>,

    /// WebGPU kernel variants [default: all that the adapter runs; on software adapters the one that suits them]
    #[arg(long, value_name = "VARIANTS", value_delimiter = ',')]
    variant: Vec<Variant>,

    /// Models: SmolLM2-135M, Qwen3-0.6B, Llama-3.2-1B, Llama-3.1-8B [default: all; on software adapters the first]
    #[arg(long, value_name = "MODELS", value_delimiter = ',')]
    shapes: Vec<String>,

    /// Only programs with this in their name: matmul, qkv, decode, rms_norm, ...
    #[arg(long, value_name = "TEXT", default_value = "")]
    kernel: String,

    /// Formats of the weights [default: f16,q8_0,q4_0; on software adapters f16,q4_1]
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', value_parser = weight_format)]
    formats: Vec<WeightFormat>,

    /// Rows of matrix products and row-wise kernels [default: 1,8,64,512; on software adapters 1,8,64]
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=4096))]
    rows: Vec<u32>,

    /// Element type of the KV pool; auto is f16
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    kv_cache_dtype: KvCacheDtype,

    /// Let products of few rows round activations to int8, as the flag of the same name of `bindery serve` does
    #[arg(long)]
    quantize_activations: bool,

    /// On a software adapter too, everything that a GPU would get
    #[arg(long)]
    all: bool,

    /// Runs of each step that count; the median is shown
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    num_runs: u32,

    /// Keep every run in this file, which grows as kernels are measured
    #[arg(long, value_name = "FILE")]
    output_json: Option<PathBuf>,
}

/// A step that takes this long altogether is run less often, but three times at least.
const STEP_BUDGET: Duration = Duration::from_secs(3);

fn weight_format(text: &str) -> Result<WeightFormat, String> {
    let found = WeightFormat::ALL.into_iter().find(|format| format.name() == text);
    found.ok_or_else(|| format!("{text:?} is none of f32, f16, bf16, q8_0, q4_0, q4_1"))
}

/// What is measured.
struct Plan {
    /// `None` for the one that there is.
    variants: Vec<Option<Variant>>,
    shapes: Vec<ModelShape>,
    selection: Selection,
    /// What a GPU would get and this device does not.
    left_out: Vec<String>,
}

/// One line of the result.
struct Row {
    variant: String,
    model: String,
    op: &'static str,
    what: String,
    step: String,
    bytes: u64,
    flops: u64,
    times: Vec<StepTime>,
}

/// Runs the command.
pub(super) fn run(args: &KernelsArgs) -> Result<ExitCode> {
    let mut file = JsonFile::create(args.output_json.as_deref())?;
    let target = |variant: Option<Variant>| Target {
        backend: args.backend,
        device: args.device.clone(),
        variant: variant.map(KernelVariant::WebGpu),
    };
    let first = target(args.variant.first().copied()).open()?;
    let mut plan = args.plan(&first)?;
    let peaks = first.device.measure_peaks()?;
    let open = plan.variants.iter().map(|&variant| target(variant).open()).collect::<Result<Vec<_>, _>>()?;
    let mut rows = Vec::new();
    let json = |rows: &[Row], left_out: &[String]| {
        json!({
            "benchmark": "kernels",
            "version": env!("CARGO_PKG_VERSION"),
            "device": first.description,
            "copy_bandwidth_bytes_per_s": peaks.copy_bytes_per_s,
            "fma_flops_per_s": peaks.fma_flops_per_s,
            "left_out": left_out,
            "rows": rows.iter().map(|row| row.json(&peaks)).collect::<Vec<_>>(),
        })
    };
    measure_all(args, &open, &mut plan, &mut rows, &mut |rows, left_out| file.write(&json(rows, left_out)))?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", first.description)?;
    writeln!(out, "at best: {}", peaks_text(&peaks))?;
    let head = ["model", "op", "step", "kernels", "us", "clock", "GB/s", "of copy", "GFLOP/s", "of FMA"];
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.cells(&peaks)).collect();
    writeln!(out, "{}", table(&head, &cells))?;
    for line in &plan.left_out {
        writeln!(out, "left out: {line}")?;
    }
    Ok(ExitCode::SUCCESS)
}

impl KernelsArgs {
    /// What was asked for, or what suits the device.
    fn plan(&self, target: &OpenTarget) -> Result<Plan> {
        let is_small = target.is_software && !self.all;
        let known = ModelShape::known();
        let mut left_out = Vec::new();
        let mut leave_out = |what: String| left_out.push(format!("{what} (software adapter; --all)"));
        let shapes = if self.shapes.is_empty() {
            let count = if is_small { 1 } else { known.len() };
            if is_small {
                let names: Vec<&str> = known[count..].iter().map(|shape| shape.name.as_str()).collect();
                leave_out(format!("shapes of {}", names.join(", ")));
            }
            known[..count].to_vec()
        } else {
            let find = |name: &String| known.iter().find(|shape| shape.name.eq_ignore_ascii_case(name)).cloned();
            let names: Vec<&str> = known.iter().map(|shape| shape.name.as_str()).collect();
            let one = |name| {
                find(name).ok_or_else(|| anyhow::anyhow!("--shapes {name}: must be one of {}", names.join(", ")))
            };
            self.shapes.iter().map(one).collect::<Result<_>>()?
        };
        let variants = match (&self.variant[..], is_small) {
            ([], _) if target.variants.is_empty() => vec![None],
            ([], false) => target.variants.iter().copied().map(Some).collect(),
            ([], true) => {
                let others: Vec<String> = target.variants[1..].iter().map(ToString::to_string).collect();
                if !others.is_empty() {
                    leave_out(format!("{} kernels", others.join(" and ")));
                }
                vec![Some(target.variants[0])]
            }
            (asked, _) => asked.iter().copied().map(Some).collect(),
        };
        let mut selection = Selection::default();
        if is_small {
            selection = small_selection();
            leave_out("512 rows, 64 sequences, 4096 tokens".into());
        }
        if !self.formats.is_empty() {
            selection.formats.clone_from(&self.formats);
        }
        if !self.rows.is_empty() {
            selection.rows.clone_from(&self.rows);
        }
        selection.kv_dtype = self.kv_cache_dtype.dtype();
        selection.quantize_activations = self.quantize_activations;
        Ok(Plan { variants, shapes, selection, left_out })
    }
}

/// What a software adapter does within minutes.
fn small_selection() -> Selection {
    Selection {
        formats: vec![WeightFormat::F16, WeightFormat::Q4_1],
        rows: vec![1, 8, 64],
        decode: vec![(1, 128), (1, 1024), (16, 128), (16, 1024)],
        prefill: vec![(0, 128), (896, 128)],
        shared: vec![(16, 1024)],
        cache_bytes: 48 << 20,
        ..Selection::default()
    }
}

/// Keeps what there is so far: the rows, and what was left out.
type Keep<'a> = dyn FnMut(&[Row], &[String]) -> Result<()> + 'a;

/// Every program on every target; `after_each` gets what there is so far.
fn measure_all(
    args: &KernelsArgs,
    targets: &[OpenTarget],
    plan: &mut Plan,
    rows: &mut Vec<Row>,
    after_each: &mut Keep<'_>,
) -> Result<()> {
    let all: Vec<BenchProgram> = plan.shapes.iter().flat_map(|shape| programs(shape, &plan.selection)).collect();
    let wanted: Vec<BenchProgram> = all.into_iter().filter(|program| program.name().contains(&args.kernel)).collect();
    if wanted.is_empty() {
        bail!("--kernel {:?}: no program has this in its name", args.kernel);
    }
    let progress = bar((wanted.len() * targets.len()) as u64, "[{bar:40}] {pos}/{len} {msg} {elapsed}");
    for program in &wanted {
        for target in targets {
            progress.set_message(format!("{} {}", target.kernels, program.name()));
            match measure(program, &mut *target.backend(), args.num_runs)? {
                Ok(measured) => {
                    rows.extend(measured.into_iter().map(|(step, times)| Row::new(target, program, step, times)));
                }
                Err(why) => plan.left_out.push(format!("{}, {}: {why}", program.name(), program.steps[0].label)),
            }
            after_each(rows, &plan.left_out)?;
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    Ok(())
}

/// A step and its times.
type Measured<'a> = Vec<(&'a BenchStep, Vec<StepTime>)>;

/// Each step of a program, once to warm up and then as often as it counts; or why the device cannot run it.
fn measure<'a>(
    program: &'a BenchProgram,
    backend: &mut dyn Backend,
    num_runs: u32,
) -> Result<Result<Measured<'a>, String>, BackendError> {
    if !program.fits(&backend.memory()) {
        return Ok(Err("too large for this device".into()));
    }
    let clock = match program.prepare(backend) {
        Err(BackendError::OutOfMemory { what, bytes, .. }) => {
            return Ok(Err(format!("no memory for {what}, {bytes} bytes")));
        }
        Err(BackendError::Unsupported(why)) => return Ok(Err(why)),
        Err(error @ BackendError::Kernel { .. }) => return Ok(Err(error.to_string())),
        other => other?,
    };
    let mut all = Vec::new();
    for step in &program.steps {
        program.run(step, clock, backend)?;
        let began = Instant::now();
        let mut times = Vec::new();
        while times.len() < num_runs as usize && (times.len() < 3 || began.elapsed() < STEP_BUDGET) {
            times.push(program.run(step, clock, backend)?);
        }
        all.push((step, times));
    }
    Ok(Ok(all))
}

impl Row {
    fn new(target: &OpenTarget, program: &BenchProgram, step: &BenchStep, times: Vec<StepTime>) -> Self {
        Self {
            variant: target.kernels.clone(),
            model: program.model.clone(),
            op: program.op,
            what: program.what.clone(),
            step: step.label.clone(),
            bytes: step.bytes,
            flops: step.flops,
            times,
        }
    }

    fn seconds(&self) -> f64 {
        median(self.times.iter().map(|time| time.seconds))
    }

    fn is_device_time(&self) -> bool {
        self.times.iter().all(|time| time.is_device_time)
    }

    fn kernels(&self) -> String {
        match self.times.first() {
            Some(time) if !time.kernels.is_empty() => time.kernels.join(" + "),
            _ => "unknown".into(),
        }
    }

    fn cells(&self, peaks: &DevicePeaks) -> Vec<String> {
        let seconds = self.seconds();
        let (bandwidth, rate) = (self.bytes as f64 / seconds, self.flops as f64 / seconds);
        vec![
            self.model.clone(),
            format!("{} {}", self.op, self.what),
            self.step.clone(),
            format!("{}: {}", self.variant, self.kernels()),
            format!("{:.1}", 1e6 * seconds),
            if self.is_device_time() { "device" } else { "host" }.into(),
            format!("{:.2}", bandwidth / 1e9),
            format!("{:.0}%", 100.0 * bandwidth / peaks.copy_bytes_per_s),
            format!("{:.2}", rate / 1e9),
            format!("{:.0}%", 100.0 * rate / peaks.fma_flops_per_s),
        ]
    }

    fn json(&self, peaks: &DevicePeaks) -> Value {
        let seconds = self.seconds();
        let (bandwidth, rate) = (self.bytes as f64 / seconds, self.flops as f64 / seconds);
        json!({
            "model": self.model, "op": self.op, "what": self.what, "step": self.step,
            "variant": self.variant, "kernels": self.times.first().map(|time| &time.kernels),
            "is_device_time": self.is_device_time(),
            "median_s": seconds, "runs_s": self.times.iter().map(|time| time.seconds).collect::<Vec<_>>(),
            "bytes": self.bytes, "flops": self.flops,
            "bytes_per_s": bandwidth, "share_of_copy_bandwidth": bandwidth / peaks.copy_bytes_per_s,
            "flops_per_s": rate, "share_of_fma_peak": rate / peaks.fma_flops_per_s,
        })
    }
}
