//! Runs a case on a backend and on the reference, and compares.

use super::{CaseData, CaseStep, KernelCase, StepData};
use crate::backend::cpu::CpuBackend;
use crate::backend::cpu::draw::Kept;
use crate::backend::{ActId, Backend, BackendError, Rows, StepLimits, StepOutput, TokenDraw};

/// How a backend did on a case.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseReport {
    /// Whether every value is within its tolerance.
    pub passed: bool,
    /// Largest `|got - want|`; infinite where a NaN, an infinity or a token is wrong.
    pub max_abs_error: f64,
    /// Largest `|got - want| / max(1, |want|)`.
    pub max_rel_error: f64,
    /// The tolerance of the value nearest to (or farthest beyond) its tolerance.
    pub tolerance: f64,
    /// Where that value stands, what it is and what it should be; empty when all are equal.
    pub worst: String,
}

/// Runs `case` on a new backend from `make_backend` and on the reference.
///
/// # Errors
/// What the backend under test returns.
pub fn run_case(
    case: &KernelCase,
    make_backend: &mut dyn FnMut() -> Result<Box<dyn Backend>, BackendError>,
) -> Result<CaseReport, BackendError> {
    let data = case.data();
    let mut backend = make_backend()?;
    let mut reference = CpuBackend::new();
    let limits = StepLimits { quantize_activations: case.quantize_activations, ..data.limits() };
    set_up(&data, limits, &mut *backend)?;
    set_up(&data, limits, &mut reference)?;

    let (tolerance, kv_tolerance) = case.tolerances(backend.product_inputs());
    let mut comparison = Comparison::new();
    for (index, step) in data.steps.iter().enumerate() {
        let got = run_step(&data, limits, step, &mut *backend)?;
        let want = run_step(&data, limits, step, &mut reference)?;
        let label = format!("step {index} of {} tokens", step.data.token_ids.len());
        for (got, want) in got.values.iter().zip(&want.values) {
            let tolerance = if got.in_kv_pool { kv_tolerance } else { tolerance };
            comparison.values(&format!("{label}, {}", got.name), &got.values, &want.values, got.cols, tolerance);
        }
        let logits = match data.program.logits {
            Some(logits) => reference.read_activation(logits, live_len(&data, step, logits))?,
            None => Vec::new(),
        };
        comparison.argmax(&label, &got.step, &want.step, &logits, tolerance);
        comparison.top_k(&label, &got.step, &want.step, step.data.top_k, tolerance);
        comparison.scores(&label, &got.step, &want.step, tolerance);
        comparison.draws(&label, &got.step, &want.step, &logits, &step.data, tolerance);
    }
    Ok(comparison.report)
}

/// Uploads weights and prepares the program; all activations and the whole pool become NaN.
fn set_up(data: &CaseData, limits: StepLimits, backend: &mut dyn Backend) -> Result<(), BackendError> {
    for (index, weight) in data.weights.iter().enumerate() {
        let id = backend.upload_weight(weight)?;
        assert_eq!(id.0 as usize, index, "weights are numbered as they come");
    }
    backend.prepare(data.program.clone(), data.kv, limits)?;
    let poison = vec![f32::NAN; data.kv.layer_elements()];
    (0..data.kv.num_layers as usize).try_for_each(|layer| backend.write_kv(layer, &poison, &poison))
}

/// What one step left behind.
struct Outcome {
    step: StepOutput,
    values: Vec<Values>,
}

struct Values {
    name: String,
    values: Vec<f32>,
    /// Elements in a row, for messages.
    cols: usize,
    in_kv_pool: bool,
}

/// Poisons the activations, writes the inputs, runs the step and reads what the case compares.
fn run_step(
    data: &CaseData,
    limits: StepLimits,
    step: &CaseStep,
    backend: &mut dyn Backend,
) -> Result<Outcome, BackendError> {
    for (index, activation) in data.program.activations.iter().enumerate() {
        let rows = limits.max_rows(activation.rows);
        let id = ActId(index as u32);
        let mut values = vec![f32::NAN; rows as usize * activation.cols as usize];
        if let Some((_, input)) = step.inputs.iter().find(|(input, _)| *input == id) {
            values[..input.len()].copy_from_slice(input);
        }
        backend.write_activation(id, &values)?;
    }
    for (layer, (k, v)) in step.kv.iter().enumerate() {
        backend.write_kv(layer, k, v)?;
    }
    let (from, to): (Vec<u32>, Vec<u32>) = step.swaps.iter().copied().unzip();
    let swapped = backend.read_blocks(&from)?;
    backend.write_blocks(&to, &swapped)?;
    let mut output = StepOutput::default();
    backend.forward(&step.data.input(), &mut output)?;

    let mut values = Vec::new();
    for &id in &step.outputs {
        let activation = data.program.activations[id.0 as usize];
        let read = backend.read_activation(id, live_len(data, step, id))?;
        let (name, cols) = (activation.name.to_owned(), activation.cols as usize);
        values.push(Values { name, values: read, cols, in_kv_pool: false });
    }
    if let Some(logits) = data.program.logits {
        let cols = data.program.activations[logits.0 as usize].cols as usize;
        let name = "logits that came back".to_owned();
        values.push(Values { name, values: output.logits.clone(), cols, in_kv_pool: false });
    }
    if step.compare_kv {
        for layer in 0..data.kv.num_layers as usize {
            let (k, v) = backend.read_kv(layer)?;
            for (name, pool) in [("K", k), ("V", v)] {
                let name = format!("{name} pool of layer {layer} by [block, head, offset]");
                values.push(Values { name, values: pool, cols: data.kv.head_dim as usize, in_kv_pool: true });
            }
        }
    }
    Ok(Outcome { step: output, values })
}

/// Elements of an activation's rows in this step.
fn live_len(data: &CaseData, step: &CaseStep, id: ActId) -> usize {
    let activation = data.program.activations[id.0 as usize];
    let rows = match activation.rows {
        Rows::Tokens => step.data.token_ids.len(),
        Rows::Logits => step.data.logits_indices.len(),
    };
    rows * activation.cols as usize
}

/// Collects the largest errors.
struct Comparison {
    report: CaseReport,
    /// Largest error over tolerance so far.
    worst_ratio: f64,
}

impl Comparison {
    fn new() -> Self {
        let report =
            CaseReport { passed: true, max_abs_error: 0.0, max_rel_error: 0.0, tolerance: 0.0, worst: String::new() };
        Self { report, worst_ratio: -1.0 }
    }

    /// Compares arrays; two NaN are equal, and so are two equal infinities.
    fn values(&mut self, label: &str, got: &[f32], want: &[f32], cols: usize, tolerance: f64) {
        if got.len() != want.len() {
            let worst = || format!("{label}: {} values instead of {}", got.len(), want.len());
            return self.error(f64::INFINITY, f64::INFINITY, tolerance, worst);
        }
        for (index, (&got, &want)) in got.iter().zip(want).enumerate() {
            if got == want || (got.is_nan() && want.is_nan()) {
                continue;
            }
            let (got, want) = (f64::from(got), f64::from(want));
            let abs = match (got - want).abs() {
                error if error.is_finite() => error,
                _ => f64::INFINITY,
            };
            let rel = if abs.is_finite() { abs / want.abs().max(1.0) } else { abs };
            self.error(abs, rel, tolerance, || {
                format!("{label}: row {}, column {} is {got:e} instead of {want:e}", index / cols, index % cols)
            });
        }
        self.error(0.0, 0.0, tolerance, String::new);
    }

    /// Compares argmax: another token passes where the reference's logit for it is within the tolerance of the largest
    /// (never with tolerance 0, where ties must go to the lowest id).
    fn argmax(&mut self, label: &str, got: &StepOutput, want: &StepOutput, logits: &[f32], tolerance: f64) {
        if got.argmax.len() != want.argmax.len() {
            let worst = || format!("{label}: {} argmax tokens instead of {}", got.argmax.len(), want.argmax.len());
            return self.error(f64::INFINITY, f64::INFINITY, tolerance, worst);
        }
        let vocab = logits.len() / want.argmax.len().max(1);
        for (row, (&got, &want)) in got.argmax.iter().zip(&want.argmax).enumerate() {
            if got == want {
                continue;
            }
            let logit = |token: u32| logits[row * vocab..][..vocab].get(token as usize).copied().map(f64::from);
            let abs = match (logit(got), logit(want)) {
                (Some(got), Some(want)) if tolerance > 0.0 && got.is_finite() => want - got,
                _ => f64::INFINITY,
            };
            let rel = abs / logit(want).unwrap_or(0.0).abs().max(1.0);
            self.error(abs, rel, tolerance, || format!("{label}: argmax of row {row} is {got} instead of {want}"));
        }
    }

    /// Compares the likeliest tokens, exactly, and their log probabilities.
    fn top_k(&mut self, label: &str, got: &StepOutput, want: &StepOutput, k: u32, tolerance: f64) {
        if k == 0 {
            return;
        }
        let tokens = |output: &StepOutput| output.top_k.iter().map(|score| score.token as f32).collect::<Vec<f32>>();
        let logprobs = |output: &StepOutput| output.top_k.iter().map(|score| score.logprob).collect::<Vec<f32>>();
        self.values(&format!("{label}, likeliest tokens"), &tokens(got), &tokens(want), k as usize, 0.0);
        let label = format!("{label}, log probabilities");
        self.values(&label, &logprobs(got), &logprobs(want), k as usize, tolerance);
    }

    /// Compares the scored tokens' log probabilities, and their ranks exactly.
    fn scores(&mut self, label: &str, got: &StepOutput, want: &StepOutput, tolerance: f64) {
        let ranks = |output: &StepOutput| output.scores.iter().map(|score| score.rank as f32).collect::<Vec<f32>>();
        let logprobs = |output: &StepOutput| output.scores.iter().map(|score| score.logprob).collect::<Vec<f32>>();
        self.values(&format!("{label}, ranks"), &ranks(got), &ranks(want), 1, 0.0);
        self.values(&format!("{label}, scores"), &logprobs(got), &logprobs(want), 1, tolerance);
    }

    /// Compares what was drawn: another token passes where the uniform number is within the tolerance of those that give
    /// it.
    fn draws(
        &mut self,
        label: &str,
        got: &StepOutput,
        want: &StepOutput,
        logits: &[f32],
        data: &StepData,
        tolerance: f64,
    ) {
        if got.drawn.len() != want.drawn.len() {
            let worst = || format!("{label}: {} tokens drawn instead of {}", got.drawn.len(), want.drawn.len());
            return self.error(f64::INFINITY, f64::INFINITY, tolerance, worst);
        }
        let vocab = logits.len() / want.argmax.len().max(1);
        for (i, (&got, &want)) in got.drawn.iter().zip(&want.drawn).enumerate() {
            if got == want {
                continue;
            }
            let draw = &data.draws[i];
            let row = &logits[draw.row as usize * vocab..][..vocab];
            let distance = |draw: TokenDraw| match Kept::of(row, &draw, &data.adjustments) {
                Ok(kept) if (got as usize) < vocab => kept.distance(f64::from(draw.uniform), got),
                _ => f64::INFINITY,
            };
            let error = at_borders(draw).map(distance).fold(f64::INFINITY, f64::min);
            self.error(error, error, tolerance, || {
                format!("{label}: draw {i} gives {got} instead of {want}: {draw:?}")
            });
        }
    }

    fn error(&mut self, abs: f64, rel: f64, tolerance: f64, worst: impl FnOnce() -> String) {
        self.report.max_abs_error = self.report.max_abs_error.max(abs);
        self.report.max_rel_error = self.report.max_rel_error.max(rel);
        self.report.passed &= rel <= tolerance;
        let ratio = match (rel, tolerance) {
            (0.0, _) => 0.0,
            (rel, 0.0) => rel * f64::MAX,
            (rel, tolerance) => rel / tolerance,
        };
        if ratio > self.worst_ratio {
            self.worst_ratio = ratio;
            self.report.tolerance = tolerance;
            self.report.worst = worst();
        }
    }
}

/// A draw, and those whose cuts by weight are a rounding error to either side: a token at the very border may stay or go.
fn at_borders(draw: &TokenDraw) -> impl Iterator<Item = TokenDraw> {
    const ROUNDINGS: [f32; 3] = [0.0, -1e-5, 1e-5];
    let moved = |cut: f32, by: f32| if cut < 1.0 { (cut * (1.0 + by)).min(1.0) } else { cut };
    let top_ps = ROUNDINGS.map(|by| moved(draw.top_p, by));
    let min_ps = ROUNDINGS.map(|by| moved(draw.min_p, by));
    top_ps.into_iter().flat_map(move |top_p| min_ps.map(|min_p| TokenDraw { top_p, min_p, ..*draw }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(got: &[f32], want: &[f32], tolerance: f64) -> CaseReport {
        let mut comparison = Comparison::new();
        comparison.values("x", got, want, 2, tolerance);
        comparison.report
    }

    #[test]
    fn errors_are_relative_above_one_and_absolute_below() {
        let report = compare(&[0.125, 1010.0], &[0.0, 1000.0], 0.1);
        assert_eq!((report.max_abs_error, report.max_rel_error, report.passed), (10.0, 0.125, false));
        assert_eq!(report.worst, "x: row 0, column 0 is 1.25e-1 instead of 0e0");
        assert!(compare(&[0.125, 1010.0], &[0.0, 1000.0], 0.125).passed);
    }

    #[test]
    fn nan_equals_nan_and_nothing_else() {
        assert!(compare(&[f32::NAN, f32::NEG_INFINITY], &[f32::NAN, f32::NEG_INFINITY], 0.0).passed);
        assert!(!compare(&[f32::NAN], &[1.0], 1e9).passed);
        assert!(!compare(&[1.0], &[f32::NAN], 1e9).passed);
        assert!(!compare(&[f32::INFINITY], &[1.0], 1e9).passed);
        assert!(!compare(&[1.0], &[1.0, 1.0], 1e9).passed);
    }

    #[test]
    fn a_token_at_the_border_of_a_cut_may_stay_or_go() {
        let passes = |top_p: f32, got: u32, uniform: f32| {
            let draw = TokenDraw { top_p, uniform, ..TokenDraw::unfiltered(0) };
            let data = StepData { draws: vec![draw], ..StepData::of_tokens(1) };
            let output = |token| StepOutput { argmax: vec![0], drawn: vec![token], ..StepOutput::default() };
            let mut comparison = Comparison::new();
            comparison.draws("x", &output(got), &output(0), &[1.0; 4], &data, 1e-4);
            comparison.report.passed
        };
        // Half of four equal tokens: two, or three where the sum of two falls a little short.
        assert!(passes(0.5, 1, 0.4) && passes(0.5, 2, 0.9));
        assert!(!passes(0.51, 1, 0.3) && !passes(0.5, 3, 0.9));
    }

    #[test]
    fn argmax_may_differ_only_between_logits_within_the_tolerance() {
        let passes = |got: u32, want: u32, tolerance| {
            let mut comparison = Comparison::new();
            let output = |token| StepOutput { argmax: vec![token], ..StepOutput::default() };
            comparison.argmax("x", &output(got), &output(want), &[0.5, 0.75, 0.75, -1.0], tolerance);
            comparison.report.passed
        };
        assert!(passes(1, 1, 0.0));
        assert!(!passes(2, 1, 0.0), "a tie goes to the lowest id");
        assert!(passes(2, 1, 0.1) && passes(0, 1, 0.3));
        assert!(!passes(0, 1, 0.1) && !passes(3, 1, 0.3) && !passes(9, 1, 0.3));
    }
}
