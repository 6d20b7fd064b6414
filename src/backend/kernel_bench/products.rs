//! Programs of matrix products, alone and with what a model has around them.

use super::super::kernel_cases::{BLOCK_SIZE, StepData};
use super::super::{ActId, Op, RopePairing, StepLimits, WeightFormat, WeightId};
use super::parts::{IN, OUT, Parts, copies_for, kv_layout, rope_table, tokens_by};
use super::{BenchProgram, BenchStep, BenchWeight, ModelShape, Selection};

/// With more rows than this a product computes more than it waits for memory: one copy of it suffices.
const FEW_ROWS: u32 = 8;

/// Every program of a model's products.
pub(super) fn product_programs(shape: &ModelShape, selection: &Selection) -> Vec<BenchProgram> {
    let mut programs = Vec::new();
    for matrix @ (name, ..) in shape.matrices() {
        let around: &[Around] = match name {
            "qkv" => &[Around::NormAndRope, Around::DownNormAndRope],
            "gate and up" => &[Around::NormAndGate],
            _ => &[],
        };
        for &format in &selection.formats {
            for &around in [Around::Nothing].iter().chain(around) {
                programs.extend(programs_of(shape, selection, matrix, around, format));
            }
        }
    }
    programs
}

/// What a matrix product is measured with, as a model has it around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Around {
    Nothing,
    /// A norm before it, and RoPE with the cache write after it.
    NormAndRope,
    /// The same, and before that the product of the layer before, which is added to the residual stream: it may be split.
    DownNormAndRope,
    /// A norm before it, and the gate after it.
    NormAndGate,
}

/// The weights of a copy: the product's own, that of the product before it, if there is one, and that of the norm between.
struct Weights {
    own: WeightId,
    down: WeightId,
    norm: WeightId,
}

impl Around {
    fn describe(self, matrix: &str) -> String {
        match self {
            Self::Nothing => matrix.to_owned(),
            Self::NormAndRope => format!("norm, {matrix}, rope"),
            Self::DownNormAndRope => format!("down, norm, {matrix}, rope"),
            Self::NormAndGate => format!("norm, {matrix}, silu"),
        }
    }

    /// Columns of what comes out of it.
    fn out_cols(self, shape: &ModelShape, rows: u32) -> u32 {
        match self {
            Self::Nothing => rows,
            Self::NormAndRope | Self::DownNormAndRope => shape.attention.num_heads * shape.attention.head_dim,
            Self::NormAndGate => rows / 2,
        }
    }

    /// The ops of a copy.
    fn ops(self, weights: &Weights) -> Vec<Op> {
        let (normed, sums, residual) = (ActId(2), ActId(3), ActId(4));
        let product = |x, out| Op::MatMul { x, weight: weights.own, bias: None, out, accumulate: false };
        let norm = |x| Op::RmsNorm { x, weight: weights.norm, eps: 1e-5, out: normed };
        let rope = Op::RopeAndCache { layer: 0, qkv: sums, q: OUT, pairing: RopePairing::Halves, norm: None };
        match self {
            Self::Nothing => vec![product(IN, OUT)],
            Self::NormAndRope => vec![norm(IN), product(normed, sums), rope],
            Self::DownNormAndRope => {
                let down = Op::MatMul { x: IN, weight: weights.down, bias: None, out: residual, accumulate: true };
                vec![down, norm(residual), product(normed, sums), rope]
            }
            Self::NormAndGate => vec![norm(IN), product(normed, sums), Op::SiluMul { gate_up: sums, out: OUT }],
        }
    }
}

/// Few rows and many rows of one matrix product: two programs, unless both need one copy.
fn programs_of(
    shape: &ModelShape,
    selection: &Selection,
    (name, rows, cols): (&str, u32, u32),
    around: Around,
    format: WeightFormat,
) -> Vec<BenchProgram> {
    let mut matrices = vec![(rows, cols)];
    let (mut in_cols, out_cols) = (cols, around.out_cols(shape, rows));
    // Elements of other activations that must move for each token.
    let mut moved = 0;
    if around == Around::DownNormAndRope {
        matrices.push((cols, shape.intermediate));
        (in_cols, moved) = (shape.intermediate, 2 * cols);
    }
    let bytes_of = |&(rows, cols): &(u32, u32)| Some(format.row_bytes(cols as usize)? as u64 * u64::from(rows));
    let Some(weight_bytes) = matrices.iter().map(bytes_of).sum::<Option<u64>>() else { return Vec::new() };
    let elements: u64 = matrices.iter().map(|&(rows, cols)| u64::from(rows) * u64::from(cols)).sum();
    let norm_at = matrices.len() as u32;
    let weight = |format, rows: u32, cols: u32| BenchWeight { format, rows: rows as usize, cols: cols as usize };
    let mut weights: Vec<BenchWeight> = matrices.iter().map(|&(rows, cols)| weight(format, rows, cols)).collect();
    let mut activations = vec![tokens_by("x", in_cols), tokens_by("out", out_cols)];
    if around != Around::Nothing {
        weights.push(weight(WeightFormat::F32, 1, cols));
        activations.extend([tokens_by("normed", cols), tokens_by("sums", rows)]);
    }
    if around == Around::DownNormAndRope {
        activations.push(tokens_by("residual", cols));
    }

    let fits = |tokens: &&u32| name != "logits" || **tokens <= Selection::MAX_LOGITS_ROWS;
    let (few, many): (Vec<u32>, Vec<u32>) = selection.rows.iter().filter(fits).partition(|&&tokens| tokens <= FEW_ROWS);
    let copies = copies_for(weight_bytes, selection.cache_bytes);
    let groups = if copies == 1 { vec![(1, [few, many].concat())] } else { vec![(copies, few), (1, many)] };
    let program = |(copies, all_tokens): (u32, Vec<u32>)| {
        let step = |&tokens: &u32| BenchStep {
            label: tokens.to_string(),
            bytes: weight_bytes + 4 * u64::from(tokens) * u64::from(in_cols + moved + out_cols),
            flops: 2 * u64::from(tokens) * elements,
            data: StepData::of_tokens(tokens),
        };
        let steps: Vec<BenchStep> = all_tokens.iter().map(step).collect();
        let most_tokens = all_tokens.iter().max().map_or(1, |&most| most);
        let parts = Parts {
            op: "matmul",
            what: format!("{} {rows}x{cols} {}", around.describe(name), format.name()),
            activations: activations.clone(),
            weights: weights.clone(),
            copies,
            kv: kv_layout(&shape.attention, 1, most_tokens.div_ceil(BLOCK_SIZE), selection.kv_dtype),
        };
        let of_copy = |copy: u32| {
            let [own, down, norm] = [0, 1, norm_at].map(|weight| WeightId(weight * copies + copy));
            around.ops(&Weights { own, down, norm })
        };
        let program = parts.program(shape, of_copy, rope_table(&shape.attention, most_tokens), None, steps);
        BenchProgram {
            limits: StepLimits { quantize_activations: selection.quantize_activations, ..program.limits },
            ..program
        }
    };
    groups.into_iter().filter(|(_, tokens)| !tokens.is_empty()).map(program).collect()
}
