//! `cargo xtask test`: every check and every test, on the software adapters. CI runs this and nothing else.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::adapters::Software;
use crate::run::{TEST_FEATURES, cargo, command, run as run_command, stdout};
use crate::{cuda, e2e, model};

/// Steps of the closing simulator run.
const SIM_STEPS: &str = "300000";

/// Runs every step, also after a failure, and fails when one of them did.
pub fn run(args: &[String]) -> Result<()> {
    if !args.is_empty() {
        bail!("usage: cargo xtask test; for a single test use cargo test NAME");
    }
    let mut steps = Steps::default();
    let mut manifests: Vec<PathBuf> = Vec::new();
    if cfg!(target_os = "linux") {
        for software in Software::ALL {
            steps.step(&format!("adapter: {software:?}"), || {
                manifests.push(software.ensure()?);
                println!("{}", manifests[manifests.len() - 1].display());
                Ok(())
            });
        }
    }
    let drivers = env::join_paths(&manifests)?;
    let mut environment = vec![];
    if !drivers.is_empty() {
        // The tests choose among these by name. Loaders before 1.3.207 know only the second variable.
        environment.extend(["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].map(|name| (name, drivers.clone())));
    }
    if cfg!(target_os = "linux") {
        steps.step("CUDA's compiler", || {
            environment.push(("LD_LIBRARY_PATH", cuda::ensure_compilers()?));
            Ok(())
        });
    }
    steps.step("models", || model::hf_folder().map(drop));
    let warnings = &["--all-targets", "--", "-D", "warnings"];
    steps.cargo(&[&["fmt", "--all", "--check"]], &environment);
    steps.cargo(&[&["clippy", "--workspace"], warnings], &environment);
    steps.cargo(&[&["clippy", "--workspace"], TEST_FEATURES, warnings], &environment);
    steps.cargo(&[&["test", "--no-default-features", "--no-fail-fast"]], &environment);
    steps.cargo(&[&["test", "--workspace", "--no-fail-fast"], TEST_FEATURES], &environment);
    steps.step("tests/e2e", || e2e::pytest(&drivers, &[]));
    steps.step("simulator", || {
        let seed = commit_seed();
        run_command(command(env::current_exe()?).args(["sim", "--seed", &seed, "--steps", SIM_STEPS]))
    });
    steps.close()
}

/// The simulator's seed: the first 60 bits of the commit's hash, so that every commit tries new ground and a failure
/// is replayed from the log. 1 outside a git checkout.
fn commit_seed() -> String {
    let hash = stdout(command("git").args(["rev-parse", "HEAD"]));
    seed_of(hash.as_deref().unwrap_or_default()).to_string()
}

fn seed_of(hash: &str) -> u64 {
    hash.get(..15).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(1)
}

/// What ran, how long it took, and how it ended.
#[derive(Default)]
struct Steps {
    done: Vec<(String, Duration, Result<()>)>,
}

impl Steps {
    fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        println!("\n=== {name}");
        let start = Instant::now();
        let result = work();
        if let Err(error) = &result {
            println!("FAILED: {error:#}");
        }
        println!("=== {name}: {:.1} s", start.elapsed().as_secs_f64());
        self.done.push((name.to_owned(), start.elapsed(), result));
    }

    fn cargo(&mut self, args: &[&[&str]], environment: &[(&str, OsString)]) {
        let args = args.concat();
        self.step(&format!("cargo {}", args.join(" ")), || {
            run_command(cargo().args(args).envs(environment.iter().map(|(name, value)| (name, value))))
        });
    }

    fn close(self) -> Result<()> {
        println!("\n=== summary");
        for (name, took, result) in &self.done {
            println!("{:6} {:7.1} s  {name}", if result.is_ok() { "ok" } else { "FAILED" }, took.as_secs_f64());
        }
        let total: Duration = self.done.iter().map(|(_, took, _)| *took).sum();
        let failed = self.done.iter().filter(|(_, _, result)| result.is_err()).count();
        println!("{:6} {:7.1} s  in all", "", total.as_secs_f64());
        if failed > 0 {
            bail!("{failed} of {} steps failed", self.done.len());
        }
        println!("all {} steps passed", self.done.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::seed_of;

    #[test]
    fn the_seed_comes_from_the_hash() {
        assert_eq!(seed_of("4f0c7190000000000000000000000000000000ff"), 0x4f0_c719_0000_0000);
        assert_eq!(seed_of(""), 1);
    }
}
