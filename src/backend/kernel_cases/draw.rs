//! Cases of the draws. Another token than the reference's passes where the uniform number is within the tolerance of the
//! numbers that give it, so rounding may decide at the border of two tokens or of a cut, and nowhere else.

use super::{CaseData, CaseStep, KernelCase, SplitMix64, StepData, X, dense_program, logits_by};
use crate::backend::{LogitAdjustment, TokenDraw};

/// Which parameters of a case's draws are not at their defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
enum About {
    Temperature,
    TopK,
    TopP,
    MinP,
    Adjustments,
    Together,
}

pub(super) fn cases() -> Vec<KernelCase> {
    use About::*;
    let mut cases = Vec::new();
    for vocab in [131, 1024, 49_152] {
        for about in [Temperature, TopK, TopP, MinP, Adjustments, Together] {
            let build = move |rng: &mut SplitMix64| data(rng, about, vocab);
            let case = KernelCase::new("draw", format!("{about:?}/{vocab}"), 1e-4, build);
            // The large vocabulary with few rows only: on a software adapter with barriers it takes its time.
            cases.push(case.quick_if(vocab == 1024 || about == TopP));
        }
    }
    cases
}

fn data(rng: &mut SplitMix64, about: About, vocab: u32) -> CaseData {
    let (mut program, kv) = dense_program(vec![logits_by("logits", vocab)], None);
    program.logits = Some(X);
    // Many rows of a large vocabulary take their time to make: once is enough.
    let many = vocab < 10_000 || about == About::Together;
    let steps = [1, 7, 64].into_iter().filter(|&rows| rows < 64 || many).map(|rows: u32| {
        // The single row is a plain one.
        let logits = (0..rows).flat_map(|row| row_of_kind(rng, vocab, if rows == 1 { 6 } else { row % 8 })).collect();
        let mut data = StepData::of_tokens(rows);
        data.logits_indices = (0..rows).collect();
        // Two draws from the first row, as parallel samples make them, none from the second.
        for i in 0..rows.max(2) {
            let row = if i == 1 { 0 } else { i };
            let draw = draw(rng, about, vocab, i, &mut data.adjustments);
            data.draws.push(TokenDraw { row, ..draw });
        }
        CaseStep::new(data).input(X, logits)
    });
    CaseData { weights: Vec::new(), program, kv, steps: steps.collect() }
}

/// A row of logits.
fn row_of_kind(rng: &mut SplitMix64, vocab: u32, kind: u32) -> Vec<f32> {
    let len = vocab as usize;
    // Most tokens unlikely, some likely, as a model gives them.
    let mut row: Vec<f32> = rng.values(len, 2.0);
    for _ in 0..40 {
        row[rng.below(vocab) as usize] += 6.0;
    }
    match kind {
        // Few different values, hence many ties.
        0 => row.iter_mut().for_each(|x| *x = (*x / 3.0).round() * 3.0),
        1 => row.fill(-2.5),
        // Masked but for every seventh, and but for one.
        2 => row.iter_mut().enumerate().filter(|(i, _)| i % 7 != 3).for_each(|(_, x)| *x = f32::NEG_INFINITY),
        3 => {
            row.fill(f32::NEG_INFINITY);
            row[len - 1] = -1e30;
        }
        // One token far ahead, and a tie of the two zeros.
        4 => (row[0], row[1], row[len / 2]) = (-0.0, 0.0, 30.0),
        // Nothing can be drawn.
        5 => match rng.below(3) {
            0 => row[len - 1] = f32::NAN,
            1 => row[len / 3] = f32::INFINITY,
            _ => row.fill(f32::NEG_INFINITY),
        },
        _ => {}
    }
    row
}

/// The draw `i` of a step; what it adjusts goes to the end of `adjustments`.
fn draw(rng: &mut SplitMix64, about: About, vocab: u32, i: u32, adjustments: &mut Vec<LogitAdjustment>) -> TokenDraw {
    let has = |parameter| about == parameter || about == About::Together;
    // In a case about one parameter its values come in turn; together, all in every combination that comes up.
    let mut turn =
        |len: usize| if about == About::Together { rng.below(len as u32) as usize } else { i as usize % len };
    let temperature = [0.3, 1.7, 1e-5, 0.02, 1e6, 3e38, 1.0][turn(7)];
    let top_k = [40, 1, 2, vocab - 1, vocab, vocab + 5, 7][turn(7)];
    let top_p = [0.9, 0.5, 1e-6, 0.9999, 0.999_999_94, 1.0][turn(6)];
    let min_p = [0.05, 0.5, 1.0, 1e-6, 0.0][turn(5)];
    let repetition_penalty = [1.3, 0.7, 1e-30, 1.0][turn(4)];
    let frequency_penalty = [0.4, -0.4, 2.0, 0.0, 0.1][turn(5)];
    let presence_penalty = [0.9, 0.0, -2.0][turn(3)];
    let mut draw = TokenDraw {
        first_adjustment: adjustments.len() as u32,
        top_k: if has(About::TopK) { top_k } else { 0 },
        top_p: if has(About::TopP) { top_p } else { 1.0 },
        min_p: if has(About::MinP) { min_p } else { 0.0 },
        temperature: if has(About::Temperature) { temperature } else { 1.0 },
        repetition_penalty,
        frequency_penalty,
        presence_penalty,
        uniform: match i {
            4 => 0.0,
            6 => 1.0,
            _ => (rng.uniform(0.5) + 0.5).min(1.0),
        },
        ..TokenDraw::unfiltered(0)
    };
    if has(About::Adjustments) {
        // Without any, few, or a long history.
        let every = [3, 50, vocab][if i == 0 { 0 } else { rng.below(3) as usize }];
        adjustments.extend((0..vocab).filter(|token| token % every == every / 2).map(|token| LogitAdjustment {
            token,
            seen: u32::from(token % 5 != 0),
            count: if token % 5 > 1 { rng.below(9) } else { 0 },
            bias: match token % 11 {
                0 => f32::NEG_INFINITY,
                1 => rng.uniform(100.0),
                2 => rng.uniform(3.0),
                _ => 0.0,
            },
        }));
        draw.num_adjustments = adjustments.len() as u32 - draw.first_adjustment;
    }
    draw
}
