//! A two-layer Llama with random weights, stepped as a scheduler would: prefill, chunks, decodes, a fork.

use super::{
    CaseData, CaseStep, KernelCase, SeqPlan, SplitMix64, StepData, kv_layout, logits_by, matrix, rope_table, tokens_by,
    vector,
};
use crate::backend::{
    ActId, Activation, AttentionShape, HostWeight, KvDtype, Op, Program, RopePairing, WeightFormat, WeightId,
};

const VOCAB: u32 = 131;
const HIDDEN: u32 = 96;
const INTERMEDIATE: u32 = 160;
const HEADS: AttentionShape = AttentionShape { num_heads: 4, num_kv_heads: 2, head_dim: 32, scale: 0.176_776_7 };
const LAYERS: u32 = 2;
const NUM_BLOCKS: u32 = 12;
/// Formats of its matrices.
const FORMATS: [WeightFormat; 5] =
    [WeightFormat::F16, WeightFormat::Bf16, WeightFormat::Q8_0, WeightFormat::Q4_0, WeightFormat::Q4_1];

pub(super) fn cases() -> Vec<KernelCase> {
    let variants = [
        (KvDtype::F32, RopePairing::Halves, 1e-4, 2e-2),
        (KvDtype::F16, RopePairing::Interleaved, 2e-3, 2e-2),
        (KvDtype::Int8, RopePairing::Halves, 1e-1, 2e-1),
    ];
    let case = |(dtype, pairing, tolerance, f16_tolerance): (KvDtype, RopePairing, f64, f64)| {
        let build = move |rng: &mut SplitMix64| data(rng, dtype, pairing);
        let name = format!("{pairing:?}/{}", dtype.name());
        KernelCase::new("tiny_model", name, tolerance, build).with_products(f16_tolerance, &FORMATS).quick_if(true)
    };
    variants.map(case).into()
}

fn data(rng: &mut SplitMix64, dtype: KvDtype, pairing: RopePairing) -> CaseData {
    let mut builder = Builder { rng, weights: Vec::new(), activations: Vec::new(), ops: Vec::new() };
    let logits = builder.model(pairing);
    let Builder { weights, activations, ops, .. } = builder;
    let rope = rope_table(64, HEADS.head_dim);
    let program = Program { activations, ops, attention: HEADS, rope, logits: Some(logits) };
    let steps = steps().into_iter().map(|mut data| {
        data.token_ids.fill_with(|| rng.below(VOCAB));
        CaseStep { compare_kv: true, ..CaseStep::new(data) }
    });
    let steps = steps.collect();
    CaseData { weights, program, kv: kv_layout(&HEADS, LAYERS, NUM_BLOCKS, dtype), steps }
}

/// Four steps of the sequences A, B, C, and D, which is forked from B.
fn steps() -> [StepData; 4] {
    let seq = |table: &[u32], context_len, query_len| SeqPlan { context_len, query_len, table: table.to_vec() };
    let (a, b, c, d): (&[u32], &[u32], &[u32], &[u32]) = (&[7, 2], &[4], &[9, 0], &[11]);
    // A's prompt, B's prompt with logits for each of its tokens.
    let prefill = StepData::new(&[seq(a, 0, 21), seq(b, 0, 5)]).with_logits((20..26).collect());
    // The first chunk of C gives no logits.
    let chunk = StepData::new(&[seq(a, 21, 1), seq(c, 0, 10), seq(b, 5, 1)]).with_logits(vec![0, 11]);
    // D is B up to here: block 4 is copied before both write to their own.
    let mut fork = StepData::new(&[seq(c, 10, 17), seq(b, 6, 1), seq(d, 6, 1)]).with_logits(vec![16, 17, 18]);
    fork.block_copies = vec![(4, 11)];
    let decode = StepData::new(&[seq(d, 7, 1), seq(a, 22, 1), seq(c, 27, 1), seq(b, 7, 1)]);
    [prefill, chunk, fork, decode.with_logits(vec![0, 1, 2, 3])]
}

/// Collects weights, activations and ops.
struct Builder<'a> {
    rng: &'a mut SplitMix64,
    weights: Vec<HostWeight<'static>>,
    activations: Vec<Activation>,
    ops: Vec<Op>,
}

impl Builder<'_> {
    fn activation(&mut self, activation: Activation) -> ActId {
        self.activations.push(activation);
        ActId(self.activations.len() as u32 - 1)
    }

    fn matrix(&mut self, name: &str, cols: u32, parts: &[(WeightFormat, u32)]) -> WeightId {
        let parts: Vec<(WeightFormat, usize)> = parts.iter().map(|&(format, rows)| (format, rows as usize)).collect();
        self.weights.push(matrix(self.rng, name, cols as usize, &parts));
        WeightId(self.weights.len() as u32 - 1)
    }

    fn norm(&mut self, x: ActId, out: ActId) {
        let values: Vec<f32> = (0..HIDDEN).map(|_| 1.0 + self.rng.uniform(0.5)).collect();
        self.weights.push(vector("norm", &values));
        let weight = WeightId(self.weights.len() as u32 - 1);
        self.ops.push(Op::RmsNorm { x, weight, eps: 1e-5, out });
    }

    fn matmul(&mut self, x: ActId, weight: WeightId, out: ActId, accumulate: bool) {
        self.ops.push(Op::MatMul { x, weight, bias: None, out, accumulate });
    }

    /// The whole model; returns its logits.
    fn model(&mut self, pairing: RopePairing) -> ActId {
        let hidden = self.activation(tokens_by("hidden", HIDDEN));
        let table = self.matrix("embedding", HIDDEN, &[(WeightFormat::Q8_0, VOCAB)]);
        self.ops.push(Op::Embed { table, out: hidden });
        let normed = self.activation(tokens_by("normed", HIDDEN));
        for layer in 0..LAYERS {
            self.attention(layer, hidden, normed, pairing);
            self.feed_forward(layer, hidden, normed);
        }
        let selected = self.activation(logits_by("selected", HIDDEN));
        let selected_normed = self.activation(logits_by("selected_normed", HIDDEN));
        let logits = self.activation(logits_by("logits", VOCAB));
        self.ops.push(Op::SelectLogitsRows { x: hidden, out: selected });
        self.norm(selected, selected_normed);
        self.matmul(selected_normed, table, logits, false);
        logits
    }

    fn attention(&mut self, layer: u32, hidden: ActId, normed: ActId, pairing: RopePairing) {
        let (q_len, kv_len) = (HEADS.num_heads * HEADS.head_dim, HEADS.num_kv_heads * HEADS.head_dim);
        let qkv = self.activation(tokens_by("qkv", q_len + 2 * kv_len));
        let q = self.activation(tokens_by("q", q_len));
        let attended = self.activation(tokens_by("attended", q_len));
        let parts = [(WeightFormat::Q4_1, q_len), (WeightFormat::Q4_1, kv_len), (WeightFormat::Q8_0, kv_len)];
        let qkv_weight = self.matrix("qkv", HIDDEN, &parts);
        let output_weight = self.matrix("output", q_len, &[(WeightFormat::F16, HIDDEN)]);
        self.norm(hidden, normed);
        self.matmul(normed, qkv_weight, qkv, false);
        self.ops.push(Op::RopeAndCache { layer, qkv, q, pairing, norm: None });
        self.ops.push(Op::PagedAttention { layer, q, out: attended });
        self.matmul(attended, output_weight, hidden, true);
    }

    /// Gate and up are of one format in the first layer only.
    fn feed_forward(&mut self, layer: u32, hidden: ActId, normed: ActId) {
        let gate_up = self.activation(tokens_by("gate_up", 2 * INTERMEDIATE));
        let gated = self.activation(tokens_by("gated", INTERMEDIATE));
        let up = if layer == 0 { WeightFormat::Q4_0 } else { WeightFormat::Bf16 };
        let parts = [(WeightFormat::Q4_0, INTERMEDIATE), (up, INTERMEDIATE)];
        let gate_up_weight = self.matrix("gate_up", HIDDEN, &parts);
        let down_weight = self.matrix("down", INTERMEDIATE, &[(WeightFormat::Q4_0, HIDDEN)]);
        self.norm(hidden, normed);
        self.matmul(normed, gate_up_weight, gate_up, false);
        self.ops.push(Op::SiluMul { gate_up, out: gated });
        self.matmul(gated, down_weight, hidden, true);
    }
}
