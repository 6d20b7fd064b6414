//! Cases of the matmul: every format, step sizes around tile edges, fused weights, bias, residual.

use super::{
    CaseData, CaseStep, FORMATS, KernelCase, OUT, SplitMix64, StepData, X, dense_program, matrix, tokens_by, vector,
};
use crate::backend::{Op, WeightFormat, WeightId};

/// Step sizes in tokens: a decode, the edges of tiles of 4, 8, 16, 32 and 64.
const TOKENS: [u32; 14] = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 32, 33, 64, 70];

/// What a case multiplies.
#[derive(Clone)]
struct Shape {
    cols: u32,
    parts: Vec<(WeightFormat, usize)>,
    bias: bool,
    accumulate: bool,
    tokens: Vec<u32>,
}

pub(super) fn cases() -> Vec<KernelCase> {
    let mut cases = Vec::new();
    for (index, (format, name)) in FORMATS.into_iter().enumerate() {
        for (cols, rows) in [(64, 8), (96, 37)] {
            let shape = plain(cols, &[(format, rows)], &TOKENS);
            cases.push(case(format!("{name}/{rows}x{cols}"), shape).quick_if(rows == 37));
        }
        // More than one of the widest tiles in both directions.
        cases.push(case(format!("{name}/150x64"), plain(64, &[(format, 150)], &[70])).quick_if(true));
        // The shapes of a small model; every shape meets every step size in some format, and every format does.
        for (shape_index, (cols, rows)) in [(576, 960), (576, 3072), (1536, 576)].into_iter().enumerate() {
            let chosen = |&(i, &tokens): &(usize, &u32)| tokens == 1 || (i + index + shape_index) % 3 == 0;
            let tokens: Vec<u32> = TOKENS.iter().enumerate().filter(chosen).map(|(_, &tokens)| tokens).collect();
            cases.push(case(format!("{name}/{rows}x{cols}"), plain(cols, &[(format, rows)], &tokens)));
        }
        let shape = Shape { bias: true, accumulate: true, ..plain(96, &[(format, 70)], &[1, 3, 17, 33]) };
        cases.push(case(format!("{name}/70x96+bias+accumulate"), shape));
    }
    cases.extend(fused());
    // 129 MiB: more than the smallest binding that WebGPU promises.
    let mut large = case("f16/33000x2048".to_owned(), plain(2048, &[(WeightFormat::F16, 33_000)], &[1, 3]));
    large.large = true;
    cases.push(large);
    cases
}

/// Weights of several parts, and the epilogues one by one.
fn fused() -> Vec<KernelCase> {
    use WeightFormat::{Bf16, F16, F32, Q4_0, Q4_1, Q8_0};
    let tokens = [1, 2, 3, 9, 17, 33];
    let qkv = plain(576, &[(Q4_1, 576), (Q4_1, 192), (Q8_0, 192)], &tokens);
    // Part boundaries inside any tile, one part of a single row.
    let odd = plain(96, &[(F16, 5), (Q4_0, 7), (Bf16, 1), (Q8_0, 24), (F32, 3)], &tokens);
    let small = plain(64, &[(Q8_0, 40)], &tokens);
    vec![
        case("qkv of q4_1+q4_1+q8_0".to_owned(), qkv),
        case("five formats".to_owned(), odd.clone()).quick_if(true),
        case("five formats+bias+accumulate".to_owned(), Shape { bias: true, accumulate: true, ..odd }),
        case("q8_0+bias".to_owned(), Shape { bias: true, ..small.clone() }).quick_if(true),
        case("q8_0+accumulate".to_owned(), Shape { accumulate: true, ..small }).quick_if(true),
    ]
}

fn plain(cols: u32, parts: &[(WeightFormat, usize)], tokens: &[u32]) -> Shape {
    Shape { cols, parts: parts.to_vec(), bias: false, accumulate: false, tokens: tokens.to_vec() }
}

/// Largest error of a product whose inputs are rounded to f16.
pub(super) const F16_TOLERANCE: f64 = 4e-3;

/// Largest error of a product over this many columns.
pub(super) fn tolerance(cols: u32) -> f64 {
    1e-5 * (f64::from(cols) / 256.0).sqrt().max(1.0)
}

fn case(name: String, shape: Shape) -> KernelCase {
    let formats: Vec<WeightFormat> = shape.parts.iter().map(|&(format, _)| format).collect();
    let case = KernelCase::new("matmul", name, tolerance(shape.cols), move |rng: &mut SplitMix64| data(rng, &shape));
    case.with_products(F16_TOLERANCE, &formats)
}

fn data(rng: &mut SplitMix64, shape: &Shape) -> CaseData {
    let Shape { cols, accumulate, .. } = *shape;
    let weight = matrix(rng, "weight", cols as usize, &shape.parts);
    let rows = weight.rows() as u32;
    let mut weights = vec![weight];
    if shape.bias {
        weights.push(vector("bias", &rng.values(rows as usize, 1.0)));
    }
    let bias = shape.bias.then_some(WeightId(1));
    let op = Op::MatMul { x: X, weight: WeightId(0), bias, out: OUT, accumulate };
    let (program, kv) = dense_program(vec![tokens_by("x", cols), tokens_by("out", rows)], Some(op));
    let step = |&tokens: &u32| {
        let x = rng.values((tokens * cols) as usize, 1.0);
        let step = CaseStep::new(StepData::of_tokens(tokens)).input(X, x).output(OUT);
        if accumulate { step.input(OUT, rng.values((tokens * rows) as usize, 1.0)) } else { step }
    };
    let steps = shape.tokens.iter().map(step).collect();
    CaseData { weights, program, kv, steps }
}
