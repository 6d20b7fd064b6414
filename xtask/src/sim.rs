//! `cargo xtask sim`: the engine's simulator, over many seeds and on all cores.

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, bail};
use bindery::engine::simulator::{SimReport, simulate};

/// Steps of one episode; each episode has sizes and traffic of its own.
const STEPS_PER_EPISODE: u64 = 2_000;

/// Runs `sim [--seed S] [--steps N]`: episodes of seed S, S + 1, ... until about N steps are done (1 and 1,000,000
/// unless given).
pub fn run(args: &[String]) -> anyhow::Result<()> {
    let (mut seed, mut steps) = (1, 1_000_000);
    let mut args = args.iter();
    while let Some(name) = args.next() {
        let value = args.next().with_context(|| format!("{name} needs a number"))?;
        let number: u64 = value.parse().with_context(|| format!("{name} {value}: not a number"))?;
        match name.as_str() {
            "--seed" => seed = number,
            "--steps" => steps = number,
            _ => bail!("unknown option {name}; usage: cargo xtask sim [--seed S] [--steps N]"),
        }
    }
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    println!("simulating from seed {seed}, {steps} steps in episodes of {STEPS_PER_EPISODE}, {threads} threads");
    let started = Instant::now();
    let total = simulate_all(seed, steps, threads)?;
    let seconds = started.elapsed().as_secs_f64();
    println!("{total}");
    println!("{:.0} steps/s, {seconds:.1} s; all invariants held", total.steps as f64 / seconds);
    Ok(())
}

fn simulate_all(first_seed: u64, steps: u64, threads: usize) -> anyhow::Result<SimReport> {
    let episodes = steps.div_ceil(STEPS_PER_EPISODE);
    let next = AtomicU64::new(0);
    let total = Mutex::new(SimReport::default());
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let episode = next.fetch_add(1, Ordering::Relaxed);
                    if episode >= episodes || failed.lock().expect("not poisoned").is_some() {
                        return;
                    }
                    let seed = first_seed.wrapping_add(episode);
                    let steps = STEPS_PER_EPISODE.min(steps - episode * STEPS_PER_EPISODE);
                    match catch_unwind(|| simulate(seed, steps)) {
                        Ok(report) => *total.lock().expect("not poisoned") += report,
                        // The panic's message has been printed already.
                        Err(_) => *failed.lock().expect("not poisoned") = Some((seed, steps)),
                    }
                }
            });
        }
    });
    if let Some((seed, steps)) = failed.into_inner().expect("not poisoned") {
        bail!("seed {seed} failed; replay it with: cargo xtask sim --seed {seed} --steps {steps}");
    }
    Ok(total.into_inner().expect("not poisoned"))
}
