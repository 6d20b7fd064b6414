//! Which programs there are.

use super::super::kernel_cases::{BLOCK_SIZE, SeqPlan, SplitMix64, StepData};
use super::super::{Op, RopeTable, WeightFormat, WeightId};
use super::parts::{IN, OUT, Parts, kv_layout, no_kv, tokens_by};
use super::row_ops::RowOps;
use super::{BenchProgram, BenchStep, BenchWeight, ModelShape, Selection};

/// With more rows than this an op computes more than it waits for memory: one copy of it suffices.
const FEW_ROWS: u32 = 8;
const MAX_COPIES: u64 = 64;

/// Every program of a model's shapes.
pub fn programs(shape: &ModelShape, selection: &Selection) -> Vec<BenchProgram> {
    let mut programs = Vec::new();
    for (name, rows, cols) in shape.matrices() {
        for &format in &selection.formats {
            programs.extend(matmuls(shape, selection, name, (rows, cols), format));
        }
    }
    for &decode in &selection.decode {
        programs.push(decode_attention(shape, selection, decode));
    }
    for &prefill in &selection.prefill {
        programs.push(prefill_attention(shape, selection, prefill));
    }
    programs.extend(RowOps::new(shape, selection).programs());
    programs
}

fn copies_for(bytes: u64, cache_bytes: u64) -> u32 {
    cache_bytes.div_ceil(bytes.max(1)).clamp(1, MAX_COPIES) as u32
}

/// Few rows and many rows of one matrix product: two programs, unless both need one copy.
fn matmuls(
    shape: &ModelShape,
    selection: &Selection,
    name: &str,
    (rows, cols): (u32, u32),
    format: WeightFormat,
) -> Vec<BenchProgram> {
    let Some(row_bytes) = format.row_bytes(cols as usize) else { return Vec::new() };
    let weight_bytes = row_bytes as u64 * u64::from(rows);
    let fits = |tokens: &&u32| name != "logits" || **tokens <= Selection::MAX_LOGITS_ROWS;
    let (few, many): (Vec<u32>, Vec<u32>) = selection.rows.iter().filter(fits).partition(|&&tokens| tokens <= FEW_ROWS);
    let copies = copies_for(weight_bytes, selection.cache_bytes);
    let groups = if copies == 1 { vec![(1, [few, many].concat())] } else { vec![(copies, few), (1, many)] };
    let program = |(copies, all_tokens): (u32, Vec<u32>)| {
        let step = |&tokens: &u32| BenchStep {
            label: tokens.to_string(),
            bytes: weight_bytes + 4 * u64::from(tokens) * u64::from(rows + cols),
            flops: 2 * u64::from(tokens) * u64::from(rows) * u64::from(cols),
            data: StepData::of_tokens(tokens),
        };
        let steps: Vec<BenchStep> = all_tokens.iter().map(step).collect();
        let blocks = all_tokens.iter().max().map_or(1, |most| most.div_ceil(BLOCK_SIZE));
        let parts = Parts {
            op: "matmul",
            what: format!("{name} {rows}x{cols} {}", format.name()),
            activations: vec![tokens_by("x", cols), tokens_by("out", rows)],
            weights: vec![BenchWeight { format, rows: rows as usize, cols: cols as usize }],
            copies,
            kv: no_kv(&shape.attention, blocks),
        };
        let op = |copy| Some(Op::MatMul { x: IN, weight: WeightId(copy), bias: None, out: OUT, accumulate: false });
        parts.program(shape, op, RopeTable::default(), None, steps)
    };
    groups.into_iter().filter(|(_, tokens)| !tokens.is_empty()).map(program).collect()
}

/// Sequences of `(context_len, query_len)` tokens on blocks in random order, and the blocks that they take.
fn scattered(lens: &[(u32, u32)]) -> (StepData, u32) {
    let needed = |&(context, query): &(u32, u32)| (context + query).div_ceil(BLOCK_SIZE) as usize;
    let num_blocks = lens.iter().map(needed).sum::<usize>();
    let order = SplitMix64::new(num_blocks as u64).permutation(num_blocks as u32);
    let mut rest = &order[..];
    let seqs: Vec<SeqPlan> = lens
        .iter()
        .map(|lens @ &(context_len, query_len)| {
            let (table, after) = rest.split_at(needed(lens));
            rest = after;
            SeqPlan { context_len, query_len, table: table.to_vec() }
        })
        .collect();
    (StepData::new(&seqs), num_blocks as u32)
}

/// The attention of these sequences: bytes (each key and value once, q and out) and operations (two for each product of
/// an element of q with a key's, and of a weight with a value's).
fn attention(
    shape: &ModelShape,
    selection: &Selection,
    op: &'static str,
    label: String,
    lens: &[(u32, u32)],
) -> BenchProgram {
    let heads = shape.attention;
    let (data, num_blocks) = scattered(lens);
    let width = heads.num_heads * heads.head_dim;
    let keys: u64 = lens.iter().map(|&(context, query)| u64::from(context + query)).sum();
    let new_tokens: u64 = lens.iter().map(|&(_, query)| u64::from(query)).sum();
    // Query i of n over its context and the i + 1 new tokens up to itself.
    let pairs: u64 = lens
        .iter()
        .map(|&(context, query)| u64::from(query) * u64::from(context) + u64::from(query) * u64::from(query + 1) / 2)
        .sum();
    let key_bytes = u64::from(heads.num_kv_heads) * selection.kv_dtype.row_bytes(heads.head_dim);
    let bytes = 2 * keys * key_bytes + 2 * 4 * new_tokens * u64::from(width);
    let copies = if op == "decode" { copies_for(2 * keys * key_bytes, selection.cache_bytes) } else { 1 };
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
    let op = |layer| Some(Op::PagedAttention { layer, q: IN, out: OUT });
    parts.program(shape, op, RopeTable::default(), None, vec![step])
}

fn decode_attention(shape: &ModelShape, selection: &Selection, (seqs, len): (u32, u32)) -> BenchProgram {
    let lens = vec![(len - 1, 1); seqs as usize];
    attention(shape, selection, "decode", format!("{seqs} x {len}"), &lens)
}

fn prefill_attention(shape: &ModelShape, selection: &Selection, (context, new): (u32, u32)) -> BenchProgram {
    attention(shape, selection, "prefill", format!("{new} after {context}"), &[(context, new)])
}
