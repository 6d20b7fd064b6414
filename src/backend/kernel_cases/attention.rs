//! Cases of the paged attention: decodes of ragged lengths, chunked prefills, and both in one step; sequences that begin
//! with the same blocks.

use super::matmul::F16_TOLERANCE;
use super::step_data::{poisoned_pool, scatter};
use super::{BLOCK_SIZE, CaseData, CaseStep, KernelCase, OUT, SeqPlan, SplitMix64, StepData, X, kv_layout, tokens_by};
use crate::backend::KvDtype::{F16, F32, Int8};
use crate::backend::{AttentionShape, KvDtype, Op, Program, RopeTable};

/// Lengths of decoded sequences: the edges of blocks, and of partitions of 32, 256 and 512 tokens.
const RAGGED: [u32; 10] = [17, 1, 255, 16, 1025, 15, 257, 31, 511, 256];

/// Query and key heads, elements of a head, dtype of the pool.
type Heads = (u32, u32, u32, KvDtype);

/// `(context_len, query_len)` of the sequences in the pool, and which of them are in each step.
#[derive(Clone)]
struct Plan {
    lens: Vec<(u32, u32)>,
    steps: Vec<Vec<usize>>,
    /// Standard deviation of q.
    q_deviation: f32,
    /// Tokens, a multiple of the block size, that all sequences whose context is as long have in the same blocks.
    common_start: u32,
}

pub(super) fn cases() -> Vec<KernelCase> {
    let mut cases = Vec::new();
    let all = decode(&RAGGED);
    let few = decode(&[33, 257, 15, 16, 1]);
    let decodes: [(Heads, &Plan, bool); 20] = [
        ((9, 3, 64, F16), &all, false),
        ((9, 3, 64, F32), &few, true),
        ((9, 3, 256, F32), &few, false),
        ((32, 8, 128, F16), &all, false),
        ((32, 8, 64, F32), &few, false),
        ((14, 2, 64, F16), &few, true),
        ((16, 2, 128, F32), &few, false),
        ((4, 1, 80, F16), &all, false),
        ((4, 1, 80, F32), &few, true),
        ((4, 1, 256, F16), &all, false),
        ((40, 40, 96, F16), &few, false),
        ((40, 40, 128, F32), &few, false),
        ((6, 6, 48, F16), &few, true),
        // A team of attention_decode has as many lanes as such a head has octets, so that several share a subgroup of eight.
        ((8, 2, 32, F16), &all, true),
        ((6, 3, 16, F32), &few, true),
        ((8, 2, 32, Int8), &few, true),
        ((9, 3, 64, Int8), &all, true),
        ((32, 8, 128, Int8), &few, false),
        ((4, 1, 80, Int8), &few, true),
        ((4, 1, 256, Int8), &few, false),
    ];
    for (heads, plan, quick) in decodes {
        cases.push(case("decode", heads, plan.clone(), 1e-5).quick_if(quick));
    }
    cases.push(case("decode of 5000", (4, 1, 64, F16), decode(&[5000]), 1e-5));
    let peaked = Plan { q_deviation: 30.0, ..few };
    cases.push(case("decode, peaked", (9, 3, 64, F32), peaked.clone(), 2e-4).quick_if(true));

    let (mixed, short) = (mixed(), chunk());
    let prefills: [(Heads, &Plan, bool); 15] = [
        ((9, 3, 64, F16), &mixed, false),
        ((9, 3, 64, F32), &short, true),
        ((32, 8, 128, F32), &mixed, false),
        ((14, 2, 64, F16), &short, true),
        ((4, 1, 80, F16), &mixed, false),
        ((4, 1, 80, F32), &short, true),
        ((40, 40, 96, F16), &short, false),
        // Wide heads: fewer keys are staged at a time.
        ((4, 1, 128, F16), &short, true),
        ((8, 2, 256, F16), &short, true),
        ((2, 1, 256, F32), &short, true),
        ((6, 6, 48, F32), &mixed, false),
        ((9, 3, 64, Int8), &mixed, true),
        ((32, 8, 128, Int8), &short, false),
        ((4, 1, 80, Int8), &short, true),
        ((8, 2, 256, Int8), &short, true),
    ];
    for (heads, plan, quick) in prefills {
        cases.push(case("prefill", heads, plan.clone(), 1e-5).quick_if(quick));
    }
    cases.push(case("prefill, peaked", (9, 3, 64, F32), Plan { q_deviation: 30.0, ..short }, 2e-4));

    let shared = shared();
    let shared_heads: [(Heads, bool); 7] = [
        ((9, 3, 64, F16), true),
        ((9, 3, 64, Int8), true),
        ((14, 2, 64, F32), false),
        ((4, 1, 80, F32), true),
        ((32, 8, 128, F16), false),
        ((8, 2, 256, F16), false),
        ((6, 6, 48, F32), false),
    ];
    for (heads, quick) in shared_heads {
        cases.push(case("common start", heads, shared.clone(), 1e-5).quick_if(quick));
    }
    cases.push(case("common start, peaked", (9, 3, 64, F32), Plan { q_deviation: 30.0, ..shared }, 2e-4));
    cases
}

/// All sequences together, then the first alone, then the longest alone.
fn decode(seq_lens: &[u32]) -> Plan {
    let lens: Vec<(u32, u32)> = seq_lens.iter().map(|len| (len - 1, 1)).collect();
    let longest = (0..lens.len()).max_by_key(|&seq| lens[seq]).expect("a sequence");
    Plan { steps: vec![(0..lens.len()).collect(), vec![0], vec![longest]], lens, q_deviation: 2.0, common_start: 0 }
}

/// Whole prompts, chunks that begin and end inside blocks, and decodes, in one step; then some of them alone.
fn mixed() -> Plan {
    let lens =
        vec![(600, 1), (0, 70), (33, 17), (15, 1), (16, 16), (250, 41), (0, 1), (37, 2), (0, 16), (255, 3), (511, 33)];
    let steps = vec![(0..lens.len()).collect(), vec![1], vec![5, 0], vec![7, 2, 3]];
    Plan { steps, lens, q_deviation: 2.0, common_start: 0 }
}

/// The same in small.
fn chunk() -> Plan {
    let lens = vec![(5, 13), (40, 1), (0, 33), (0, 1), (31, 2), (100, 17)];
    Plan { steps: vec![(0..lens.len()).collect(), vec![2], vec![5, 1]], lens, q_deviation: 2.0, common_start: 0 }
}

/// Seven decodes that share 33 blocks, one of them right behind these, with a token and four drafts that share them too, and
/// others that do not; then few enough of the seven that backends would read them apart; then all of them alone; then the token
/// and its drafts.
fn shared() -> Plan {
    let lens = vec![(700, 1), (40, 1), (528, 1), (1100, 1), (0, 20), (529, 1), (544, 1), (900, 1), (600, 5), (784, 1)];
    let steps = vec![(0..lens.len()).collect(), vec![3, 1, 0, 2], vec![9, 7, 6, 5, 3, 2, 0], vec![8]];
    Plan { steps, lens, q_deviation: 2.0, common_start: 528 }
}

fn case(what: &str, heads: Heads, plan: Plan, tolerance: f64) -> KernelCase {
    let (num_heads, num_kv_heads, head_dim, dtype) = heads;
    let name = format!("{what}/{num_heads}:{num_kv_heads}x{head_dim}/{}", dtype.name());
    let scale = 1.0 / (head_dim as f32).sqrt();
    let shape = AttentionShape { num_heads, num_kv_heads, head_dim, scale };
    let build = move |rng: &mut SplitMix64| data(rng, shape, dtype, &plan);
    let case = KernelCase::new("paged_attention", name, tolerance, build).with_kv(dtype);
    // Over pools of f32 nothing is rounded.
    if dtype == F32 { case } else { KernelCase { f16_tolerance: Some(F16_TOLERANCE), ..case } }
}

/// Two layers; the first is NaN throughout, the second holds the sequences, and NaN elsewhere.
fn data(rng: &mut SplitMix64, heads: AttentionShape, dtype: KvDtype, plan: &Plan) -> CaseData {
    let (mut seqs, num_blocks) = scatter(rng, &plan.lens);
    let common = (plan.common_start / BLOCK_SIZE) as usize;
    let start = seqs[0].table[..common].to_vec();
    for seq in seqs.iter_mut().filter(|seq| seq.context_len >= plan.common_start) {
        seq.table[..common].copy_from_slice(&start);
    }
    let kv = kv_layout(&heads, 2, num_blocks, dtype);
    let width = heads.num_heads * heads.head_dim;
    let program = Program {
        activations: vec![tokens_by("q", width), tokens_by("out", width)],
        ops: vec![Op::PagedAttention { layer: 1, q: X, out: OUT }],
        attention: heads,
        rope: RopeTable::default(),
        logits: None,
    };
    let step = |chosen: &Vec<usize>| {
        let seqs: Vec<SeqPlan> = chosen.iter().map(|&seq| seqs[seq].clone()).collect();
        let data = StepData::new(&seqs);
        let q = rng.values(data.token_ids.len() * width as usize, plan.q_deviation);
        CaseStep::new(data).input(X, q).output(OUT)
    };
    let mut steps: Vec<CaseStep> = plan.steps.iter().map(step).collect();
    let (k, v) = (poisoned_pool(rng, &kv, &seqs), poisoned_pool(rng, &kv, &seqs));
    let poison = vec![f32::NAN; k.len()];
    steps[0].kv = vec![(poison.clone(), poison), (k, v)];
    CaseData { weights: Vec::new(), program, kv, steps }
}
