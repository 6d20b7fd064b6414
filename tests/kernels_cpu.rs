//! The kernel cases against the reference itself, and against backends that are wrong on purpose: a case that cannot
//! fail tests nothing.

#![cfg(feature = "runtime")]

use std::borrow::Cow;

use bindery::backend::cpu::CpuBackend;
use bindery::backend::kernel_cases::{KernelCase, all_cases, run_case};
use bindery::backend::{
    ActId, Backend, BackendError, DeviceMemory, HostWeight, KvLayout, ProductInputs, Program, StepInput, StepLimits,
    StepOutput, TokenDraw, WeightId,
};

/// What a [`Faulty`] backend does wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// The last element of an activation is off by this much, relative to `max(1, |x|)`.
    Activation(f64),
    /// The last element of an activation is NaN.
    NanActivation,
    /// One finite value of layer 0's or 1's V pool is off by this much.
    KvValue(f64),
    /// A slot that no token went to is written.
    StraySlot,
    /// One value of the returned logits is off by this much.
    Logits(f64),
    /// The last row of each matrix is taken from the row before.
    WeightRow,
    /// Another token is embedded.
    Token,
    /// The logits rows are those of the neighbouring tokens.
    LogitsIndex,
    /// K and V go to the next slot.
    Slot,
    /// The next block of the pool is read and written.
    BlockTable,
    /// Positions one too low: another rotation, and the attention misses its last key.
    Position,
    /// No block is copied.
    NoCopies,
    /// Swapped blocks come back in each other's places.
    SwapOrder,
    /// Argmax takes the last of equal logits.
    LastOfTies,
    /// The last of the likeliest tokens is off by this much in its log probability.
    LogProb(f64),
    /// The last two of the likeliest tokens stand the wrong way round.
    TopKSwapped,
    /// The likeliest tokens are those of the neighbouring rows.
    TopKRow,
    /// Tokens are drawn from the neighbouring rows.
    DrawRow,
    /// Tokens are drawn by the opposite number.
    DrawUniform,
    /// Tokens are drawn with every parameter at its default.
    DrawDefaults,
}

/// The reference with a fault.
struct Faulty {
    inner: CpuBackend,
    fault: Fault,
    inputs: ProductInputs,
    kv: Option<KvLayout>,
    logits: Option<(ActId, usize)>,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self { inner: CpuBackend::new(), fault, inputs: ProductInputs::F32, kv: None, logits: None }
    }

    fn last_of_ties(&mut self, rows: usize) -> Result<Vec<u32>, BackendError> {
        let Some((logits, vocab)) = self.logits else { return Ok(Vec::new()) };
        let logits = self.inner.read_activation(logits, rows * vocab)?;
        let last_of_ties = |row: &[f32]| {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.iter().rposition(|&logit| logit == max).expect("a row has a largest value") as u32
        };
        Ok(logits.chunks_exact(vocab).map(last_of_ties).collect())
    }

    fn faulty_draw(&self, draw: TokenDraw) -> TokenDraw {
        match self.fault {
            Fault::DrawRow => TokenDraw { row: draw.row.saturating_sub(1), ..draw },
            Fault::DrawUniform => TokenDraw { uniform: 1.0 - draw.uniform, ..draw },
            Fault::DrawDefaults => {
                TokenDraw { top_k: 0, top_p: 1.0, min_p: 0.0, temperature: 1.0, num_adjustments: 0, ..draw }
            }
            _ => draw,
        }
    }
}

/// `x` off by `error * max(1, |x|)`, at least by one ulp.
fn nudged(x: f32, error: f64) -> f32 {
    let nudged = (f64::from(x) + error * f64::from(x).abs().max(1.0)) as f32;
    if nudged == x { x.next_up() } else { nudged }
}

fn nudge_last_finite(values: &mut [f32], error: f64) {
    if let Some(value) = values.iter_mut().rev().find(|value| value.is_finite()) {
        *value = nudged(*value, error);
    }
}

impl Backend for Faulty {
    fn description(&self) -> String {
        format!("cpu with fault {:?}", self.fault)
    }

    fn upload_weight(&mut self, weight: &HostWeight<'_>) -> Result<WeightId, BackendError> {
        let mut weight = weight.clone();
        if self.fault == Fault::WeightRow && weight.rows() > 1 {
            let part = weight.parts.last_mut().expect("a part");
            let mut data = part.data.to_vec();
            let row_bytes = data.len() / part.rows;
            let last = data.len() - row_bytes;
            data.copy_within(last - row_bytes..last, last);
            part.data = Cow::Owned(data);
        }
        self.inner.upload_weight(&weight)
    }

    fn prepare(&mut self, program: Program, kv: KvLayout, limits: StepLimits) -> Result<(), BackendError> {
        self.kv = Some(kv);
        self.logits = program.logits.map(|id| (id, program.activations[id.0 as usize].cols as usize));
        self.inner.prepare(program, kv, limits)
    }

    fn submit(&mut self, input: &StepInput<'_>) -> Result<(), BackendError> {
        let kv = self.kv.expect("prepare() comes first");
        let next = |values: &[u32], n: u32| values.iter().map(|value| (value + 1) % n).collect::<Vec<u32>>();
        let tokens: Vec<u32> = input.token_ids.iter().map(|&id| if id == 0 { 1 } else { id - 1 }).collect();
        let logits_indices = next(input.logits_indices, input.token_ids.len() as u32);
        let slots = next(input.slot_mapping, kv.num_blocks * kv.block_size);
        let blocks = next(input.block_tables, kv.num_blocks);
        let top_k_rows: Vec<u32> = input.top_k_rows.iter().map(|row| row.saturating_sub(1)).collect();
        let positions: Vec<u32> = input.positions.iter().map(|position| position.saturating_sub(1)).collect();
        let draws: Vec<TokenDraw> = input.draws.iter().map(|draw| self.faulty_draw(*draw)).collect();
        let mut input = StepInput { draws: &draws, ..*input };
        match self.fault {
            Fault::Token => input.token_ids = &tokens,
            Fault::LogitsIndex => input.logits_indices = &logits_indices,
            Fault::Slot => input.slot_mapping = &slots,
            Fault::BlockTable => input.block_tables = &blocks,
            Fault::Position => input.positions = &positions,
            Fault::NoCopies => input.block_copies = &[],
            Fault::TopKRow => input.top_k_rows = &top_k_rows,
            _ => {}
        }
        self.inner.submit(&input)
    }

    fn collect(&mut self, output: &mut StepOutput) -> Result<(), BackendError> {
        self.inner.collect(output)?;
        match self.fault {
            Fault::LastOfTies => output.argmax = self.last_of_ties(output.argmax.len())?,
            Fault::Logits(error) => nudge_last_finite(&mut output.logits, error),
            Fault::LogProb(error) => {
                let last = output.top_k.last_mut().expect("some are asked for");
                last.logprob = nudged(last.logprob, error);
            }
            Fault::TopKSwapped => {
                let len = output.top_k.len();
                let (a, b) = (output.top_k[len - 2].token, output.top_k[len - 1].token);
                (output.top_k[len - 2].token, output.top_k[len - 1].token) = (b, a);
            }
            _ => {}
        }
        Ok(())
    }

    fn write_activation(&mut self, activation: ActId, values: &[f32]) -> Result<(), BackendError> {
        self.inner.write_activation(activation, values)
    }

    fn read_activation(&mut self, activation: ActId, len: usize) -> Result<Vec<f32>, BackendError> {
        let mut values = self.inner.read_activation(activation, len)?;
        match (self.fault, values.last_mut()) {
            (Fault::Activation(error), Some(last)) => *last = nudged(*last, error),
            (Fault::NanActivation, Some(last)) => *last = f32::NAN,
            _ => {}
        }
        Ok(values)
    }

    fn write_kv(&mut self, layer: usize, k: &[f32], v: &[f32]) -> Result<(), BackendError> {
        self.inner.write_kv(layer, k, v)
    }

    fn read_kv(&mut self, layer: usize) -> Result<(Vec<f32>, Vec<f32>), BackendError> {
        let (mut k, mut v) = self.inner.read_kv(layer)?;
        match self.fault {
            Fault::KvValue(error) => nudge_last_finite(&mut v, error),
            Fault::StraySlot => *k.iter_mut().find(|k| k.is_nan()).expect("a free slot") = 0.0,
            _ => {}
        }
        Ok((k, v))
    }

    fn read_blocks(&mut self, blocks: &[u32]) -> Result<Vec<u8>, BackendError> {
        self.inner.read_blocks(blocks)
    }

    fn write_blocks(&mut self, blocks: &[u32], bytes: &[u8]) -> Result<(), BackendError> {
        let blocks: Vec<u32> = match self.fault {
            Fault::SwapOrder => blocks.iter().rev().copied().collect(),
            _ => blocks.to_vec(),
        };
        self.inner.write_blocks(&blocks, bytes)
    }

    fn product_inputs(&self) -> ProductInputs {
        self.inputs
    }

    fn memory(&self) -> DeviceMemory {
        self.inner.memory()
    }

    fn allocated_bytes(&self) -> u64 {
        self.inner.allocated_bytes()
    }
}

fn cases_of(kernel: &'static str) -> impl Iterator<Item = KernelCase> {
    let cases: Vec<_> = all_cases().into_iter().filter(|case| case.kernel == kernel && !case.large).collect();
    assert!(!cases.is_empty(), "no case of {kernel}");
    cases.into_iter()
}

/// Every case of `kernel` passes on the reference and fails with each of the faults.
fn assert_notices(kernel: &'static str, faults: impl Fn(&KernelCase) -> Vec<Fault>) {
    for case in cases_of(kernel) {
        let report = run_case(&case, &mut || Ok(Box::new(CpuBackend::new()))).expect("the reference runs everything");
        assert!(report.passed && report.max_abs_error == 0.0, "{}: {report:?}", case.name);
        for fault in faults(&case) {
            let report = run_case(&case, &mut || Ok(Box::new(Faulty::new(fault)))).expect("so does its wrapper");
            assert!(!report.passed, "{} passes with fault {fault:?}", case.name);
            assert!(!report.worst.is_empty() && report.max_rel_error > report.tolerance, "{}: {report:?}", case.name);
        }
    }
}

/// Just beyond the tolerance.
fn beyond(tolerance: f64) -> f64 {
    1.2 * tolerance
}

#[test]
fn embed_cases_notice_faults() {
    let faults = |case: &KernelCase| vec![Fault::Activation(beyond(case.tolerance)), Fault::Token, Fault::WeightRow];
    assert_notices("embed", faults);
}

#[test]
fn rms_norm_cases_notice_faults() {
    assert_notices("rms_norm", |case| vec![Fault::Activation(beyond(case.tolerance)), Fault::NanActivation]);
}

#[test]
fn silu_mul_cases_notice_faults() {
    assert_notices("silu_mul", |case| vec![Fault::Activation(beyond(case.tolerance)), Fault::NanActivation]);
}

#[test]
fn matmul_cases_notice_faults() {
    assert_notices("matmul", |case| vec![Fault::Activation(beyond(case.tolerance)), Fault::WeightRow]);
}

#[test]
fn cases_of_fused_products_notice_faults() {
    for kernel in ["norm_matmul", "matmul_silu", "norm_matmul_silu"] {
        assert_notices(kernel, |case| vec![Fault::Activation(beyond(case.tolerance)), Fault::WeightRow]);
    }
    for kernel in ["matmul_rope", "norm_matmul_rope"] {
        assert_notices(kernel, |case| {
            let (q, kv) = (beyond(case.tolerance), beyond(case.kv_tolerance));
            let of_cache = [Fault::KvValue(kv), Fault::StraySlot, Fault::Slot, Fault::Position];
            [Fault::Activation(q), Fault::WeightRow].into_iter().chain(of_cache).collect()
        });
    }
}

#[test]
fn products_of_rounded_inputs_have_a_tolerance_of_their_own() {
    let tolerances = |case: &KernelCase| {
        let tolerances = [(ProductInputs::F16, case.f16_tolerance), (ProductInputs::Int8, case.int8_tolerance)];
        tolerances.into_iter().filter_map(|(inputs, tolerance)| Some((inputs, tolerance?))).collect::<Vec<_>>()
    };
    for case in all_cases().into_iter().filter(|case| case.quick) {
        for (inputs, tolerance) in tolerances(&case) {
            assert!(tolerance >= case.tolerance.max(case.kv_tolerance), "{}", case.name);
            for (share, passes) in [(0.8, true), (1.2, false)] {
                let error = share * tolerance;
                let fault = if case.kernel == "tiny_model" { Fault::Logits(error) } else { Fault::Activation(error) };
                let faulty = || Faulty { inputs, ..Faulty::new(fault) };
                let report = run_case(&case, &mut || Ok(Box::new(faulty()))).expect("the reference runs everything");
                assert_eq!(report.passed, passes, "{}, {inputs:?}: {report:?}", case.name);
            }
        }
    }
}

#[test]
fn select_logits_rows_cases_notice_faults() {
    assert_notices("select_logits_rows", |_| vec![Fault::Activation(0.0), Fault::LogitsIndex]);
}

#[test]
fn argmax_cases_notice_faults() {
    assert_notices("argmax", |_| vec![Fault::LastOfTies, Fault::Logits(0.0)]);
}

#[test]
fn top_k_cases_notice_faults() {
    assert_notices("top_k", |case| vec![Fault::LogProb(beyond(case.tolerance)), Fault::TopKSwapped, Fault::TopKRow]);
}

#[test]
fn rope_and_cache_cases_notice_faults() {
    assert_notices("rope_and_cache", |case| {
        let (q, kv) = (beyond(case.tolerance), beyond(case.kv_tolerance));
        vec![Fault::Activation(q), Fault::KvValue(kv), Fault::StraySlot, Fault::Slot, Fault::Position]
    });
}

#[test]
fn block_copies_cases_notice_faults() {
    assert_notices("block_copies", |_| vec![Fault::NoCopies, Fault::KvValue(0.0), Fault::StraySlot]);
    assert_notices("swap_blocks", |_| vec![Fault::SwapOrder, Fault::NoCopies, Fault::KvValue(0.0)]);
}

#[test]
fn paged_attention_cases_notice_faults() {
    assert_notices("paged_attention", |case| {
        vec![Fault::Activation(beyond(case.tolerance)), Fault::BlockTable, Fault::Position]
    });
}

#[test]
fn tiny_model_cases_notice_faults() {
    assert_notices("tiny_model", |case| {
        let kv = Fault::KvValue(beyond(case.kv_tolerance));
        let logits = Fault::Logits(beyond(case.tolerance));
        vec![logits, kv, Fault::NoCopies, Fault::BlockTable, Fault::Slot, Fault::Position, Fault::Token]
    });
}

#[test]
fn large_cases_pass_on_the_reference() {
    for case in all_cases().iter().filter(|case| case.large) {
        let report = run_case(case, &mut || Ok(Box::new(CpuBackend::new()))).expect("the reference runs everything");
        assert!(report.passed, "{}: {report:?}", case.name);
    }
}

#[test]
fn names_are_unique_and_every_kernel_has_quick_cases() {
    let cases = all_cases();
    let names: std::collections::BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len());
    for case in &cases {
        assert!(case.name.starts_with(case.kernel), "{}", case.name);
        assert!(!(case.quick && case.large), "{}", case.name);
        assert!(cases.iter().any(|other| other.quick && other.kernel == case.kernel), "no quick case: {}", case.kernel);
    }
}

#[test]
fn draw_cases_notice_faults() {
    assert_notices("draw", |_| vec![Fault::DrawRow, Fault::DrawUniform, Fault::DrawDefaults]);
}
