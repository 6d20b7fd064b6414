//! Project tasks: `cargo xtask <task>`. Everything that CI does is here, so that one command does it anywhere.

mod adapters;
mod coopmat;
mod cuda;
mod demo;
mod dxc;
mod e2e;
mod gpu_check;
mod model;
mod packages;
mod python;
mod run;
mod sim;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
Usage: cargo xtask <task>

Tasks:
  demo [-- PROMPT]            from a fresh clone to an answer: adapter, model, release build, `bindery run`
  test                        test adapters and models, then every check and every test; what CI runs
  e2e [PYTEST ARGUMENTS]      only the tests of tests/e2e: clients that others wrote, against a real server
  model                       fetch the default model into models/, sha256 checked
  model --hf                  also make its Hugging Face folder (a test model)
  gpu-check                   pack target/gpu-check: tests and benchmarks to carry to a machine with an NVIDIA GPU
  gpu-check --dry-run         run them here, with tiny models; what there is no GPU for is reported as absent
  gpu-check --model           pack the default model too, in parts
  coopmat [TREE]              cooperative matrices on a newer lavapipe, in a Debian tree of 500 MB; Linux, not in CI
  dxc                         every kernel's HLSL through DirectX's compiler, a quarter of an hour; Linux, not in CI
  adapters                    list the Vulkan devices that the loader finds here
  sim --seed S --steps N      drive the engine core with random requests from seed S, every invariant checked
  help                        this text

A task skips whatever is already done, so a second run takes seconds.
On Debian and Ubuntu, demo and test install the software Vulkan adapters that are missing (apt-get, with sudo when
needed) and say so. Elsewhere they name what to install. macOS and Windows bring an adapter of their own.";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run_task(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not the Debug form: with RUST_BACKTRACE set that hides the message under a backtrace.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_task(args: &[String]) -> anyhow::Result<()> {
    let (task, rest) = args.split_first().map_or(("help", &[][..]), |(task, rest)| (task.as_str(), rest));
    match task {
        "demo" => demo::run(rest),
        "test" => test::run(rest),
        "e2e" => e2e::run(rest),
        "gpu-check" => gpu_check::run(rest),
        // What run.sh of the packed folder starts.
        "gpu-check-run" => gpu_check::run_here(rest),
        "model" => model::run(rest),
        "adapters" => adapters::run(rest),
        "coopmat" => coopmat::run(rest),
        "dxc" => dxc::run(rest),
        "sim" => sim::run(rest),
        "help" | "--help" | "-h" => {
            println!("{HELP}");
            Ok(())
        }
        _ => anyhow::bail!("unknown task {task}; cargo xtask help lists them"),
    }
}
