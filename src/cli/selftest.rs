//! `bindery selftest`: every kernel against the reference, on the user's own adapter.

use super::exit::Failure;
use super::load::bar;
use super::notices::Notices;
use super::table::table;
use anyhow::Result;
use bindery::backend::kernel_cases::{CaseReport, KernelCase, all_cases, run_case};
use bindery::backend::webgpu::Variant;
use bindery::backend::{BackendKind, DeviceChoice, KernelVariant, OpenDevice};
use std::io::Write;
use std::process::ExitCode;

const AFTER_HELP: &str = "\
Each case runs one kernel on the adapter and on the plain reference that defines it, with NaN in all memory that the
kernel must not read. Errors are relative to max(1, |expected|). Error and tolerance are those of the worst case, whose
share of what is allowed is the largest. The exit code is 1 if a kernel is wrong.

Examples:
  bindery selftest
  bindery selftest --device nvidia --all
  bindery selftest --backend cuda --all
  bindery selftest --variant plain --kernel paged_attention";

/// Check every kernel against the reference on an adapter
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct SelftestArgs {
    /// Which backend: webgpu, cuda (in builds with the feature cuda), or auto (CUDA where there is a device for it)
    #[arg(long, value_name = "BACKEND", default_value_t = BackendKind::default())]
    backend: BackendKind,

    /// Which of its devices: index or part of the name, as `bindery devices` lists them [default: the fastest kind]
    #[arg(long, value_name = "INDEX|NAME")]
    device: Option<String>,

    /// WebGPU kernel variant: cpu, matrix, subgroup or plain [default: the one that suits the adapter]
    #[arg(long, value_name = "VARIANT")]
    variant: Option<Variant>,

    /// The kernels with cooperative matrices of this size, 8 or 16, instead of the largest that the adapter lists; those that
    /// it does not list it may get wrong
    #[arg(long, value_name = "SIZE", conflicts_with = "variant", value_parser = matrix_size)]
    matrix_size: Option<u32>,

    /// All cases, large ones too (minutes on a software adapter), instead of a few of each kernel
    #[arg(long)]
    all: bool,

    /// Only products of quantised weights, with activations rounded to int8 as the flag of this name does elsewhere;
    /// tolerances are wider by as much
    #[arg(long)]
    quantize_activations: bool,

    /// Only cases with this in their name
    #[arg(long, value_name = "TEXT", default_value = "")]
    kernel: String,
}

fn matrix_size(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|size| [8, 16].contains(size)).ok_or_else(|| "must be 8 or 16".to_owned())
}

/// How the cases of one kernel went.
struct KernelResult {
    kernel: &'static str,
    cases: usize,
    /// Error and tolerance of the case that comes nearest to its tolerance, or is farthest beyond.
    worst: (f64, f64),
    failures: Vec<String>,
}

/// Runs the command.
pub(super) fn run(args: &SelftestArgs) -> Result<ExitCode> {
    let variant = args.variant.or(args.matrix_size.map(|_| Variant::Matrix)).map(KernelVariant::WebGpu);
    let choice = DeviceChoice { backend: args.backend, device: args.device.as_deref(), variant };
    let device = match (OpenDevice::open(choice)?, args.matrix_size) {
        (OpenDevice::WebGpu(gpu), Some(size)) => OpenDevice::WebGpu(gpu.with_matrix_size(size)?),
        (device, _) => device,
    };
    Notices::Lines.warn_of_software(choice.device, &device);
    let wanted = |case: &KernelCase| {
        (args.all || (case.quick && !case.large))
            && case.name.contains(&args.kernel)
            && (case.int8_tolerance.is_some() || !args.quantize_activations)
    };
    let mut cases: Vec<KernelCase> = all_cases().into_iter().filter(wanted).collect();
    cases.iter_mut().for_each(|case| case.quantize_activations = args.quantize_activations);
    if cases.is_empty() {
        anyhow::bail!("--kernel {:?}: no case has this in its name", args.kernel);
    }
    let mut stdout = std::io::stdout();
    let description = device.backend().description();
    writeln!(stdout, "{description}")?;
    let results = run_cases(&cases, &device);
    let rows: Vec<Vec<String>> = results.iter().map(KernelResult::row).collect();
    writeln!(stdout, "{}", table(&["kernel", "cases", "error", "tolerance", "of tolerance", "verdict"], &rows))?;
    for failure in results.iter().flat_map(|result| &result.failures) {
        writeln!(stdout, "{failure}")?;
    }
    match results.iter().map(|result| result.failures.len()).sum::<usize>() {
        0 => Ok(ExitCode::SUCCESS),
        failures => Err(Failure(format!(
            "{failures} of {} cases failed on {description}: its results cannot be trusted; please report it with this table",
            cases.len()
        ))
        .into()),
    }
}

fn run_cases(cases: &[KernelCase], device: &OpenDevice) -> Vec<KernelResult> {
    let progress = bar(cases.len() as u64, "[{bar:40}] {pos}/{len} {msg}");
    let mut results: Vec<KernelResult> = Vec::new();
    for case in cases {
        progress.set_message(case.name.clone());
        let known = results.iter().position(|result| result.kernel == case.kernel);
        let index = known.unwrap_or_else(|| {
            results.push(KernelResult::new(case.kernel));
            results.len() - 1
        });
        let report = run_case(case, &mut || Ok(device.backend()));
        results[index].add(case, report.map_err(|error| error.to_string()));
        progress.inc(1);
    }
    progress.finish_and_clear();
    results
}

impl KernelResult {
    fn new(kernel: &'static str) -> Self {
        Self { kernel, cases: 0, worst: (0.0, 0.0), failures: Vec::new() }
    }

    fn add(&mut self, case: &KernelCase, report: Result<CaseReport, String>) {
        self.cases += 1;
        let report = match report {
            Ok(report) => report,
            Err(error) => return self.failures.push(format!("{}: {error}", case.name)),
        };
        let share = |(error, tolerance): (f64, f64)| if error > 0.0 { error / tolerance } else { 0.0 };
        let this = (report.max_rel_error, report.tolerance);
        if self.cases == 1 || share(this) > share(self.worst) {
            self.worst = this;
        }
        if !report.passed {
            self.failures.push(format!("{}: {}", case.name, report.worst));
        }
    }

    fn row(&self) -> Vec<String> {
        let (error, tolerance) = self.worst;
        let share = if error > 0.0 { format!("{:.0} %", 100.0 * error / tolerance) } else { "0 %".into() };
        let verdict = if self.failures.is_empty() { "ok" } else { "FAILED" };
        let number = |value: f64| if value == 0.0 { "0".to_owned() } else { format!("{value:.1e}") };
        vec![self.kernel.into(), self.cases.to_string(), number(error), number(tolerance), share, verdict.into()]
    }
}
