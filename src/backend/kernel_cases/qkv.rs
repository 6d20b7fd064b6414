//! Cases of the product that makes q, k and v with rope_and_cache after it, and a norm before it or not: every format, heads
//! of several sizes, and programs in which something forbids to fuse them.

use super::matmul::{F16_TOLERANCE, tolerance};
use super::step_data::scatter;
use super::{
    ActId, CaseData, CaseStep, FORMATS, KernelCase, SeqPlan, SplitMix64, StepData, kv_layout, matrix, rope_table,
    tokens_by, vector,
};
use crate::backend::{AttentionShape, KvDtype, Op, Program, RopePairing, WeightFormat, WeightId};

const X: ActId = ActId(0);
const NORMED: ActId = ActId(1);
const QKV: ActId = ActId(2);
const Q: ActId = ActId(3);

/// What a case computes.
#[derive(Clone)]
struct Shape {
    cols: u32,
    /// Query heads, key heads, elements of a head.
    heads: (u32, u32, u32),
    /// As many rows as q, k and v have elements.
    parts: Vec<(WeightFormat, usize)>,
    norm: bool,
    bias: bool,
    pairing: RopePairing,
    dtype: KvDtype,
    /// Whether the sums are compared too, so that they must be kept.
    reads_sums: bool,
}

impl Shape {
    fn case(self, name: &str) -> KernelCase {
        let (kernel, factor) = if self.norm { ("norm_matmul_rope", 4.0) } else { ("matmul_rope", 2.0) };
        let (h, kv, d) = self.heads;
        let pairing = match self.pairing {
            RopePairing::Halves => "halves",
            RopePairing::Interleaved => "interleaved",
        };
        let name = format!("{name}/{h}:{kv}x{d}/{pairing}/{}", self.dtype.name());
        let formats: Vec<WeightFormat> = self.parts.iter().map(|&(format, _)| format).collect();
        let (errors, dtype) = (factor * tolerance(self.cols), self.dtype);
        let case = KernelCase::new(kernel, name, errors, move |rng| data(rng, &self)).with_kv(dtype);
        case.with_products(factor * F16_TOLERANCE, &formats)
    }
}

/// Elements of q, k and v of a token.
fn qkv_len((num_heads, num_kv_heads, head_dim): (u32, u32, u32)) -> u32 {
    (num_heads + 2 * num_kv_heads) * head_dim
}

pub(super) fn cases() -> Vec<KernelCase> {
    use RopePairing::{Halves, Interleaved};
    let mut cases = Vec::new();
    let shape = |format, cols, heads, pairing, dtype| Shape {
        cols,
        heads,
        parts: vec![(format, qkv_len(heads) as usize)],
        norm: true,
        bias: false,
        pairing,
        dtype,
        reads_sums: false,
    };
    for (index, (format, name)) in FORMATS.into_iter().enumerate() {
        for (pairing, norm) in [(Halves, true), (Interleaved, false)] {
            // Every format meets both element types.
            let dtype = if (index % 2 == 0) == norm { KvDtype::F16 } else { KvDtype::F32 };
            let small = Shape { norm, ..shape(format, 96, (4, 1, 80), pairing, dtype) };
            cases.push(small.case(name).quick_if(format == WeightFormat::Q4_1 || format == WeightFormat::F16));
        }
    }
    // The shapes of a small model.
    for (pairing, dtype) in [(Halves, KvDtype::F16), (Interleaved, KvDtype::F32)] {
        cases.push(shape(WeightFormat::Q4_1, 576, (9, 3, 64), pairing, dtype).case("q4_1"));
    }
    let of_heads = |heads| shape(WeightFormat::Q8_0, 64, heads, Halves, KvDtype::F16);
    for heads in [(6, 3, 16), (3, 3, 48), (2, 1, 256)] {
        cases.push(of_heads(heads).case("q8_0").quick_if(heads.2 == 16));
        cases.push(Shape { pairing: Interleaved, dtype: KvDtype::F32, ..of_heads(heads) }.case("q8_0"));
    }
    let plain = of_heads((6, 3, 16));
    let mixed = vec![(WeightFormat::Q4_1, 96), (WeightFormat::Q4_1, 48), (WeightFormat::Q8_0, 48)];
    // The second begins within a head.
    let uneven = vec![(WeightFormat::Q4_1, 100), (WeightFormat::Q8_0, 92)];
    cases.extend([
        Shape { bias: true, ..plain.clone() }.case("q8_0+bias").quick_if(true),
        Shape { bias: true, norm: false, pairing: Interleaved, ..plain.clone() }.case("q8_0+bias"),
        Shape { parts: mixed.clone(), bias: true, ..plain.clone() }.case("q4_1+q4_1+q8_0+bias").quick_if(true),
        Shape { parts: mixed, norm: false, pairing: Interleaved, ..plain.clone() }.case("q4_1+q4_1+q8_0"),
        Shape { parts: uneven, ..plain.clone() }.case("q4_1+q8_0").quick_if(true),
        Shape { reads_sums: true, ..plain }.case("q8_0, sums read again").quick_if(true),
    ]);
    cases
}

/// A mixed step, then smaller ones around the edges of tiles. The pool is NaN at first, and must be NaN afterwards wherever
/// no token went.
fn data(rng: &mut SplitMix64, shape: &Shape) -> CaseData {
    let (num_heads, num_kv_heads, head_dim) = shape.heads;
    let heads = AttentionShape { num_heads, num_kv_heads, head_dim, scale: 1.0 };
    let (seqs, num_blocks) = scatter(rng, &[(0, 7), (250, 1), (30, 19), (15, 1)]);
    let rows = qkv_len(shape.heads);
    let norm: Vec<f32> = (0..shape.cols).map(|_| 1.0 + rng.uniform(0.5)).collect();
    let weights = vec![
        matrix(rng, "qkv", shape.cols as usize, &shape.parts),
        vector("norm", &norm),
        vector("bias", &rng.values(rows as usize, 1.0)),
    ];
    let rms_norm = Op::RmsNorm { x: X, weight: WeightId(1), eps: 1e-5, out: NORMED };
    let x = if shape.norm { NORMED } else { X };
    let bias = shape.bias.then_some(WeightId(2));
    let product = Op::MatMul { x, weight: WeightId(0), bias, out: QKV, accumulate: false };
    let rope = Op::RopeAndCache { layer: 1, qkv: QKV, q: Q, pairing: shape.pairing, norm: None };
    let again = Op::RopeAndCache { layer: 0, qkv: QKV, q: Q, pairing: shape.pairing, norm: None };
    let ops = shape.norm.then_some(rms_norm).into_iter().chain([product, rope]);
    let ops = ops.chain(shape.reads_sums.then_some(again)).collect();
    let activations = vec![
        tokens_by("x", shape.cols),
        tokens_by("normed", shape.cols),
        tokens_by("qkv", rows),
        tokens_by("q", num_heads * head_dim),
    ];
    let program = Program { activations, ops, attention: heads, rope: rope_table(300, head_dim), logits: None };

    let next = |seq: usize, context_len, query_len| SeqPlan { context_len, query_len, table: seqs[seq].table.clone() };
    let plans = [
        seqs.clone(),
        vec![next(1, 251, 1)],
        vec![next(0, 7, 1), next(1, 252, 2)],
        vec![next(0, 8, 8), next(1, 254, 1)],
    ];
    let steps = plans.map(|seqs| {
        let data = StepData::new(&seqs);
        let x = rng.values(data.token_ids.len() * shape.cols as usize, 1.0);
        CaseStep { compare_kv: true, ..CaseStep::new(data).input(X, x).output(Q) }
    });
    CaseData { weights, program, kv: kv_layout(&heads, 2, num_blocks, shape.dtype), steps: steps.into() }
}
