//! Tests of the sampler: distributions by chi-square with fixed seeds, and the corners.

use super::*;

const P: [f32; 6] = [0.05, 0.4, 0.2, 0.2, 0.1, 0.05];

fn draw_at(position: u32) -> Draw {
    Draw { seed: 42, sample_index: 0, position }
}

fn sample(logits: &[f32], params: &SamplingParams, draw: Draw) -> SampledToken {
    Sampler::new(vec![]).sample(&mut logits.to_vec(), params, None, History::default(), draw).unwrap()
}

/// Draws 20,000 tokens and holds them against `expected` probabilities.
fn assert_distribution(params: &SamplingParams, expected: &[f64]) {
    const N: u32 = 20_000;
    let logits: Vec<f32> = P.iter().map(|p| p.ln() + 3.0).collect();
    let mut sampler = Sampler::new(vec![]);
    let mut counts = vec![0u32; P.len()];
    for position in 0..N {
        let sampled = sampler.sample(&mut logits.clone(), params, None, History::default(), draw_at(position)).unwrap();
        counts[sampled.token as usize] += 1;
    }
    let mut chi2 = 0.0;
    for (token, (&count, &p)) in counts.iter().zip(expected).enumerate() {
        let want = p * f64::from(N);
        if p == 0.0 {
            assert_eq!(count, 0, "token {token} must be excluded: {counts:?}");
        } else {
            chi2 += (f64::from(count) - want).powi(2) / want;
        }
    }
    assert!(chi2 < 20.5, "chi-square {chi2} (0.1 % bound for 5 degrees of freedom) {counts:?} vs {expected:?}");
}

#[test]
fn distributions() {
    let base = SamplingParams::default();
    assert_distribution(&base, &P.map(f64::from));
    let cold = SamplingParams { temperature: 0.5, ..base.clone() };
    let squares: Vec<f64> = P.iter().map(|&p| f64::from(p).powi(2)).collect();
    let total: f64 = squares.iter().sum();
    assert_distribution(&cold, &squares.iter().map(|p| p / total).collect::<Vec<_>>());
    // The tie of tokens 2 and 3 goes to the lower id.
    assert_distribution(&SamplingParams { top_k: 2, ..base.clone() }, &[0.0, 2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0, 0.0]);
    assert_distribution(&SamplingParams { top_k: 99, ..base.clone() }, &P.map(f64::from));
    // 0.4 + 0.2 < 0.7 <= 0.4 + 0.2 + 0.2
    assert_distribution(&SamplingParams { top_p: 0.7, ..base.clone() }, &[0.0, 0.5, 0.25, 0.25, 0.0, 0.0]);
    assert_distribution(&SamplingParams { top_p: 1e-9, ..base.clone() }, &[0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    // At least 0.3 * 0.4 = 0.12.
    assert_distribution(&SamplingParams { min_p: 0.3, ..base.clone() }, &[0.0, 0.5, 0.25, 0.25, 0.0, 0.0]);
    // top_p works on what top_k left: 0.4 / 0.6 >= 0.6.
    let both = SamplingParams { top_k: 2, top_p: 0.6, ..base };
    assert_distribution(&both, &[0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
}

/// The chunked nucleus against a full sort, over vocabularies larger than many chunks.
#[test]
fn nucleus_equals_a_full_sort() {
    for (case, top_p) in [(1u64, 0.1), (2, 0.5), (3, 0.9), (4, 0.999), (5, 0.9999999)] {
        let logit = |token: u32| (uniform(case, 0, token) * 4.0) as f32;
        let candidates: Vec<Candidate> = (0..5000)
            .map(|token| Candidate { logit: logit(token), token, weight: f64::from(logit(token)).exp() })
            .collect();
        let mut sorted = candidates.clone();
        sorted.sort_by(by_likelihood);
        let target = top_p * candidates.iter().map(|c| c.weight).sum::<f64>();
        let mut before = 0.0;
        sorted.retain(|candidate| {
            let keep = before < target;
            before += candidate.weight;
            keep
        });
        let mut got = candidates;
        keep_nucleus(&mut got, top_p);
        let tokens = |list: &[Candidate]| list.iter().map(|c| c.token).collect::<Vec<_>>();
        assert_eq!(tokens(&got), tokens(&sorted), "top_p {top_p}");
    }
}

#[test]
fn greedy_takes_the_lowest_of_equals() {
    let params = SamplingParams::greedy(1);
    assert_eq!(sample(&[1.0, 5.0, 5.0, 2.0], &params, draw_at(0)).token, 1);
    let filtered = SamplingParams { top_p: 0.1, top_k: 1, min_p: 0.9, ..params };
    assert_eq!(sample(&[1.0, 5.0, 5.0, 2.0], &filtered, draw_at(9)).token, 1);
}

/// I12: the token depends on seed, sample index and position only, not on what the sampler did before.
#[test]
fn a_function_of_seed_index_and_position() {
    let logits: Vec<f32> = (0..1000).map(|i| (i % 17) as f32 / 4.0).collect();
    let params = SamplingParams { top_p: 0.9, repetition_penalty: 1.2, ..SamplingParams::default() };
    let history = History { prompt: &[1, 2, 3], output: &[4, 4] };
    let mut used = Sampler::new(vec![]);
    let mut differ = 0;
    for position in 0..200 {
        let draw = draw_at(position);
        let first = used.sample(&mut logits.clone(), &params, None, history, draw).unwrap();
        let fresh = Sampler::new(vec![]).sample(&mut logits.clone(), &params, None, history, draw).unwrap();
        assert_eq!(first, fresh);
        let fork = used.sample(&mut logits.clone(), &params, None, history, Draw { sample_index: 1, ..draw }).unwrap();
        differ += u32::from(fork != first);
    }
    assert!(differ > 150, "forks must draw their own numbers: {differ}");
}

#[test]
fn logprobs_are_those_of_the_raw_logits() {
    let logits: Vec<f32> = P.iter().map(|p| p.ln()).collect();
    let params = SamplingParams {
        temperature: 0.0,
        logprobs: Some(2),
        logit_bias: [(5, 100.0)].into(),
        ..SamplingParams::default()
    };
    let got = sample(&logits, &params, draw_at(0));
    assert_eq!(got.token, 5);
    let logprobs = got.logprobs.unwrap();
    assert!((logprobs.chosen.logprob - 0.05f32.ln()).abs() < 1e-5);
    assert_eq!(logprobs.chosen.rank, 5);
    assert_eq!(logprobs.top.iter().map(|t| t.token).collect::<Vec<_>>(), [1, 2]);
    let ranked = SamplingParams { best_of: Some(2), ..SamplingParams::default() };
    assert!(sample(&logits, &ranked, draw_at(0)).logprobs.is_some());
    assert!(sample(&logits, &SamplingParams::default(), draw_at(0)).logprobs.is_none());
}

#[test]
fn broken_rows_are_errors() {
    let mut sampler = Sampler::new(vec![0]);
    for params in [SamplingParams::greedy(1), SamplingParams::default()] {
        for bad in [f32::NAN, f32::INFINITY] {
            let error = sampler.sample(&mut [0.0, bad], &params, None, History::default(), draw_at(0)).unwrap_err();
            assert!(matches!(error, SampleError::NonFinite { token: 1, .. }), "{error}");
        }
        let none = SamplingParams { min_tokens: 1, ..params };
        let error =
            sampler.sample(&mut [1.0, f32::NEG_INFINITY], &none, None, History::default(), draw_at(0)).unwrap_err();
        assert_eq!(error, SampleError::NothingLeft);
    }
}

/// Validated parameters at their extremes must not overflow into NaN.
#[test]
fn extreme_parameters_stay_finite() {
    let history = History { prompt: &[0, 1], output: &[1] };
    for temperature in [0.0, 1.1e-5, 1.0, f32::MAX] {
        for repetition_penalty in [f32::MIN_POSITIVE, 1.0, f32::MAX] {
            let params = SamplingParams {
                temperature,
                repetition_penalty,
                frequency_penalty: 2.0,
                top_p: 0.999,
                min_p: 0.001,
                ..SamplingParams::default()
            };
            let mut logits = [100.0, -100.0, 0.0, f32::MIN, f32::NEG_INFINITY];
            let sampled = Sampler::new(vec![]).sample(&mut logits, &params, None, history, draw_at(1));
            assert!(sampled.is_ok_and(|s| s.token < 4), "temperature {temperature}, penalty {repetition_penalty}");
        }
    }
}
