//! The kernels of the model's shapes on both targets.

use super::super::super::load::bar;
use super::super::target::OpenTarget;
use super::{CompareArgs, Comparison, Unit};
use anyhow::Result;
use bindery::backend::kernel_bench::{BenchProgram, Selection, StepTime, programs};
use bindery::backend::{Backend, ProfileClock};
use bindery::llm::LlmOptions;
use bindery::model::Checkpoint;

/// What both run: less where one of them is the processor.
fn selection(options: &LlmOptions, checkpoint: &Checkpoint, is_small: bool) -> Selection {
    let selection = Selection {
        formats: vec![checkpoint.matrix_format()],
        kv_dtype: options.kv_cache_dtype,
        ..Selection::default()
    };
    if !is_small {
        return selection;
    }
    Selection {
        rows: vec![1, 8, 64],
        decode: vec![(1, 1024), (16, 1024)],
        prefill: vec![(0, 128)],
        cache_bytes: 48 << 20,
        ..selection
    }
}

/// Every program that both take, run in turns.
pub(super) fn compare(
    args: &CompareArgs,
    options: &LlmOptions,
    checkpoint: &Checkpoint,
    targets: &[OpenTarget; 2],
) -> Result<Vec<Comparison>> {
    let is_small = targets.iter().any(|target| target.is_software);
    let selection = selection(options, checkpoint, is_small);
    let mut all = programs(&checkpoint.config().shape(), &selection);
    all.retain(|program| program.name().contains(&args.kernel));
    let progress = bar(all.len() as u64, "[{bar:40}] {pos}/{len} {msg} {elapsed}");
    let mut comparisons = Vec::new();
    for program in &all {
        progress.set_message(program.name());
        let mut backends = [targets[0].backend(), targets[1].backend()];
        if backends.iter().all(|backend| program.fits(&backend.memory())) {
            comparisons.extend(one(args, program, &mut backends)?);
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(comparisons)
}

/// Every step of one program.
fn one(args: &CompareArgs, program: &BenchProgram, backends: &mut [Box<dyn Backend>; 2]) -> Result<Vec<Comparison>> {
    let [a, b] = backends;
    let clocks: [ProfileClock; 2] = [program.prepare(&mut **a)?, program.prepare(&mut **b)?];
    let mut comparisons = Vec::new();
    for step in &program.steps {
        let mut times: [Vec<StepTime>; 2] = Default::default();
        for iteration in 0..=args.num_iters {
            for turn in 0..2 {
                // Who is first changes from one iteration to the next.
                let which = (turn + iteration as usize) % 2;
                let time = program.run(step, clocks[which], &mut *backends[which])?;
                if iteration > 0 {
                    times[which].push(time);
                }
            }
        }
        comparisons.push(Comparison {
            name: format!("{} {}, {}", program.op, program.what, step.label),
            kernels: Some([0, 1].map(|which: usize| times[which][0].kernels.join(" + "))),
            unit: Unit::Microseconds,
            runs: times.map(|times| times.iter().map(|time| 1e6 * time.seconds).collect()),
        });
    }
    Ok(comparisons)
}
