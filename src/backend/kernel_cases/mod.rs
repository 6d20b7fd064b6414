//! Test cases for every kernel, generic over [`Backend`](super::Backend): each runs on the backend under test and on
//! [`CpuBackend`](super::cpu::CpuBackend), and compares. `bindery selftest` and the backends' tests run them.
//!
//! A case is a program of one op, or of two or three that a backend may fuse, or of a tiny model, with seeded inputs, run for a few steps. Whatever a kernel must
//! not read (rows beyond the step, outputs before they are written, free blocks, the tail of a last block) is NaN.
//!
//! # Tolerances
//! Errors are `|got - want| / max(1, |want|)`, the inputs are scaled so that outputs are of order 1, and:
//!
//! | kernel | tolerance | because |
//! |---|---|---|
//! | copies, argmax, row selection | 0 | nothing is computed |
//! | embed, feed_tokens | 1e-6 | `d * q + m` may be one fused operation or two |
//! | likeliest tokens | 0, their log probabilities 1e-5 | f32 sums of the vocabulary, `exp` and `log` |
//! | draw | 1e-4 between the uniform number and those that give the token | f32 sums of the vocabulary, rounded at borders |
//! | rms_norm, silu_mul, rope | 1e-5 | f32 sums of a few thousand terms, `exp` and `inverseSqrt` to a few ulp |
//! | matmul | 1e-5 * max(1, sqrt(cols / 256)) | rounding errors of f32 sums grow like a random walk |
//! | norm_matmul | twice matmul's | rms_norm's errors and then its own |
//! | matmul_silu, norm_matmul_silu | four times matmul's | errors of two factors, either up to 4 |
//! | matmul_rope, norm_matmul_rope | twice matmul's, twice norm_matmul's | errors of two sums that are turned together |
//! | paged_attention | 1e-5 | `exp` is good to `3 + 2 abs(x)` ulp in WGSL, sums of up to 5000 weights |
//! | paged_attention, peaked | 2e-4 | scores of order 100 carry errors of 1e-5, which `exp` makes relative ones |
//! | values in an f16 pool | 1e-3 | one ulp of f16: a last-bit difference in f32 may round the other way |
//! | values in an int8 pool | 1e-5 | as those in an f32 pool: inputs are chosen so that no value lies between two steps |
//! | the tiny model | 1e-4, 2e-3 with an f16 pool | the above through two layers |
//! | the tiny model with an int8 pool | 1e-1 | a value that rounds the other way is a step of 1/40 off, and moves all others of the next layer |
//!
//! Where a backend's products round their inputs to f16 ([`ProductInputs`]), cases with products have a second tolerance:
//! 4e-3 for matmul (conversions may truncate, so up to 2^-10 of each factor, in sums of order 2), and as many times that as
//! in the table for the others; 2e-2 for the tiny model.
//!
//! Where they round activations to int8 ([`KernelCase::quantize_activations`]) it is eight times that, 3.2e-2 for matmul:
//! inputs are uniform with a standard deviation of 1, so a block of 32 is rounded to steps of `sqrt(3) / 127` at most; such
//! errors have a standard deviation of `1 / sqrt(12)` steps, 4e-3, and a row of weights, whose length is about 1.1, makes
//! 4.4e-3 of them. That is seven times as much, for ten thousands of outputs. Cases whose inputs int8 holds exactly keep the
//! tolerance of the table.
//!
//! Plain sequential f32 sums reach at most half of these bounds in every case of matmul, rms_norm, silu_mul and
//! paged_attention, so a kernel that fails has a bug, or computes in less than f32.

mod attention;
mod cache;
mod dense;
mod draw;
mod feed;
mod fused;
mod int8;
mod matmul;
mod qkv;
mod rng;
mod run;
mod step_data;
mod tiny_model;

pub use rng::SplitMix64;
pub use run::{CaseReport, run_case};
pub use step_data::{BLOCK_SIZE, SeqPlan, StepData};

use std::borrow::Cow;

use super::{
    ActId, Activation, AttentionShape, HostWeight, KvDtype, KvLayout, Op, ProductInputs, Program, RopeTable, Rows,
    StepLimits, WeightFormat, WeightPart, quantize_row,
};
pub(super) use step_data::limits_of;

/// One test of one kernel.
pub struct KernelCase {
    /// `kernel/what is special about it`, unique.
    pub name: String,
    /// The kernel under test.
    pub kernel: &'static str,
    /// Largest error that passes, relative to `max(1, |want|)`; see the [module](self)'s table.
    pub tolerance: f64,
    /// The same for values read back from the KV pool.
    pub kv_tolerance: f64,
    /// Both of them where products round their inputs to f16; `None` where there is no product.
    pub f16_tolerance: Option<f64>,
    /// Both of them where products round activations to int8; `None` where there is no product of quantised weights.
    pub int8_tolerance: Option<f64>,
    /// Lets the backend round activations to int8; no case does by itself.
    pub quantize_activations: bool,
    /// In the quick subset: a few small cases per kernel.
    pub quick: bool,
    /// Needs some hundred MiB on host and device.
    pub large: bool,
    build: Box<dyn Fn(&mut SplitMix64) -> CaseData + Send + Sync>,
}

impl std::fmt::Debug for KernelCase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelCase").field("name", &self.name).finish_non_exhaustive()
    }
}

impl KernelCase {
    fn new(
        kernel: &'static str,
        name: String,
        tolerance: f64,
        build: impl Fn(&mut SplitMix64) -> CaseData + Send + Sync + 'static,
    ) -> Self {
        let name = format!("{kernel}/{name}");
        let (kv_tolerance, build) = (tolerance, Box::new(build));
        Self {
            name,
            kernel,
            tolerance,
            kv_tolerance,
            f16_tolerance: None,
            int8_tolerance: None,
            quantize_activations: false,
            quick: false,
            large: false,
            build,
        }
    }

    /// A case with products of weights in these formats, and its largest error where inputs are rounded to f16.
    fn with_products(self, f16_tolerance: f64, formats: &[WeightFormat]) -> Self {
        let is_quantised = formats.iter().any(|format| format.is_quantised());
        let int8_tolerance = is_quantised.then_some(8.0 * f16_tolerance);
        Self { f16_tolerance: Some(f16_tolerance), int8_tolerance, ..self }
    }

    /// The largest errors that pass, of activations and of values in the KV pool.
    fn tolerances(&self, inputs: ProductInputs) -> (f64, f64) {
        let at_least = match inputs {
            ProductInputs::F32 => 0.0,
            ProductInputs::F16 => self.f16_tolerance.unwrap_or(0.0),
            ProductInputs::Int8 => self.int8_tolerance.unwrap_or(0.0),
        };
        (self.tolerance.max(at_least), self.kv_tolerance.max(at_least))
    }

    /// One of the quick subset, if `quick`.
    fn quick_if(mut self, quick: bool) -> Self {
        self.quick = quick;
        self
    }

    /// Over a pool of this type; values read from one of f16 may differ by an ulp.
    fn with_kv(mut self, dtype: KvDtype) -> Self {
        if dtype == KvDtype::F16 {
            self.kv_tolerance = 1e-3;
        }
        self
    }

    fn data(&self) -> CaseData {
        (self.build)(&mut SplitMix64::from_name(&self.name))
    }
}

/// Every case, kernel by kernel, the simple kernels first.
pub fn all_cases() -> Vec<KernelCase> {
    [
        dense::cases(),
        draw::cases(),
        feed::cases(),
        matmul::cases(),
        fused::cases(),
        int8::cases(),
        qkv::cases(),
        cache::cases(),
        attention::cases(),
        tiny_model::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The weights, program and steps of a case.
struct CaseData {
    /// [`super::WeightId`] is the index.
    weights: Vec<HostWeight<'static>>,
    program: Program,
    kv: KvLayout,
    steps: Vec<CaseStep>,
}

impl CaseData {
    fn limits(&self) -> StepLimits {
        limits_of(self.steps.iter().map(|step| &step.data))
    }
}

/// One step of a case.
struct CaseStep {
    data: StepData,
    /// Rows to write, from row 0; the activation's other rows become NaN first.
    inputs: Vec<(ActId, Vec<f32>)>,
    /// One K and V pool per layer to write, or none.
    kv: Vec<(Vec<f32>, Vec<f32>)>,
    /// Blocks `(from, to)` that leave for the host and come back before the step.
    swaps: Vec<(u32, u32)>,
    /// Activations whose live rows are compared. Those that are no input are NaN before the step.
    outputs: Vec<ActId>,
    /// Compare the whole KV pool.
    compare_kv: bool,
}

impl CaseStep {
    fn new(data: StepData) -> Self {
        Self { data, inputs: Vec::new(), kv: Vec::new(), swaps: Vec::new(), outputs: Vec::new(), compare_kv: false }
    }

    fn input(mut self, activation: ActId, values: Vec<f32>) -> Self {
        self.inputs.push((activation, values));
        self
    }

    fn output(mut self, activation: ActId) -> Self {
        self.outputs.push(activation);
        self
    }
}

/// The activation of most one-op programs that is read.
const X: ActId = ActId(0);
/// The activation of most one-op programs that is written.
const OUT: ActId = ActId(1);

fn tokens_by(name: &'static str, cols: u32) -> Activation {
    Activation { name, rows: Rows::Tokens, cols }
}

fn logits_by(name: &'static str, cols: u32) -> Activation {
    Activation { name, rows: Rows::Logits, cols }
}

/// A program that never touches the KV pool, and a small pool for it.
fn dense_program(activations: Vec<Activation>, ops: impl IntoIterator<Item = Op>) -> (Program, KvLayout) {
    let attention = AttentionShape { num_heads: 4, num_kv_heads: 1, head_dim: 64, scale: 0.125 };
    let kv = kv_layout(&attention, 1, 8, KvDtype::F32);
    let ops = ops.into_iter().collect();
    (Program { activations, ops, attention, rope: RopeTable::default(), logits: None }, kv)
}

fn kv_layout(heads: &AttentionShape, num_layers: u32, num_blocks: u32, dtype: KvDtype) -> KvLayout {
    let (num_kv_heads, head_dim) = (heads.num_kv_heads, heads.head_dim);
    KvLayout { num_layers, num_blocks, block_size: BLOCK_SIZE, num_kv_heads, head_dim, dtype }
}

/// RoPE's table with base 10000, in f64.
fn rope_table(max_positions: u32, head_dim: u32) -> RopeTable {
    let half = head_dim / 2;
    let angles = (0..max_positions).flat_map(|position| {
        (0..half).map(move |i| f64::from(position) * 10_000f64.powf(-f64::from(i) / f64::from(half)))
    });
    let (cos, sin) = angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip();
    RopeTable { cos, sin }
}

/// A vector weight (norm, bias).
fn vector(name: &str, values: &[f32]) -> HostWeight<'static> {
    let mut data = Vec::new();
    quantize_row(WeightFormat::F32, values, &mut data);
    let parts = vec![WeightPart { format: WeightFormat::F32, rows: 1, data: Cow::Owned(data) }];
    HostWeight { name: name.to_owned(), cols: values.len(), parts }
}

/// A random matrix whose row-by-vector products are of order 1; each 32 elements have a scale of their own, and a mean,
/// so that a wrong block's scale or offset shows.
fn matrix(rng: &mut SplitMix64, name: &str, cols: usize, parts: &[(WeightFormat, usize)]) -> HostWeight<'static> {
    let part = |&(format, rows): &(WeightFormat, usize)| {
        let mut data = Vec::with_capacity(rows * format.row_bytes(cols).expect("whole blocks"));
        for _ in 0..rows {
            let mut values = rng.values(cols, 1.0 / (cols as f32).sqrt());
            for block in values.chunks_mut(32) {
                let (scale, mean) = (1.0 + rng.uniform(0.75), rng.uniform(0.5) / (cols as f32).sqrt());
                block.iter_mut().for_each(|value| *value = *value * scale + mean);
            }
            quantize_row(format, &values, &mut data);
        }
        WeightPart { format, rows, data: Cow::Owned(data) }
    };
    HostWeight { name: name.to_owned(), cols, parts: parts.iter().map(part).collect() }
}

/// The formats, and how names of cases spell them.
const FORMATS: [(WeightFormat, &str); 6] = [
    (WeightFormat::F32, "f32"),
    (WeightFormat::F16, "f16"),
    (WeightFormat::Bf16, "bf16"),
    (WeightFormat::Q8_0, "q8_0"),
    (WeightFormat::Q4_0, "q4_0"),
    (WeightFormat::Q4_1, "q4_1"),
];
