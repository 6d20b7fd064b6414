//! Programs of what is computed row by row: norm, activation, RoPE with the cache write, embedding, argmax, likeliest tokens,
//! draws.

use super::super::kernel_cases::{BLOCK_SIZE, StepData};
use super::super::{Activation, KvLayout, Op, RopePairing, RopeTable, Rows, TokenDraw, WeightFormat, WeightId};
use super::parts::{IN, OUT, Parts, no_kv, rope_table, tokens_by};
use super::{BenchProgram, BenchStep, BenchWeight, ModelShape, Selection};

/// Copies of an op that takes microseconds.
const COPIES: u32 = 16;

/// Makes the programs of one model.
pub(super) struct RowOps<'a> {
    shape: &'a ModelShape,
    selection: &'a Selection,
    pool: KvLayout,
}

/// Bytes of f32 elements.
fn bytes(elements: u32) -> u64 {
    4 * u64::from(elements)
}

impl<'a> RowOps<'a> {
    pub(super) fn new(shape: &'a ModelShape, selection: &'a Selection) -> Self {
        let pool = no_kv(&shape.attention, Self::most_rows(selection).div_ceil(BLOCK_SIZE));
        Self { shape, selection, pool }
    }

    fn most_rows(selection: &Selection) -> u32 {
        selection.rows.iter().copied().max().unwrap_or(1)
    }

    pub(super) fn programs(&self) -> Vec<BenchProgram> {
        let mut programs = vec![self.rms_norm(), self.silu_mul(), self.rope()];
        programs.extend(self.embed());
        if self.selection.rows.iter().any(|&rows| rows <= Selection::MAX_LOGITS_ROWS) {
            programs.extend([self.argmax(), self.top_k(), self.draw("temperature", 1.0), self.draw("top-p 0.9", 0.9)]);
        }
        programs
    }

    /// A step for each number of rows; bytes and operations of one row.
    fn steps(&self, row_bytes: u64, row_flops: u64, logits: bool) -> Vec<BenchStep> {
        let fits = |rows: &&u32| !logits || **rows <= Selection::MAX_LOGITS_ROWS;
        let step = |&rows: &u32| {
            let data = StepData::of_tokens(rows);
            let logits_indices = if logits { (0..rows).collect() } else { Vec::new() };
            BenchStep {
                label: rows.to_string(),
                bytes: u64::from(rows) * row_bytes,
                flops: u64::from(rows) * row_flops,
                data: StepData { logits_indices, ..data },
            }
        };
        self.selection.rows.iter().filter(fits).map(step).collect()
    }

    fn parts(&self, op: &'static str, what: String, activations: [Activation; 2]) -> Parts {
        Parts { op, what, activations: activations.into(), weights: Vec::new(), copies: COPIES, kv: self.pool }
    }

    fn rms_norm(&self) -> BenchProgram {
        let n = self.shape.hidden;
        let parts = self.parts("rms_norm", n.to_string(), [tokens_by("x", n), tokens_by("out", n)]);
        let weights = vec![BenchWeight { format: WeightFormat::F32, rows: 1, cols: n as usize }];
        let op = |copy| vec![Op::RmsNorm { x: IN, weight: WeightId(copy), eps: 1e-5, out: OUT }];
        let steps = self.steps(bytes(2 * n), 4 * u64::from(n), false);
        Parts { weights, ..parts }.program(self.shape, op, RopeTable::default(), None, steps)
    }

    fn silu_mul(&self) -> BenchProgram {
        let n = self.shape.intermediate;
        let parts = self.parts("silu_mul", n.to_string(), [tokens_by("gate_up", 2 * n), tokens_by("out", n)]);
        let op = |_| vec![Op::SiluMul { gate_up: IN, out: OUT }];
        parts.program(self.shape, op, RopeTable::default(), None, self.steps(bytes(3 * n), 5 * u64::from(n), false))
    }

    fn rope(&self) -> BenchProgram {
        let heads = &self.shape.attention;
        let (q, kv) = (heads.num_heads * heads.head_dim, heads.num_kv_heads * heads.head_dim);
        let what = format!("{}/{}x{}", heads.num_heads, heads.num_kv_heads, heads.head_dim);
        let parts = self.parts("rope_and_cache", what, [tokens_by("qkv", q + 2 * kv), tokens_by("q", q)]);
        let op = |_| vec![Op::RopeAndCache { layer: 0, qkv: IN, q: OUT, pairing: RopePairing::Halves, norm: None }];
        let table = rope_table(heads, Self::most_rows(self.selection));
        let kv_bytes = 2 * u64::from(heads.num_kv_heads) * self.pool.dtype.row_bytes(heads.head_dim);
        let steps = self.steps(bytes(2 * q + 2 * kv) + kv_bytes, 3 * u64::from(q + kv), false);
        parts.program(self.shape, op, table, None, steps)
    }

    fn embed(&self) -> Option<BenchProgram> {
        let format = *self.selection.formats.first()?;
        let (vocab, hidden) = (self.shape.vocab, self.shape.hidden);
        let row_bytes = format.row_bytes(hidden as usize)? as u64;
        let parts = Parts {
            op: "embed",
            what: format!("{vocab}x{hidden} {}", format.name()),
            activations: vec![tokens_by("out", hidden)],
            weights: vec![BenchWeight { format, rows: vocab as usize, cols: hidden as usize }],
            copies: 1,
            kv: self.pool,
        };
        let op = |_| vec![Op::Embed { table: WeightId(0), out: IN }];
        let steps = self.steps(row_bytes + bytes(hidden), u64::from(hidden), false);
        Some(parts.program(self.shape, op, RopeTable::default(), None, steps))
    }

    /// A program of logits, whose argmax is always taken, and what else `change` asks for in each step.
    fn of_logits(&self, op: &'static str, what: String, change: impl Fn(u32, &mut StepData)) -> BenchProgram {
        let vocab = self.shape.vocab;
        let mut steps = self.steps(bytes(vocab), 0, true);
        for step in &mut steps {
            let rows = step.data.logits_indices.len() as u32;
            change(rows, &mut step.data);
        }
        let parts = Parts {
            op,
            what,
            activations: vec![Activation { name: "logits", rows: Rows::Logits, cols: vocab }],
            weights: Vec::new(),
            copies: 1,
            kv: self.pool,
        };
        parts.program(self.shape, |_| Vec::new(), RopeTable::default(), Some(IN), steps)
    }

    fn argmax(&self) -> BenchProgram {
        self.of_logits("argmax", self.shape.vocab.to_string(), |_, _| {})
    }

    /// As many likeliest tokens as OpenAI's API gives at most.
    fn top_k(&self) -> BenchProgram {
        let top_k = 20.min(self.shape.vocab);
        let program = self.of_logits("top_k", format!("{top_k} of {}", self.shape.vocab), |rows, data| {
            data.top_k_rows = (0..rows).collect();
            data.top_k = top_k;
        });
        BenchProgram { counted: "top_k", ..program }
    }

    /// One draw from each row.
    fn draw(&self, how: &str, top_p: f32) -> BenchProgram {
        let draw = |row| TokenDraw { top_p, uniform: 0.5, ..TokenDraw::unfiltered(row) };
        let program = self.of_logits("draw", format!("{} {how}", self.shape.vocab), |rows, data| {
            data.draws = (0..rows).map(draw).collect();
        });
        BenchProgram { counted: "draw", ..program }
    }
}
