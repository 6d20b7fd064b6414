//! Times candidates, one number after the other, each with the best of those before.

use super::super::super::kernel_bench::{BenchProgram, Selection, programs};
use super::super::super::{Backend, BackendError, ProfileClock};
use super::super::tuning::MOST_SPLIT_WORKGROUPS;
use super::super::{GpuDevice, Tuning, Variant, WebGpuBackend};
use super::agreement::{Results, trusted};
use super::{Trial, TuneRequest};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After this no further candidate is tried.
const BUDGET: Duration = Duration::from_secs(4);
/// The same on a software adapter, where it only happens when asked for.
const SOFTWARE_BUDGET: Duration = Duration::from_secs(60);
/// A candidate must be faster by this much: less is noise.
const MARGIN: f64 = 0.03;
const RUNS: usize = 5;
/// How often a variant's results are compared with those of others.
const CHECKS: usize = 3;

/// What was found.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) variant: Variant,
    pub(super) tuning: Tuning,
    /// How long it took.
    pub(super) seconds: f64,
    pub(super) trials: Vec<Trial>,
    /// Variants that were left out, and why: a kernel does not compile, or computes something else.
    pub(super) left_out: Vec<String>,
}

/// What a number is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Product,
    Decode,
    /// No number is judged by it, only the variant.
    Prefill,
}

impl Op {
    const ALL: [Self; 3] = [Self::Product, Self::Decode, Self::Prefill];
}

/// A number of [`Tuning`]: its candidates, and the steps of an op that it matters for.
struct Knob {
    name: &'static str,
    values: &'static [u32],
    op: Op,
    /// Indices into the op's steps.
    steps: &'static [usize],
    number: fn(&mut Tuning) -> &mut u32,
}

/// Rows of the products' steps.
const PRODUCT_ROWS: [u32; 6] = [1, 2, 4, 8, 16, 64];
/// Sequences and tokens of the decodes.
const DECODES: [(u32, u32); 2] = [(1, 2048), (8, 1024)];
/// Tokens of the prefill: in the pool before, and new.
const PREFILL: (u32, u32) = (256, 64);

const KNOBS: [Knob; 5] = [
    Knob {
        name: "matvec_cols",
        values: &[4, 2, 8],
        op: Op::Product,
        steps: &[0, 3],
        number: |tuning| &mut tuning.matvec_cols,
    },
    Knob {
        name: "matvec_rows",
        values: &[8, 4, 2, 1],
        op: Op::Product,
        steps: &[1, 2, 3],
        number: |tuning| &mut tuning.matvec_rows,
    },
    Knob {
        name: "split_workgroups",
        values: &[MOST_SPLIT_WORKGROUPS, 64, 0],
        op: Op::Product,
        steps: &[4, 5],
        number: |tuning| &mut tuning.split_workgroups,
    },
    Knob {
        name: "attention_heads",
        values: &[u32::MAX, 2, 1],
        op: Op::Decode,
        steps: &[0, 1],
        number: |tuning| &mut tuning.attention_heads,
    },
    Knob {
        name: "attention_split",
        values: &[256, 128, 64, 512],
        op: Op::Decode,
        steps: &[0, 1],
        number: |tuning| &mut tuning.attention_split,
    },
];

/// The defaults, and every tuning that differs from them in one number that is tried.
pub fn tuning_candidates() -> Vec<Tuning> {
    let mut all = vec![Tuning::default()];
    for knob in KNOBS {
        for &value in &knob.values[1..] {
            let mut tuning = Tuning::default();
            *(knob.number)(&mut tuning) = value;
            all.push(tuning);
        }
    }
    all
}

/// What suits, and the device to run it on.
pub(super) fn measure(gpu: &Arc<GpuDevice>, request: &TuneRequest) -> Result<(Arc<GpuDevice>, Measured), BackendError> {
    let began = Instant::now();
    let deadline = began + if gpu.summary().is_software { SOFTWARE_BUDGET } else { BUDGET };
    let mut left_out = Vec::new();
    let (mut best, mut first_score, mut trials) = (None, None, Vec::new());
    for mut bench in trusted_benches(gpu, request, &mut left_out)? {
        if best.is_some() && Instant::now() > deadline {
            break;
        }
        let (variant, tuning) = (bench.gpu.variant(), Tuning::by_rule(bench.gpu.variant()));
        let all_steps = |op| bench.steps_of(op);
        let steps = Op::ALL.map(all_steps);
        let mut score = 0.0;
        for (op, steps) in Op::ALL.into_iter().zip(&steps) {
            score += bench.score(op, steps, tuning)?;
        }
        let steps = steps.iter().map(Vec::len).sum::<usize>() as f64;
        let reference = *first_score.get_or_insert(score);
        trials.push(Trial {
            knob: "variant".into(),
            value: variant.to_string(),
            relative_time: ((score - reference) / steps).exp(),
            chosen: false,
        });
        if best.as_ref().is_none_or(|&(best, _)| score < best - MARGIN * steps) {
            best = Some((score, bench));
        }
    }
    let (_, mut bench): (f64, Bench) = best.expect("some variant is trusted");
    let variant = bench.gpu.variant();
    trials.iter_mut().for_each(|trial: &mut Trial| trial.chosen = trial.value == variant.to_string());
    let tuning = bench.turn_knobs(deadline, &mut trials)?;
    let seconds = began.elapsed().as_secs_f64();
    Ok((bench.gpu, Measured { variant, tuning, seconds, trials, left_out }))
}

/// The variant that was asked for, or those that the adapter runs: each on a device of its own, without those that do not
/// compile, and those whose results are not those of the others.
fn trusted_benches(
    gpu: &Arc<GpuDevice>,
    request: &TuneRequest,
    left_out: &mut Vec<String>,
) -> Result<Vec<Bench>, BackendError> {
    if let Some(variant) = request.variant {
        return Ok(vec![Bench::new(gpu.with_kernels(variant, Tuning::by_rule(variant)), request)?]);
    }
    let (mut benches, mut all_results) = (Vec::new(), Vec::new());
    let variants = &gpu.summary().variants;
    for &variant in variants {
        let found = gpu.reopen(variant).and_then(|gpu| Bench::new(gpu, request)).and_then(|mut bench| {
            let results = bench.results()?;
            Ok((bench, results))
        });
        match found {
            Ok((bench, results)) => {
                benches.push(bench);
                all_results.push(results);
            }
            Err(error) if benches.is_empty() && Some(&variant) == variants.last() => return Err(error),
            Err(error) => {
                let error = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
                left_out.push(format!("{variant} kernels left out: {error}"));
            }
        }
    }
    let trusted = trusted(&all_results);
    let mut kept = Vec::new();
    for (bench, is_trusted) in benches.into_iter().zip(trusted) {
        let variant = bench.gpu.variant();
        match is_trusted {
            true => kept.push(bench),
            false => left_out.push(format!(
                "{variant} kernels left out: with this driver they compute something else than the others; `bindery \
                 selftest --variant {variant}` says more, please report it"
            )),
        }
    }
    Ok(kept)
}

/// Products, decodes and a prefill of the model's shape, on one variant.
struct Bench {
    gpu: Arc<GpuDevice>,
    subjects: Vec<(Op, Subject)>,
}

/// A program on a backend of its own.
struct Subject {
    program: BenchProgram,
    backend: WebGpuBackend,
    clock: ProfileClock,
}

impl Bench {
    fn new(gpu: Arc<GpuDevice>, request: &TuneRequest) -> Result<Self, BackendError> {
        let selection = Selection {
            formats: vec![request.format],
            kv_dtype: request.kv_dtype,
            rows: PRODUCT_ROWS.to_vec(),
            decode: DECODES.to_vec(),
            prefill: vec![PREFILL],
            shared: Vec::new(),
            quantize_activations: false,
            // All steps in one program: what a cache holds of it is the same for all candidates.
            cache_bytes: 0,
        };
        let mut subjects = Vec::new();
        for program in programs(&request.shape, &selection) {
            let op = match program.op {
                "matmul" if program.what.starts_with("down, norm, qkv") => Op::Product,
                "decode" => Op::Decode,
                "prefill" => Op::Prefill,
                _ => continue,
            };
            let mut backend = WebGpuBackend::new(gpu.clone());
            let clock = program.prepare(&mut backend)?;
            subjects.push((op, Subject { program, backend, clock }));
        }
        Ok(Self { gpu, subjects })
    }

    /// What comes out of each step of each program, one after the other and a few times: what is a race may go well once.
    fn results(&mut self) -> Result<Results, BackendError> {
        let mut all = Vec::new();
        for (_, Subject { program, backend, .. }) in &mut self.subjects {
            for step in program.steps.iter().cycle().take(CHECKS * program.steps.len()) {
                all.push(program.results(step, backend)?);
            }
        }
        Ok(all)
    }

    /// Indices of all steps of an op, through all its programs.
    fn steps_of(&self, op: Op) -> Vec<usize> {
        let steps = self.subjects.iter().filter(|(of, _)| *of == op).map(|(_, subject)| subject.program.steps.len());
        (0..steps.sum()).collect()
    }

    /// Sum over steps of the logarithm of their times: differences are ratios, and a long step counts no more than a
    /// short one.
    fn score(&mut self, op: Op, steps: &[usize], tuning: Tuning) -> Result<f64, BackendError> {
        let mut score = 0.0;
        let mut first = 0;
        for (_, subject) in self.subjects.iter_mut().filter(|(of, _)| *of == op) {
            let own = first..first + subject.program.steps.len();
            first = own.end;
            let wanted: Vec<usize> =
                steps.iter().filter(|step| own.contains(step)).map(|step| step - own.start).collect();
            if wanted.is_empty() {
                continue;
            }
            subject.backend.set_tuning(tuning);
            subject.program.prepare_again(&mut subject.backend)?;
            for step in wanted {
                score += subject.time(step)?.max(1e-9).ln();
            }
        }
        Ok(score)
    }

    fn turn_knobs(&mut self, deadline: Instant, trials: &mut Vec<Trial>) -> Result<Tuning, BackendError> {
        let mut best = Tuning::by_rule(self.gpu.variant());
        for knob in KNOBS {
            if (knob.op == Op::Product && self.gpu.variant() == Variant::Cpu) || Instant::now() > deadline {
                continue;
            }
            let default_score = self.score(knob.op, knob.steps, best)?;
            let steps = knob.steps.len() as f64;
            let (mut best_score, first) = (default_score, trials.len());
            let mut taken = 0;
            let by_rule = *(knob.number)(&mut best);
            let others = knob.values.iter().copied().filter(|&value| value != by_rule);
            let values: Vec<u32> = [by_rule].into_iter().chain(others).collect();
            for (index, &value) in values.iter().enumerate() {
                let mut tuning = best;
                *(knob.number)(&mut tuning) = value;
                let score = match index {
                    0 => default_score,
                    _ if Instant::now() > deadline => break,
                    _ => self.score(knob.op, knob.steps, tuning)?,
                };
                if score < best_score - MARGIN * steps {
                    (best_score, taken) = (score, index);
                }
                trials.push(Trial {
                    knob: knob.name.into(),
                    value: if value == u32::MAX { "most".into() } else { value.to_string() },
                    relative_time: ((score - default_score) / steps).exp(),
                    chosen: false,
                });
            }
            trials[first + taken].chosen = true;
            *(knob.number)(&mut best) = values[taken];
        }
        Ok(best)
    }
}

impl Subject {
    /// The least time of a few runs, after one that does not count.
    fn time(&mut self, step: usize) -> Result<f64, BackendError> {
        let step = &self.program.steps[step];
        let mut run = || self.program.run(step, self.clock, &mut self.backend as &mut dyn Backend);
        run()?;
        let mut least = f64::INFINITY;
        for _ in 0..RUNS {
            least = least.min(run()?.seconds);
        }
        Ok(least)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Autotune;
    use super::*;
    use crate::backend::kernel_bench::ModelShape;
    use crate::backend::{AttentionShape, KvDtype, WeightFormat};
    use bindery_lockstep::{Gpu, adapter};

    fn request() -> TuneRequest {
        TuneRequest {
            shape: ModelShape {
                name: "tiny".into(),
                hidden: 128,
                intermediate: 1024,
                attention: AttentionShape { num_heads: 4, num_kv_heads: 2, head_dim: 32, scale: 0.2 },
                vocab: 64,
            },
            format: WeightFormat::Q4_1,
            kv_dtype: KvDtype::F16,
            variant: None,
            batch_invariant: false,
            autotune: Autotune::Retune,
        }
    }

    #[test]
    fn every_variant_of_a_right_driver_is_measured() {
        let gpu = GpuDevice::open(Some("llvmpipe"), None).unwrap_or_else(|error| {
            panic!("{error}; `cargo xtask test` installs the adapter: mesa-vulkan-drivers (llvmpipe)")
        });
        let (chosen, measured) = measure(&gpu, &request()).expect("the adapter runs them");
        assert_eq!(measured.left_out, Vec::<String>::new());
        let variants: Vec<&str> =
            measured.trials.iter().filter(|trial| trial.knob == "variant").map(|trial| trial.value.as_str()).collect();
        assert_eq!(variants, gpu.summary().variants.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert!(measured.tuning.is_usable(measured.variant) && chosen.variant() == measured.variant);
    }

    #[test]
    fn wrong_matrices_are_left_out() {
        for wrong_matrices in [false, true] {
            let gpu = Gpu { wrong_matrices, ..Gpu::APPLE };
            let gpu = GpuDevice::open_adapter(adapter(gpu), None).expect("it has what the kernels need");
            let mut left_out = Vec::new();
            let benches = trusted_benches(&gpu, &request(), &mut left_out).expect("the adapter runs them");
            let variants: Vec<Variant> = benches.iter().map(|bench| bench.gpu.variant()).collect();
            if wrong_matrices {
                assert!(left_out.len() == 1 && left_out[0].contains("matrix kernels left out"), "{left_out:?}");
                assert_eq!(variants, [Variant::Subgroup, Variant::Plain]);
            } else {
                assert_eq!(left_out, Vec::<String>::new());
                assert_eq!(variants, [Variant::Matrix, Variant::Subgroup, Variant::Plain]);
            }
        }
    }
}
