//! Cases of the kernels that write the KV pool: rope_and_cache and the block copies.

use super::step_data::{poisoned_pool, scatter};
use super::{
    BLOCK_SIZE, CaseData, CaseStep, KernelCase, OUT, SeqPlan, SplitMix64, StepData, X, kv_layout, rope_table,
    tokens_by, vector,
};
use crate::backend::cpu::kernels;
use crate::backend::{AttentionShape, HeadNorm, KvDtype, Op, Program, RopePairing, RopeTable, WeightId};

pub(super) fn cases() -> Vec<KernelCase> {
    let mut cases = Vec::new();
    for (num_heads, num_kv_heads, head_dim) in
        [(9, 3, 64), (32, 8, 128), (4, 1, 80), (40, 40, 96), (8, 2, 256), (6, 6, 48)]
    {
        let heads = AttentionShape { num_heads, num_kv_heads, head_dim, scale: 1.0 };
        for (pairing, pairing_name) in [(RopePairing::Halves, "halves"), (RopePairing::Interleaved, "interleaved")] {
            for dtype in KvDtype::ALL {
                let name = format!("{num_heads}:{num_kv_heads}x{head_dim}/{pairing_name}/{}", dtype.name());
                let build = move |rng: &mut SplitMix64| rope_data(rng, heads, pairing, dtype, false);
                let case = KernelCase::new("rope_and_cache", name.clone(), 1e-5, build).with_kv(dtype);
                cases.push(case.quick_if(num_heads < 10 && head_dim < 100));
                // Of int8 an element near the edge of two steps may come out one step off.
                let tolerance = if dtype == KvDtype::Int8 { 4e-2 } else { 1e-5 };
                let build = move |rng: &mut SplitMix64| rope_data(rng, heads, pairing, dtype, true);
                let case = KernelCase::new("rope_and_cache", format!("{name}/norm"), tolerance, build).with_kv(dtype);
                cases.push(case.quick_if(num_heads < 10 && head_dim == 64));
            }
        }
    }
    for dtype in KvDtype::ALL {
        for (num_kv_heads, head_dim) in [(3, 64), (1, 80)] {
            let heads = AttentionShape { num_heads: num_kv_heads, num_kv_heads, head_dim, scale: 1.0 };
            let name = format!("{num_kv_heads}x{head_dim}/{}", dtype.name());
            let build = move |rng: &mut SplitMix64| copy_data(rng, heads, dtype);
            cases.push(KernelCase::new("block_copies", name.clone(), 0.0, build).quick_if(true));
            let build = move |rng: &mut SplitMix64| swap_data(rng, heads, dtype);
            cases.push(KernelCase::new("swap_blocks", name, 0.0, build).quick_if(true));
        }
    }
    cases
}

/// Two layers of which the second is written: a mixed step, then a decode of one sequence. The pool is NaN at first,
/// and must be NaN afterwards wherever no token went.
fn rope_data(
    rng: &mut SplitMix64,
    heads: AttentionShape,
    pairing: RopePairing,
    dtype: KvDtype,
    has_norm: bool,
) -> CaseData {
    let (seqs, num_blocks) = scatter(rng, &[(0, 7), (250, 1), (30, 19), (15, 1)]);
    let q_len = heads.num_heads * heads.head_dim;
    let (qkv_len, v_len) = (q_len + 2 * heads.num_kv_heads * heads.head_dim, heads.num_kv_heads * heads.head_dim);
    let weight: Vec<f32> = (0..2 * heads.head_dim).map(|_| 1.0 + rng.uniform(0.5)).collect();
    let weights = if has_norm { vec![vector("head norms", &weight)] } else { Vec::new() };
    let norm = has_norm.then_some(HeadNorm { weight: WeightId(0), eps: 1e-2 });
    let program = Program {
        activations: vec![tokens_by("qkv", qkv_len), tokens_by("q", q_len)],
        ops: vec![Op::RopeAndCache { layer: 1, qkv: X, q: OUT, pairing, norm }],
        attention: heads,
        rope: rope_table(300, heads.head_dim),
        logits: None,
    };
    let next = SeqPlan { context_len: 251, query_len: 1, table: seqs[1].table.clone() };
    let steps = [StepData::new(&seqs), StepData::new(&[next])].map(|data| {
        let mut qkv = rng.values(data.token_ids.len() * qkv_len as usize, 1.0);
        // Values beyond the range of f16, in the last v head of token 0.
        let end = qkv_len as usize;
        (qkv[end - 1], qkv[end - v_len as usize]) = (1e6, -7e4);
        if dtype == KvDtype::Int8 && !has_norm {
            for (row, &position) in qkv.chunks_exact_mut(qkv_len as usize).zip(&data.positions) {
                settle(&mut row[q_len as usize..], &heads, &program.rope, position, pairing);
            }
        }
        CaseStep { compare_kv: true, ..CaseStep::new(data).input(X, qkv).output(OUT) }
    });
    CaseData { weights, program, kv: kv_layout(&heads, 2, num_blocks, dtype), steps: steps.into() }
}

/// Moves the k and v heads of one token away from the edges between two steps of int8, so that a last-bit difference in
/// f32 rounds no other way: the largest element becomes 127 steps of a scale that is a half, the others come 0.4 steps
/// near to a whole number of them. `kv` is `[2 num_kv_heads][head_dim]`, k before its rotation.
fn settle(kv: &mut [f32], heads: &AttentionShape, rope: &RopeTable, position: u32, pairing: RopePairing) {
    let head_dim = heads.head_dim as usize;
    let angles = position as usize * head_dim / 2..(position as usize + 1) * head_dim / 2;
    let (cos, sin) = (&rope.cos[angles.clone()], &rope.sin[angles]);
    let back: Vec<f32> = sin.iter().map(|sin| -sin).collect();
    for (head, row) in kv.chunks_exact_mut(head_dim).enumerate() {
        let is_k = head < heads.num_kv_heads as usize;
        if is_k {
            kernels::rope(row, cos, sin, pairing);
        }
        let scale = KvDtype::Int8.round_row(row, &mut vec![0.0; head_dim]);
        let largest = (0..head_dim).max_by(|&a, &b| row[a].abs().total_cmp(&row[b].abs())).expect("an element");
        for x in row.iter_mut() {
            let steps = (*x / scale).round();
            *x = scale * (steps + 0.8 * (*x / scale - steps));
        }
        row[largest] = row[largest].signum() * 127.0 * scale;
        if is_k {
            kernels::rope(row, cos, &back, pairing);
        }
    }
}

/// Copies between random blocks (more than one dispatch may copy together), one source twice; then a step with none.
fn copy_data(rng: &mut SplitMix64, heads: AttentionShape, dtype: KvDtype) -> CaseData {
    let (mut data, mut first) = blocks_only(rng, heads, dtype);
    let order = rng.permutation(data.kv.num_blocks);
    first.data.block_copies =
        vec![(order[0], order[5]), (order[1], order[6]), (order[0], order[7]), (order[2], order[8])];
    let mut second = StepData::of_tokens(1);
    second.block_copies = vec![(order[5], order[0])];
    let step = |data| CaseStep { compare_kv: true, ..CaseStep::new(data) };
    data.steps = vec![first, step(second), step(StepData::of_tokens(1))];
    data
}

/// Blocks leave for the host and come back elsewhere; one of them is then copied on the device.
fn swap_data(rng: &mut SplitMix64, heads: AttentionShape, dtype: KvDtype) -> CaseData {
    let (mut data, mut step) = blocks_only(rng, heads, dtype);
    let used = rng.permutation(7);
    step.swaps = vec![(used[0], 7), (used[1], used[0]), (used[2], used[3])];
    step.data.block_copies = vec![(7, 8)];
    data.steps = vec![step];
    data
}

/// A program of no op over eleven blocks of five layers, and a step that first writes seven of the blocks.
fn blocks_only(rng: &mut SplitMix64, heads: AttentionShape, dtype: KvDtype) -> (CaseData, CaseStep) {
    let kv = kv_layout(&heads, 5, 11, dtype);
    let program = Program {
        activations: Vec::new(),
        ops: Vec::new(),
        attention: heads,
        rope: RopeTable::default(),
        logits: None,
    };
    let used = [SeqPlan { context_len: 0, query_len: BLOCK_SIZE * 7, table: (0..7).collect() }];
    let mut pool = || {
        let mut pool = poisoned_pool(rng, &kv, &used);
        // Beyond the range of f16.
        (pool[0], pool[1]) = (1e6, -7e4);
        pool
    };
    let pools = (0..kv.num_layers).map(|_| (pool(), pool())).collect();
    let step = CaseStep { kv: pools, compare_kv: true, ..CaseStep::new(StepData::of_tokens(1)) };
    (CaseData { weights: Vec::new(), program, kv, steps: Vec::new() }, step)
}
