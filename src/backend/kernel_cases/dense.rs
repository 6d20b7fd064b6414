//! Cases of the kernels that know no KV pool: embed, rms_norm, silu_mul, row selection, argmax, the likeliest tokens and log probabilities.

use super::{
    CaseData, CaseStep, FORMATS, KernelCase, OUT, SplitMix64, StepData, X, dense_program, logits_by, matrix, tokens_by,
    vector,
};
use crate::backend::{Op, ScoredRow, ScoredToken, WeightFormat, WeightId};

pub(super) fn cases() -> Vec<KernelCase> {
    [embed(), rms_norm(), silu_mul(), select_logits_rows(), argmax(), top_k(), scores()].into_iter().flatten().collect()
}

fn embed() -> Vec<KernelCase> {
    let mut cases = Vec::new();
    for (format, name) in FORMATS {
        for hidden in [64, 576] {
            let build = move |rng: &mut SplitMix64| embed_data(rng, format, 131, hidden);
            let case = KernelCase::new("embed", format!("{name}/131x{hidden}"), 1e-6, build);
            cases.push(case.quick_if(hidden == 64));
        }
    }
    // 129 MiB: more than the smallest binding that WebGPU promises.
    let build = |rng: &mut SplitMix64| embed_data(rng, WeightFormat::F16, 33_000, 2048);
    let mut large = KernelCase::new("embed", "f16/33000x2048".to_owned(), 1e-6, build);
    large.large = true;
    cases.push(large);
    cases
}

fn embed_data(rng: &mut SplitMix64, format: WeightFormat, vocab: u32, hidden: u32) -> CaseData {
    let table = matrix(rng, "embedding", hidden as usize, &[(format, vocab as usize)]);
    let (program, kv) = dense_program(vec![tokens_by("out", hidden)], Some(Op::Embed { table: WeightId(0), out: X }));
    let steps = [1, 5, 33].map(|tokens| {
        let mut data = StepData::of_tokens(tokens);
        data.token_ids.fill_with(|| rng.below(vocab));
        // The table's ends, and one token twice.
        for (id, wanted) in data.token_ids.iter_mut().zip([vocab - 1, 0, 7, 7]) {
            *id = wanted;
        }
        CaseStep::new(data).output(X)
    });
    CaseData { weights: vec![table], program, kv, steps: steps.into() }
}

fn rms_norm() -> Vec<KernelCase> {
    let widths = [64, 576, 2048, 4096];
    let case = |n: u32| {
        let build = move |rng: &mut SplitMix64| {
            let weight = vector("norm", &rng.values(n as usize, 1.0));
            let op = Op::RmsNorm { x: X, weight: WeightId(0), eps: 1e-5, out: OUT };
            let (program, kv) = dense_program(vec![tokens_by("x", n), tokens_by("out", n)], Some(op));
            let steps = [1, 3, 33].map(|tokens| {
                let mut x = rng.values((tokens * n) as usize, 2.0);
                // A row of zeros, and one so small that eps matters.
                let rows = x.chunks_exact_mut(n as usize);
                for (row, factor) in rows.skip(1).zip([0.0, 1e-3]) {
                    row.iter_mut().for_each(|x| *x *= factor);
                }
                CaseStep::new(StepData::of_tokens(tokens)).input(X, x).output(OUT)
            });
            CaseData { weights: vec![weight], program, kv, steps: steps.into() }
        };
        KernelCase::new("rms_norm", n.to_string(), 1e-5, build).quick_if(n <= 576)
    };
    widths.map(case).into()
}

fn silu_mul() -> Vec<KernelCase> {
    let case = |n: u32| {
        let build = move |rng: &mut SplitMix64| {
            let op = Op::SiluMul { gate_up: X, out: OUT };
            let (program, kv) = dense_program(vec![tokens_by("gate_up", 2 * n), tokens_by("out", n)], Some(op));
            let steps = [1, 3, 33].map(|tokens| {
                let mut gate_up = rng.values((2 * tokens * n) as usize, 2.0);
                // Gates for which exp overflows in f32, on either side.
                (gate_up[0], gate_up[1]) = (-100.0, 100.0);
                CaseStep::new(StepData::of_tokens(tokens)).input(X, gate_up).output(OUT)
            });
            CaseData { weights: Vec::new(), program, kv, steps: steps.into() }
        };
        KernelCase::new("silu_mul", n.to_string(), 1e-5, build).quick_if(n < 2000)
    };
    [36, 96, 1536, 5632].map(case).into()
}

fn select_logits_rows() -> Vec<KernelCase> {
    let case = |n: u32| {
        let build = move |rng: &mut SplitMix64| {
            let op = Op::SelectLogitsRows { x: X, out: OUT };
            let (program, kv) = dense_program(vec![tokens_by("x", n), logits_by("out", n)], Some(op));
            let steps = [vec![32], vec![0, 6, 7, 20, 32], vec![4], Vec::new()].map(|indices: Vec<u32>| {
                let tokens = indices.last().map_or(3, |last| last + 1);
                let data = StepData { logits_indices: indices, ..StepData::of_tokens(tokens) };
                CaseStep::new(data).input(X, rng.values((tokens * n) as usize, 1.0)).output(OUT)
            });
            CaseData { weights: Vec::new(), program, kv, steps: steps.into() }
        };
        KernelCase::new("select_logits_rows", n.to_string(), 0.0, build).quick_if(true)
    };
    [36, 64, 576].map(case).into()
}

/// No op at all: the logits are written, what comes back is their argmax and the rows asked for.
fn argmax() -> Vec<KernelCase> {
    let case = |vocab: u32| {
        let build = move |rng: &mut SplitMix64| {
            let (mut program, kv) = dense_program(vec![logits_by("logits", vocab)], None);
            program.logits = Some(X);
            let steps = [1, 7].map(|rows: u32| {
                let logits: Vec<f32> = (0..rows).flat_map(|row| logits_row(rng, vocab, row + 7 - rows)).collect();
                let mut data = StepData::of_tokens(rows).with_logits((0..rows).collect());
                data.read_logits_rows.retain(|row| row % 3 != 1);
                CaseStep::new(data).input(X, logits)
            });
            CaseData { weights: Vec::new(), program, kv, steps: steps.into() }
        };
        KernelCase::new("argmax", vocab.to_string(), 0.0, build).quick_if(true)
    };
    [131, 1024, 49_152].map(case).into()
}

/// The likeliest tokens of some of the rows.
fn top_k() -> Vec<KernelCase> {
    let case = |(vocab, k): (u32, u32)| {
        let build = move |rng: &mut SplitMix64| {
            let (mut program, kv) = dense_program(vec![logits_by("logits", vocab)], None);
            program.logits = Some(X);
            // Without the rows that are masked.
            let steps = [vec![0], vec![6, 1, 2, 3, 6]].map(|kinds: Vec<u32>| {
                let logits: Vec<f32> = kinds.iter().flat_map(|&kind| logits_row(rng, vocab, kind)).collect();
                let rows = kinds.len() as u32;
                let top_k_rows = (0..rows).filter(|row| row % 4 != 1).collect();
                let data = StepData::of_tokens(rows).with_logits((0..rows).collect());
                CaseStep::new(StepData { read_logits_rows: Vec::new(), top_k_rows, top_k: k, ..data }).input(X, logits)
            });
            CaseData { weights: Vec::new(), program, kv, steps: steps.into() }
        };
        KernelCase::new("top_k", format!("{k} of {vocab}"), 1e-5, build).quick_if(k < 64)
    };
    [(131, 2), (131, 64), (4097, 9), (49_152, 17), (49_152, 64)].map(case).into()
}

/// Log probabilities of tokens that are known, of the argmax, and of a draw that takes the likeliest.
fn scores() -> Vec<KernelCase> {
    let case = |vocab: u32| {
        let build = move |rng: &mut SplitMix64| {
            let (mut program, kv) = dense_program(vec![logits_by("logits", vocab)], None);
            program.logits = Some(X);
            // Without the row that is masked altogether.
            let steps = [vec![6], vec![0, 1, 2, 3, 4, 6]].map(|kinds: Vec<u32>| {
                let logits: Vec<f32> = kinds.iter().flat_map(|&kind| logits_row(rng, vocab, kind)).collect();
                let rows = kinds.len() as u32;
                let mut data = StepData::of_tokens(rows);
                data.logits_indices = (0..rows).collect();
                data.draws = (0..rows).map(super::feed::likeliest).collect();
                for row in 0..rows {
                    let tokens = [0, vocab - 1, rng.below(vocab)].map(ScoredToken::Known);
                    let sampled = [ScoredToken::Argmax, ScoredToken::Draw(row)];
                    let all = tokens.into_iter().chain(sampled);
                    // As many as there is room for.
                    let wanted = all.enumerate().filter(|(i, _)| *i as u32 % 3 == row % 3);
                    data.scored.extend(wanted.map(|(_, token)| ScoredRow { row, token }));
                }
                CaseStep::new(data).input(X, logits)
            });
            CaseData { weights: Vec::new(), program, kv, steps: steps.into() }
        };
        KernelCase::new("scores", vocab.to_string(), 1e-5, build).quick_if(true)
    };
    [131, 1024, 49_152].map(case).into()
}

/// Rows of different difficulty.
fn logits_row(rng: &mut SplitMix64, vocab: u32, kind: u32) -> Vec<f32> {
    let mut row = rng.values(vocab as usize, 4.0);
    let last = vocab as usize - 1;
    match kind {
        // The largest at either end.
        0 => row[0] = 9.0,
        1 => row[last] = 9.0,
        // The largest many times over; all equal.
        2 => [last, vocab as usize / 3, 70, vocab as usize / 2].iter().for_each(|&token| row[token] = 9.0),
        3 => row.fill(-2.5),
        // Masked but for two equal logits, both negative; masked altogether.
        4 => {
            row.fill(f32::NEG_INFINITY);
            (row[last], row[65]) = (-1e30, -1e30);
        }
        5 => row.fill(f32::NEG_INFINITY),
        // Plain, with a tie of 0 and -0 that is not the largest.
        _ => (row[1], row[2]) = (0.0, -0.0),
    }
    row
}
