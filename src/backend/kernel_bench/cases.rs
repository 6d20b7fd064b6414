//! Which programs there are, and those of the attention.

use super::super::kernel_cases::{BLOCK_SIZE, SeqPlan, SplitMix64, StepData};
use super::super::{Op, RopeTable};
use super::parts::{IN, OUT, Parts, copies_for, kv_layout, tokens_by};
use super::products::product_programs;
use super::row_ops::RowOps;
use super::{BenchProgram, BenchStep, ModelShape, Selection};

/// Every program of a model's shapes.
pub fn programs(shape: &ModelShape, selection: &Selection) -> Vec<BenchProgram> {
    let mut programs = product_programs(shape, selection);
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
