//! Cases of products with a norm before them, a gate after them, or both: every format, step sizes around tile edges, and
//! programs in which something forbids to fuse them.

use super::matmul::{F16_TOLERANCE, tolerance};
use super::{
    ActId, CaseData, CaseStep, FORMATS, KernelCase, SplitMix64, StepData, dense_program, logits_by, matrix, tokens_by,
    vector,
};
use crate::backend::{Op, WeightFormat, WeightId};

/// Step sizes in tokens: a decode, the edges of tiles.
const TOKENS: [u32; 6] = [1, 2, 3, 9, 17, 65];

const X: ActId = ActId(0);
const NORMED: ActId = ActId(1);
const OUT: ActId = ActId(2);
const GATED: ActId = ActId(3);

/// What a case computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ops {
    pub(super) norm: bool,
    pub(super) gate: bool,
}

impl Ops {
    pub(super) fn kernel(self) -> &'static str {
        match (self.norm, self.gate) {
            (true, true) => "norm_matmul_silu",
            (true, false) => "norm_matmul",
            (false, true) => "matmul_silu",
            (false, false) => "matmul",
        }
    }

    /// Errors of a product become so many times larger.
    pub(super) fn factor(self) -> f64 {
        match (self.norm, self.gate) {
            (_, true) => 4.0,
            (true, false) => 2.0,
            (false, false) => 1.0,
        }
    }
}

/// Every way to fuse.
pub(super) const EACH: [Ops; 3] =
    [Ops { norm: true, gate: false }, Ops { norm: false, gate: true }, Ops { norm: true, gate: true }];

pub(super) fn cases() -> Vec<KernelCase> {
    use WeightFormat::{Bf16, F16, Q4_1, Q8_0};
    let mut cases = Vec::new();
    for ops in EACH {
        for (format, name) in FORMATS {
            // Gates and ups share groups of interleaved rows, and tiles, in all ways.
            for (cols, rows) in [(96, 72), (64, 16)] {
                let build = move |rng: &mut SplitMix64| data(rng, ops, cols, &[(format, rows)], &TOKENS);
                // One format: software adapters take long to compile what has many sums and barriers.
                let quick = rows == 72 && format == Q4_1;
                cases.push(case(ops, format!("{name}/{rows}x{cols}"), cols, &[format], build).quick_if(quick));
            }
            // The shapes of a small model.
            let rows = if ops.gate { 3072 } else { 960 };
            let build = move |rng: &mut SplitMix64| data(rng, ops, 576, &[(format, rows)], &[1, 3, 33]);
            cases.push(case(ops, format!("{name}/{rows}x576"), 576, &[format], build));
        }
        // Gate and up, or q, k and v, of different formats.
        let parts = [(Q4_1, 20), (Q8_0, 13), (F16, 1), (Bf16, 30)];
        let build = move |rng: &mut SplitMix64| data(rng, ops, 96, &parts, &TOKENS);
        cases.push(case(ops, "four formats".to_owned(), 96, &parts.map(|(format, _)| format), build).quick_if(true));
    }
    cases.extend(unusual());
    cases.extend(after_long_rows());
    cases
}

fn case(
    ops: Ops,
    name: String,
    cols: u32,
    formats: &[WeightFormat],
    build: impl Fn(&mut SplitMix64) -> CaseData + Send + Sync + 'static,
) -> KernelCase {
    let case = KernelCase::new(ops.kernel(), name, ops.factor() * tolerance(cols), build);
    case.with_products(ops.factor() * F16_TOLERANCE, formats)
}

/// A product of long rows onto what the next one normalises, which backends may split along the rows: around the numbers of
/// tokens from which, and up to which, they do.
fn after_long_rows() -> Vec<KernelCase> {
    let formats = [(WeightFormat::Q4_1, true), (WeightFormat::F16, false)];
    let build = |(ops, (format, quick)): (Ops, (WeightFormat, bool))| {
        let name = format!("after long rows/{}", format.name());
        let case =
            KernelCase::new(ops.kernel(), name, ops.factor() * tolerance(LONG), move |rng| long_rows(rng, ops, format));
        case.with_products(2.0 * ops.factor() * F16_TOLERANCE, &[format]).quick_if(quick)
    };
    let [norm, _, both] = EACH;
    [norm, both].into_iter().flat_map(|ops| formats.map(|format| (ops, format))).map(build).collect()
}

/// Columns of long rows: blocks that do not go evenly into splits.
const LONG: u32 = 32 * 70;

fn long_rows(rng: &mut SplitMix64, ops: Ops, format: WeightFormat) -> CaseData {
    const LONG_X: ActId = ActId(4);
    const HIDDEN: u32 = 96;
    let rows = 144;
    let weights = vec![
        matrix(rng, "weight", HIDDEN as usize, &[(format, rows as usize)]),
        norm_weight(rng, HIDDEN),
        matrix(rng, "long", LONG as usize, &[(format, HIDDEN as usize)]),
    ];
    let long = Op::MatMul { x: LONG_X, weight: WeightId(2), bias: None, out: X, accumulate: true };
    let gate = ops.gate.then_some(Op::SiluMul { gate_up: OUT, out: GATED });
    let activations = vec![
        tokens_by("x", HIDDEN),
        tokens_by("normed", HIDDEN),
        tokens_by("out", rows),
        tokens_by("gated", rows / 2),
        tokens_by("long x", LONG),
    ];
    let (program, kv) = dense_program(activations, [long, RMS_NORM, product(NORMED, OUT)].into_iter().chain(gate));
    let steps = [1, 8, 9, 16, 33, 64, 65].map(|tokens| {
        let step = CaseStep::new(StepData::of_tokens(tokens)).input(X, x(rng, tokens, HIDDEN));
        let step = step.input(LONG_X, rng.values((tokens * LONG) as usize, 1.0));
        step.output(X).output(if ops.gate { GATED } else { OUT })
    });
    CaseData { weights, program, kv, steps: steps.into() }
}

/// A bias, a residual, logits rows, and outputs that others read too.
fn unusual() -> Vec<KernelCase> {
    use WeightFormat::{Q4_1, Q8_0};
    let [norm, gate, both] = EACH;
    vec![
        case(norm, "bias+accumulate".to_owned(), 96, &[Q8_0], |rng| with_epilogue(rng, true, OUT)).quick_if(true),
        case(norm, "onto its own input".to_owned(), 96, &[Q8_0], |rng| with_epilogue(rng, false, X)).quick_if(true),
        case(norm, "logits rows".to_owned(), 96, &[Q8_0], logits_rows).quick_if(true),
        case(norm, "normed twice read".to_owned(), 96, &[Q4_1], move |rng| read_twice(rng, norm)).quick_if(true),
        case(gate, "products read again".to_owned(), 96, &[Q4_1], move |rng| read_twice(rng, gate)).quick_if(true),
        case(both, "products read again".to_owned(), 96, &[Q4_1], move |rng| read_twice(rng, both)).quick_if(true),
    ]
}

fn norm_weight(rng: &mut SplitMix64, cols: u32) -> super::HostWeight<'static> {
    let values: Vec<f32> = (0..cols).map(|_| 1.0 + rng.uniform(0.5)).collect();
    vector("norm", &values)
}

/// Rows of x of different size, so that each needs a scale of its own; one of zeros, one for which eps matters.
fn x(rng: &mut SplitMix64, tokens: u32, cols: u32) -> Vec<f32> {
    let mut x = rng.values((tokens * cols) as usize, 1.0);
    for (row, factor) in x.chunks_exact_mut(cols as usize).zip([2.0, 0.0, 1e-3, 0.5, 9.0].into_iter().cycle()) {
        row.iter_mut().for_each(|x| *x *= factor);
    }
    x
}

const RMS_NORM: Op = Op::RmsNorm { x: X, weight: WeightId(1), eps: 1e-5, out: NORMED };

fn product(x: ActId, out: ActId) -> Op {
    Op::MatMul { x, weight: WeightId(0), bias: None, out, accumulate: false }
}

fn data(rng: &mut SplitMix64, ops: Ops, cols: u32, parts: &[(WeightFormat, usize)], tokens: &[u32]) -> CaseData {
    let weight = matrix(rng, "weight", cols as usize, parts);
    let rows = weight.rows() as u32;
    let weights = vec![weight, norm_weight(rng, cols)];
    let input = if ops.norm { NORMED } else { X };
    let chain = ops.norm.then_some(RMS_NORM).into_iter().chain([product(input, OUT)]);
    let chain = chain.chain(ops.gate.then_some(Op::SiluMul { gate_up: OUT, out: GATED }));
    let activations =
        vec![tokens_by("x", cols), tokens_by("normed", cols), tokens_by("out", rows), tokens_by("gated", rows / 2)];
    let (program, kv) = dense_program(activations, chain);
    let output = if ops.gate { GATED } else { OUT };
    // Without a norm, inputs of order 1.
    let mut input = |tokens: u32| match ops.norm {
        true => x(rng, tokens, cols),
        false => rng.values((tokens * cols) as usize, 1.0),
    };
    let steps = tokens.iter().map(|&tokens| CaseStep::new(StepData::of_tokens(tokens)).input(X, input(tokens)));
    let steps = steps.map(|step| step.output(output)).collect();
    CaseData { weights, program, kv, steps }
}

/// A product with a bias, or one added to `out`; not both where that is x, since a bias would hide a small row.
fn with_epilogue(rng: &mut SplitMix64, has_bias: bool, out: ActId) -> CaseData {
    let (cols, rows) = (96, 96);
    let parts = [(WeightFormat::Q8_0, rows as usize)];
    let weights = vec![
        matrix(rng, "weight", cols as usize, &parts),
        norm_weight(rng, cols),
        vector("bias", &rng.values(rows as usize, 1.0)),
    ];
    let bias = has_bias.then_some(WeightId(2));
    let op = Op::MatMul { x: NORMED, weight: WeightId(0), bias, out, accumulate: true };
    let activations = vec![tokens_by("x", cols), tokens_by("normed", cols), tokens_by("out", rows)];
    let (program, kv) = dense_program(activations, [RMS_NORM, op]);
    let steps = [1, 3, 17, 65].map(|tokens| {
        let step = CaseStep::new(StepData::of_tokens(tokens)).input(X, x(rng, tokens, cols)).output(out);
        if out == X { step } else { step.input(out, rng.values((tokens * rows) as usize, 1.0)) }
    });
    CaseData { weights, program, kv, steps: steps.into() }
}

/// As at the end of a model: the last norm and the output head see the logits rows only.
fn logits_rows(rng: &mut SplitMix64) -> CaseData {
    let (cols, rows) = (96, 131);
    let weights = vec![matrix(rng, "weight", 96, &[(WeightFormat::Q8_0, 131)]), norm_weight(rng, cols)];
    let activations = vec![logits_by("x", cols), logits_by("normed", cols), logits_by("out", rows)];
    let (program, kv) = dense_program(activations, [RMS_NORM, product(NORMED, OUT)]);
    let steps = [vec![32], vec![0, 6, 7, 20, 32], vec![4], Vec::new()].map(|indices: Vec<u32>| {
        let tokens = indices.last().map_or(3, |last| last + 1);
        let x = x(rng, indices.len() as u32, cols);
        CaseStep::new(StepData { logits_indices: indices, ..StepData::of_tokens(tokens) }).input(X, x).output(OUT)
    });
    CaseData { weights, program, kv, steps: steps.into() }
}

/// What the norm, or the product, leaves behind is read once more.
fn read_twice(rng: &mut SplitMix64, ops: Ops) -> CaseData {
    let (cols, rows) = (96, 192);
    let weights = vec![matrix(rng, "weight", 96, &[(WeightFormat::Q4_1, 192)]), norm_weight(rng, cols)];
    let again = ActId(4);
    let (program_ops, cols_again) = match ops.gate {
        false => (vec![RMS_NORM, product(NORMED, OUT), product(NORMED, again)], rows),
        true => {
            let mut chain = if ops.norm { vec![RMS_NORM] } else { Vec::new() };
            let input = if ops.norm { NORMED } else { X };
            let silu = |out| Op::SiluMul { gate_up: OUT, out };
            chain.extend([product(input, OUT), silu(GATED), silu(again)]);
            (chain, rows / 2)
        }
    };
    let activations = vec![
        tokens_by("x", cols),
        tokens_by("normed", cols),
        tokens_by("out", rows),
        tokens_by("gated", rows / 2),
        tokens_by("again", cols_again),
    ];
    let (program, kv) = dense_program(activations, program_ops);
    let first = if ops.gate { GATED } else { OUT };
    let steps = [1, 9].map(|tokens| {
        let x = if ops.norm { x(rng, tokens, cols) } else { rng.values((tokens * cols) as usize, 1.0) };
        CaseStep::new(StepData::of_tokens(tokens)).input(X, x).output(first).output(again)
    });
    CaseData { weights, program, kv, steps: steps.into() }
}
