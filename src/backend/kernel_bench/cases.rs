//! Which programs there are.

use super::super::kernel_cases::{BLOCK_SIZE, SeqPlan, SplitMix64, StepData};
use super::super::{ActId, Op, RopePairing, RopeTable, StepLimits, WeightFormat, WeightId};
use super::parts::{IN, OUT, Parts, kv_layout, rope_table, tokens_by};
use super::row_ops::RowOps;
use super::{BenchProgram, BenchStep, BenchWeight, ModelShape, Selection};

/// With more rows than this an op computes more than it waits for memory: one copy of it suffices.
const FEW_ROWS: u32 = 8;
const MAX_COPIES: u64 = 64;

/// Every program of a model's shapes.
pub fn programs(shape: &ModelShape, selection: &Selection) -> Vec<BenchProgram> {
    let mut programs = Vec::new();
    for matrix @ (name, ..) in shape.matrices() {
        let around = match name {
            "qkv" => Some(Around::NormAndRope),
            "gate and up" => Some(Around::NormAndGate),
            _ => None,
        };
        for &format in &selection.formats {
            for around in [Some(Around::Nothing), around].into_iter().flatten() {
                programs.extend(matmuls(shape, selection, matrix, around, format));
            }
        }
    }
    for &decode in &selection.decode {
        programs.push(decode_attention(shape, selection, decode));
    }
    for &prefill in &selection.prefill {
        programs.push(prefill_attention(shape, selection, prefill));
    }
    for &shared in &selection.shared {
        programs.push(shared_attention(shape, selection, shared));
    }
    programs.extend(RowOps::new(shape, selection).programs());
    programs
}

fn copies_for(bytes: u64, cache_bytes: u64) -> u32 {
    cache_bytes.div_ceil(bytes.max(1)).clamp(1, MAX_COPIES) as u32
}

/// What a matrix product is measured with, as a model has it around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Around {
    Nothing,
    /// A norm before it, and RoPE with the cache write after it.
    NormAndRope,
    /// A norm before it, and the gate after it.
    NormAndGate,
}

impl Around {
    fn describe(self, matrix: &str) -> String {
        match self {
            Self::Nothing => matrix.to_owned(),
            Self::NormAndRope => format!("norm, {matrix}, rope"),
            Self::NormAndGate => format!("norm, {matrix}, silu"),
        }
    }

    /// Columns of what comes out of it.
    fn out_cols(self, shape: &ModelShape, rows: u32) -> u32 {
        match self {
            Self::Nothing => rows,
            Self::NormAndRope => shape.attention.num_heads * shape.attention.head_dim,
            Self::NormAndGate => rows / 2,
        }
    }

    /// The ops of a copy, whose matrix is followed by its norm's weight.
    fn ops(self, matrix: WeightId, norm: WeightId) -> Vec<Op> {
        let (normed, sums) = (ActId(2), ActId(3));
        let product = |x, out| Op::MatMul { x, weight: matrix, bias: None, out, accumulate: false };
        let before = Op::RmsNorm { x: IN, weight: norm, eps: 1e-5, out: normed };
        let pairing = RopePairing::Halves;
        match self {
            Self::Nothing => vec![product(IN, OUT)],
            Self::NormAndRope => {
                let rope = Op::RopeAndCache { layer: 0, qkv: sums, q: OUT, pairing, norm: None };
                vec![before, product(normed, sums), rope]
            }
            Self::NormAndGate => vec![before, product(normed, sums), Op::SiluMul { gate_up: sums, out: OUT }],
        }
    }
}

/// Few rows and many rows of one matrix product: two programs, unless both need one copy.
fn matmuls(
    shape: &ModelShape,
    selection: &Selection,
    (name, rows, cols): (&str, u32, u32),
    around: Around,
    format: WeightFormat,
) -> Vec<BenchProgram> {
    let Some(row_bytes) = format.row_bytes(cols as usize) else { return Vec::new() };
    let weight_bytes = row_bytes as u64 * u64::from(rows);
    let fits = |tokens: &&u32| name != "logits" || **tokens <= Selection::MAX_LOGITS_ROWS;
    let (few, many): (Vec<u32>, Vec<u32>) = selection.rows.iter().filter(fits).partition(|&&tokens| tokens <= FEW_ROWS);
    let copies = copies_for(weight_bytes, selection.cache_bytes);
    let groups = if copies == 1 { vec![(1, [few, many].concat())] } else { vec![(copies, few), (1, many)] };
    let out_cols = around.out_cols(shape, rows);
    let program = |(copies, all_tokens): (u32, Vec<u32>)| {
        let step = |&tokens: &u32| BenchStep {
            label: tokens.to_string(),
            bytes: weight_bytes + 4 * u64::from(tokens) * u64::from(cols + out_cols),
            flops: 2 * u64::from(tokens) * u64::from(rows) * u64::from(cols),
            data: StepData::of_tokens(tokens),
        };
        let steps: Vec<BenchStep> = all_tokens.iter().map(step).collect();
        let most_tokens = all_tokens.iter().max().map_or(1, |&most| most);
        let blocks = most_tokens.div_ceil(BLOCK_SIZE);
        let (mut activations, mut weights) = (vec![tokens_by("x", cols), tokens_by("out", out_cols)], Vec::new());
        weights.push(BenchWeight { format, rows: rows as usize, cols: cols as usize });
        if around != Around::Nothing {
            activations.extend([tokens_by("normed", cols), tokens_by("sums", rows)]);
            weights.push(BenchWeight { format: WeightFormat::F32, rows: 1, cols: cols as usize });
        }
        let parts = Parts {
            op: "matmul",
            what: format!("{} {rows}x{cols} {}", around.describe(name), format.name()),
            activations,
            weights,
            copies,
            kv: kv_layout(&shape.attention, 1, blocks, selection.kv_dtype),
        };
        let ops = |copy| around.ops(WeightId(copy), WeightId(copies + copy));
        let program = parts.program(shape, ops, rope_table(&shape.attention, most_tokens), None, steps);
        BenchProgram {
            limits: StepLimits { quantize_activations: selection.quantize_activations, ..program.limits },
            ..program
        }
    };
    groups.into_iter().filter(|(_, tokens)| !tokens.is_empty()).map(program).collect()
}

/// Sequences of `(context_len, query_len)` tokens on blocks in random order, the first `common` of each the same, and the
/// blocks that they take.
fn scattered(lens: &[(u32, u32)], common: u32) -> (StepData, u32) {
    let common = (common / BLOCK_SIZE) as usize;
    let needed = |&(context, query): &(u32, u32)| (context + query).div_ceil(BLOCK_SIZE) as usize - common;
    let num_blocks = common + lens.iter().map(needed).sum::<usize>();
    let order = SplitMix64::new(num_blocks as u64).permutation(num_blocks as u32);
    let (start, mut rest) = order.split_at(common);
    let seqs: Vec<SeqPlan> = lens
        .iter()
        .map(|lens @ &(context_len, query_len)| {
            let (own, after) = rest.split_at(needed(lens));
            rest = after;
            SeqPlan { context_len, query_len, table: [start, own].concat() }
        })
        .collect();
    (StepData::new(&seqs), num_blocks as u32)
}

/// The attention of these sequences, whose first `common` tokens are in the same blocks: bytes (each key and value once, q and
/// out) and operations (two for each product of an element of q with a key's, and of a weight with a value's).
fn attention(
    shape: &ModelShape,
    selection: &Selection,
    op: &'static str,
    label: String,
    lens: &[(u32, u32)],
    common: u32,
) -> BenchProgram {
    let heads = shape.attention;
    let (data, num_blocks) = scattered(lens, common);
    let width = heads.num_heads * heads.head_dim;
    let own_keys: u64 = lens.iter().map(|&(context, query)| u64::from(context + query - common)).sum();
    let keys = own_keys + u64::from(common);
    let new_tokens: u64 = lens.iter().map(|&(_, query)| u64::from(query)).sum();
    // Query i of n over its context and the i + 1 new tokens up to itself.
    let pairs: u64 = lens
        .iter()
        .map(|&(context, query)| u64::from(query) * u64::from(context) + u64::from(query) * u64::from(query + 1) / 2)
        .sum();
    let key_bytes = u64::from(heads.num_kv_heads) * selection.kv_dtype.row_bytes(heads.head_dim);
    let bytes = 2 * keys * key_bytes + 2 * 4 * new_tokens * u64::from(width);
    let copies = if op != "prefill" { copies_for(2 * keys * key_bytes, selection.cache_bytes) } else { 1 };
    let dtype = selection.kv_dtype.name();
    let step = BenchStep { label, bytes, flops: 4 * pairs * u64::from(width), data };
    let parts = Parts {
        op,
        what: format!("{}/{}x{} {dtype} KV", heads.num_heads, heads.num_kv_heads, heads.head_dim),
        activations: vec![tokens_by("q", width), tokens_by("out", width)],
        weights: Vec::new(),
        copies,
        kv: kv_layout(&heads, copies, num_blocks, selection.kv_dtype),
    };
    let op = |layer| vec![Op::PagedAttention { layer, q: IN, out: OUT }];
    parts.program(shape, op, RopeTable::default(), None, vec![step])
}

fn decode_attention(shape: &ModelShape, selection: &Selection, (seqs, len): (u32, u32)) -> BenchProgram {
    let lens = vec![(len - 1, 1); seqs as usize];
    attention(shape, selection, "decode", format!("{seqs} x {len}"), &lens, 0)
}

fn prefill_attention(shape: &ModelShape, selection: &Selection, (context, new): (u32, u32)) -> BenchProgram {
    attention(shape, selection, "prefill", format!("{new} after {context}"), &[(context, new)], 0)
}

/// Decodes that begin with the same tokens, and have as many as a few answers of their own.
fn shared_attention(shape: &ModelShape, selection: &Selection, (seqs, common): (u32, u32)) -> BenchProgram {
    let own = 128;
    let lens = vec![(common + own - 1, 1); seqs as usize];
    attention(shape, selection, "shared", format!("{seqs} x ({common} + {own})"), &lens, common)
}
