//! The ops of a program: each finds its operands, checks their shapes and calls its kernel.

use super::{CpuWeight, Model, draw, kernels};
use crate::backend::{ActId, HeadNorm, Op, RopePairing, Rows, ScoredToken, StepInput, StepOutput, WeightId};

impl Model {
    /// Runs one op.
    ///
    /// # Panics
    /// If the shapes of its operands do not fit: the program is wrong.
    pub(super) fn run(&mut self, op: &Op, weights: &[CpuWeight], input: &StepInput<'_>) {
        let weight = |id: WeightId| &weights[id.0 as usize];
        match *op {
            Op::Embed { table, out } => self.embed(weight(table), out, input),
            Op::RmsNorm { x, weight: w, eps, out } => self.rms_norm(x, weight(w), eps, out, input),
            Op::SelectLogitsRows { x, out } => self.select_logits_rows(x, out, input),
            Op::MatMul { x, weight: w, bias, out, accumulate } => {
                self.matmul(x, weight(w), bias.map(weight), out, accumulate, input);
            }
            Op::RopeAndCache { layer, qkv, q, pairing, norm } => {
                let norm = norm.map(|HeadNorm { weight: w, eps }| (weight(w).vector(), eps));
                self.rope_and_cache(layer, (qkv, q), pairing, norm, input);
            }
            Op::PagedAttention { layer, q, out } => self.paged_attention(layer, q, out, input),
            Op::SiluMul { gate_up, out } => self.silu_mul(gate_up, out, input),
        }
    }

    /// The argmax of every logits row, and the rows, likeliest tokens and draws that the step asks for.
    pub(super) fn output(&self, input: &StepInput<'_>, output: &mut StepOutput) {
        output.clear();
        let Some(logits) = self.program.logits else { return };
        assert_eq!(self.rows_kind(logits), Rows::Logits, "rows of the logits");
        let vocab = self.cols(logits);
        let row = |row: u32| &self.activations[logits.0 as usize][row as usize * vocab..][..vocab];
        output.argmax.extend((0..input.logits_indices.len() as u32).map(|index| kernels::argmax(row(index))));
        input.read_logits_rows.iter().for_each(|&index| output.logits.extend_from_slice(row(index)));
        output.top_k.extend(input.top_k_rows.iter().flat_map(|&index| kernels::top_k(row(index), input.top_k)));
        output.drawn.extend(input.draws.iter().map(|token| draw::draw(row(token.row), token, input.adjustments)));
        for scored in input.scored {
            let token = match scored.token {
                ScoredToken::Known(token) => token,
                ScoredToken::Argmax => output.argmax[scored.row as usize],
                ScoredToken::Draw(draw) => output.drawn[draw as usize].min(vocab as u32 - 1),
            };
            output.scores.push(kernels::token_rank(row(scored.row), token));
        }
    }

    fn cols(&self, activation: ActId) -> usize {
        self.program.activations[activation.0 as usize].cols as usize
    }

    fn rows_kind(&self, activation: ActId) -> Rows {
        self.program.activations[activation.0 as usize].rows
    }

    /// Elements of the rows that this step uses.
    fn live_len(&self, activation: ActId, input: &StepInput<'_>) -> usize {
        let rows = match self.rows_kind(activation) {
            Rows::Tokens => input.token_ids.len(),
            Rows::Logits => input.logits_indices.len(),
        };
        rows * self.cols(activation)
    }

    fn live(&self, activation: ActId, input: &StepInput<'_>) -> &[f32] {
        &self.activations[activation.0 as usize][..self.live_len(activation, input)]
    }

    /// Lends `f` the live rows of `x` and of `out`.
    fn with_in_out(&mut self, x: ActId, out: ActId, input: &StepInput<'_>, f: impl FnOnce(&Self, &[f32], &mut [f32])) {
        assert_ne!(x, out, "an op's output is none of its inputs");
        let len = self.live_len(out, input);
        let mut out_values = std::mem::take(&mut self.activations[out.0 as usize]);
        f(self, self.live(x, input), &mut out_values[..len]);
        self.activations[out.0 as usize] = out_values;
    }

    fn embed(&mut self, table: &CpuWeight, out: ActId, input: &StepInput<'_>) {
        let (hidden, rows) = (self.cols(out), self.rows_kind(out));
        assert_eq!((table.cols, rows), (hidden, Rows::Tokens), "embed from {}", table.name);
        let out = &mut self.activations[out.0 as usize];
        for (&token, out) in input.token_ids.iter().zip(out.chunks_exact_mut(hidden)) {
            table.read_row(token as usize, out);
        }
    }

    fn rms_norm(&mut self, x: ActId, weight: &CpuWeight, eps: f32, out: ActId, input: &StepInput<'_>) {
        let n = weight.cols;
        assert_eq!((self.cols(x), self.cols(out)), (n, n), "rms_norm with {}", weight.name);
        assert_eq!(self.rows_kind(x), self.rows_kind(out), "rms_norm with {}", weight.name);
        self.with_in_out(x, out, input, |_, x, out| kernels::rms_norm(x, &weight.vector(), eps, out));
    }

    fn select_logits_rows(&mut self, x: ActId, out: ActId, input: &StepInput<'_>) {
        let n = self.cols(x);
        assert_eq!((n, self.rows_kind(x), self.rows_kind(out)), (self.cols(out), Rows::Tokens, Rows::Logits));
        self.with_in_out(x, out, input, |_, x, out| {
            for (&token, out) in input.logits_indices.iter().zip(out.chunks_exact_mut(n)) {
                out.copy_from_slice(&x[token as usize * n..][..n]);
            }
        });
    }

    fn matmul(
        &mut self,
        x: ActId,
        weight: &CpuWeight,
        bias: Option<&CpuWeight>,
        out: ActId,
        accumulate: bool,
        input: &StepInput<'_>,
    ) {
        let (cols, rows) = (weight.cols, weight.rows());
        assert_eq!((self.cols(x), self.cols(out)), (cols, rows), "matmul with {}", weight.name);
        assert_eq!(self.rows_kind(x), self.rows_kind(out), "matmul with {}", weight.name);
        let bias = bias.map_or(vec![0.0; rows], CpuWeight::vector);
        assert_eq!(bias.len(), rows, "bias of the matmul with {}", weight.name);
        self.with_in_out(x, out, input, |_, x, out| {
            let x: Vec<f64> = x.iter().copied().map(f64::from).collect();
            let mut w = vec![0.0f64; cols];
            weight.for_each_row(|row, values| {
                w.iter_mut().zip(values).for_each(|(w, &value)| *w = f64::from(value));
                for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(rows)) {
                    let before = if accumulate { f64::from(out[row]) } else { 0.0 };
                    out[row] = (before + kernels::dot(x, &w) + f64::from(bias[row])) as f32;
                }
            });
        });
    }

    fn rope_and_cache(
        &mut self,
        layer: u32,
        (qkv, q): (ActId, ActId),
        pairing: RopePairing,
        norm: Option<(Vec<f32>, f32)>,
        input: &StepInput<'_>,
    ) {
        let heads = self.program.attention;
        let head_dim = heads.head_dim as usize;
        let (q_len, kv_len) = (heads.num_heads as usize * head_dim, heads.num_kv_heads as usize * head_dim);
        assert_eq!((self.cols(qkv), self.cols(q)), (q_len + 2 * kv_len, q_len), "rope_and_cache");
        let mut qkv_values = self.live(qkv, input).to_vec();
        for (token, row) in qkv_values.chunks_exact_mut(q_len + 2 * kv_len).enumerate() {
            let position = input.positions[token] as usize;
            let angles = position * head_dim / 2..(position + 1) * head_dim / 2;
            let (cos, sin) = (&self.program.rope.cos[angles.clone()], &self.program.rope.sin[angles]);
            let (q_and_k, v) = row.split_at_mut(q_len + kv_len);
            if let Some((weight, eps)) = &norm {
                let (of_q, of_k) = weight.split_at(head_dim);
                let (q_heads, k_heads) = q_and_k.split_at_mut(q_len);
                for (heads, weight) in [(q_heads, of_q), (k_heads, of_k)] {
                    let plain = heads.to_vec();
                    kernels::rms_norm(&plain, weight, *eps, heads);
                }
            }
            q_and_k.chunks_exact_mut(head_dim).for_each(|head| kernels::rope(head, cos, sin, pairing));
            let (q_row, k) = q_and_k.split_at(q_len);
            self.kv.write_slot(layer as usize, input.slot_mapping[token], k, v);
            self.activations[q.0 as usize][token * q_len..][..q_len].copy_from_slice(q_row);
        }
    }

    fn paged_attention(&mut self, layer: u32, q: ActId, out: ActId, input: &StepInput<'_>) {
        let heads = self.program.attention;
        let width = (heads.num_heads * heads.head_dim) as usize;
        assert_eq!((self.cols(q), self.cols(out)), (width, width), "paged_attention");
        self.with_in_out(q, out, input, |model, q, out| {
            for seq in 0..input.seq_lens.len() {
                let table = input.block_table_start[seq] as usize..input.block_table_start[seq + 1] as usize;
                let table = &input.block_tables[table];
                for token in input.query_start_loc[seq] as usize..input.query_start_loc[seq + 1] as usize {
                    let num_keys = input.positions[token] as usize + 1;
                    assert!(num_keys <= input.seq_lens[seq] as usize, "position beyond sequence {seq}");
                    let at = token * width..(token + 1) * width;
                    let pool = model.kv.pool(layer as usize);
                    kernels::paged_attention(&q[at.clone()], pool, table, num_keys, &heads, &mut out[at]);
                }
            }
        });
    }

    fn silu_mul(&mut self, gate_up: ActId, out: ActId, input: &StepInput<'_>) {
        let n = self.cols(out);
        assert_eq!((self.cols(gate_up), self.rows_kind(gate_up)), (2 * n, self.rows_kind(out)), "silu_mul");
        self.with_in_out(gate_up, out, input, |_, gate_up, out| kernels::silu_mul(gate_up, n, out));
    }
}
