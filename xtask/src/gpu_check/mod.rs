//! `cargo xtask gpu-check`: a folder to carry to a machine with an NVIDIA GPU, and what runs there.
//!
//! The folder holds `bindery`, this program, small models and goldens, and NVRTC. On that machine `run.sh` starts this
//! program as `gpu-check-run`: it looks what there is (`machine`), runs one stage after the other (`plan`, `stage`), each
//! under its own limit and all of them under one, and writes the report anew after each (`report`), with what was aimed for
//! beside it (`goals`).

mod goals;
mod machine;
mod pack;
mod parity;
mod plan;
mod report;
mod stage;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::run::{command, run as run_command};
use machine::Machine;
use pack::Build;
use plan::{Planner, Scale};
use report::{Record, Report};

/// Time of the whole check, unless said otherwise: machines are lent for ten minutes.
const SECONDS: u64 = 520;

/// `cargo xtask gpu-check [--dry-run | --model]`.
pub fn run(args: &[String]) -> Result<()> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            let folder = pack::pack(Build::Release)?;
            println!("carry {} to the machine and run ./run.sh there; results/ is what comes back", folder.display());
            Ok(())
        }
        ["--model"] => pack::pack_model(),
        ["--dry-run"] => {
            let folder = pack::pack(Build::Debug)?;
            run_command(command(folder.join("run.sh")).arg("--tiny"))
        }
        _ => bail!("usage: cargo xtask gpu-check [--dry-run | --model]"),
    }
}

/// `gpu-check-run [--tiny] [--seconds N]`, in the packed folder.
pub fn run_here(args: &[String]) -> Result<()> {
    let (mut scale, mut seconds) = (Scale::Full, SECONDS);
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        match flag.as_str() {
            "--tiny" => scale = Scale::Tiny,
            "--seconds" => {
                let value = args.next().context("--seconds needs a number")?;
                seconds = value.parse().with_context(|| format!("--seconds {value}: not a number"))?;
            }
            _ => bail!("usage: run.sh [--tiny] [--seconds N]"),
        }
    }
    check(&std::env::current_dir()?, scale, Duration::from_secs(seconds))
}

fn check(folder: &Path, scale: Scale, time: Duration) -> Result<()> {
    let start = Instant::now();
    std::fs::create_dir_all(folder.join("results"))?;
    if let Err(reason) = pack::join_model(folder) {
        println!("the real model: {reason}");
    }
    let machine = Machine::probe(folder);
    println!("{}; {}", machine.program, machine.description);
    let mut report = Report { folder, machine: &machine, scale, records: Vec::new() };
    for stage in (Planner { machine: &machine, scale }).stages() {
        let left = time.saturating_sub(start.elapsed());
        let (outcome, took) = stage::run(&stage, folder, left)?;
        println!("{:9} {:6.1} s  {} {}", outcome.word(), took.as_secs_f64(), stage.name, outcome.reason());
        report.records.push(Record::new(&stage, outcome, took, folder));
        report.write()?;
    }
    println!("\n{}", std::fs::read_to_string(folder.join("results/report.md"))?);
    match report.failures() {
        failures if failures.is_empty() => Ok(()),
        failures => bail!("{}", failures.join("; ")),
    }
}
