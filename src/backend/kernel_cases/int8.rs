//! Cases of products whose inputs int8 holds exactly: rounding activations to it ([`super::KernelCase::quantize_activations`])
//! changes nothing, so the tolerance is that of f32 sums, and a wrong step, word or minimum shows.

use super::fused::{EACH, Ops};
use super::matmul::{F16_TOLERANCE, tolerance};
use super::{ActId, CaseData, CaseStep, KernelCase, SplitMix64, StepData, dense_program, matrix, tokens_by, vector};
use crate::backend::{Op, WeightFormat, WeightId};

/// Step sizes in tokens: those that every variant has kernels of int8 for.
const TOKENS: [u32; 6] = [1, 2, 3, 4, 7, 8];

const X: ActId = ActId(0);
const NORMED: ActId = ActId(1);
const OUT: ActId = ActId(2);
const GATED: ActId = ActId(3);

pub(super) fn cases() -> Vec<KernelCase> {
    use WeightFormat::{Q4_0, Q4_1, Q8_0};
    let none = Ops { norm: false, gate: false };
    let mut cases = Vec::new();
    for (format, name) in [(Q8_0, "q8_0"), (Q4_0, "q4_0"), (Q4_1, "q4_1")] {
        for ops in [none].into_iter().chain(EACH) {
            // In the second, more blocks than a workgroup has invocations.
            for (cols, rows) in [(96, 72), (4160, 24)] {
                let build = move |rng: &mut SplitMix64| data(rng, ops, cols, format, rows);
                let name = format!("{name}/{rows}x{cols}, exact in int8");
                let errors = ops.factor() * tolerance(cols);
                let case = KernelCase::new(ops.kernel(), name, errors, build);
                let case = case.with_products(ops.factor() * F16_TOLERANCE, &[format]);
                let case = KernelCase { int8_tolerance: Some(errors), ..case };
                // One format of each layout in all ways, as for other fused products.
                cases.push(case.quick_if(format == Q4_1 || ops == none));
            }
        }
    }
    cases
}

/// `[tokens][cols]`: in each block of 32 a power of two times integers, the largest of them 127 or -127.
fn x(rng: &mut SplitMix64, tokens: u32, cols: u32) -> Vec<f32> {
    let mut x = Vec::with_capacity((tokens * cols) as usize);
    for _ in 0..tokens * cols / 32 {
        let step = 2f32.powi(-(rng.below(3) as i32) - 6);
        let largest = rng.below(32);
        let mut integer =
            |i: u32| if i == largest { 127 - 254 * rng.below(2) as i32 } else { rng.below(255) as i32 - 127 };
        x.extend((0..32).map(|i| step * integer(i) as f32));
    }
    x
}

/// One number for each block of 32, so that a block is still as many steps as before the norm.
fn norm_weight(rng: &mut SplitMix64, cols: u32) -> super::HostWeight<'static> {
    let values: Vec<f32> = (0..cols / 32).flat_map(|_| [1.0 + rng.uniform(0.5); 32]).collect();
    vector("norm", &values)
}

fn data(rng: &mut SplitMix64, ops: Ops, cols: u32, format: WeightFormat, rows: u32) -> CaseData {
    let weights = vec![matrix(rng, "weight", cols as usize, &[(format, rows as usize)]), norm_weight(rng, cols)];
    let norm = Op::RmsNorm { x: X, weight: WeightId(1), eps: 1e-5, out: NORMED };
    let input = if ops.norm { NORMED } else { X };
    let product = Op::MatMul { x: input, weight: WeightId(0), bias: None, out: OUT, accumulate: false };
    let gate = Op::SiluMul { gate_up: OUT, out: GATED };
    let chain = ops.norm.then_some(norm).into_iter().chain([product]).chain(ops.gate.then_some(gate));
    let activations =
        vec![tokens_by("x", cols), tokens_by("normed", cols), tokens_by("out", rows), tokens_by("gated", rows / 2)];
    let (program, kv) = dense_program(activations, chain);
    let output = if ops.gate { GATED } else { OUT };
    let step = |&tokens: &u32| CaseStep::new(StepData::of_tokens(tokens)).input(X, x(rng, tokens, cols)).output(output);
    let steps = TOKENS.iter().map(step).collect();
    CaseData { weights, program, kv, steps }
}
