//! Beam search in the engine, on shared blocks and in batches of many kinds, against the plain one, token for token.

use super::plain::{PlainModel, WEIGHTS, tiny_model};
use bindery::backend::KvDtype;
use bindery::backend::cpu::CpuBackend;
use bindery::llm::{FinishCause, Llm, LlmError, LlmOptions, RequestOutput};
use bindery::model::Checkpoint;
use bindery::sampling::{EarlyStopping, SamplingParams};

struct Tiny {
    checkpoint: Checkpoint,
    options: LlmOptions,
}

impl Tiny {
    fn new(name: &str) -> Self {
        let model = tiny_model(name);
        let checkpoint = Checkpoint::open(&model, WEIGHTS).expect("a configuration is all it takes");
        let options = LlmOptions {
            load_format: WEIGHTS,
            kv_cache_dtype: KvDtype::F32,
            num_gpu_blocks_override: Some(256),
            ..LlmOptions::new(model)
        };
        Self { checkpoint, options }
    }

    fn llm(&self, edit: impl FnOnce(&mut LlmOptions)) -> Llm {
        let mut options = self.options.clone();
        edit(&mut options);
        Llm::with_backend(&self.checkpoint, Box::new(CpuBackend::new()), &options, &mut |_| {}).expect("it loads")
    }

    fn plain(&self) -> PlainModel {
        PlainModel::new(&self.checkpoint)
    }
}

fn beams(width: u32, max_tokens: u32) -> SamplingParams {
    SamplingParams {
        use_beam_search: true,
        beam_width: Some(width),
        n: width.div_ceil(2),
        max_tokens: Some(max_tokens),
        // Enough ends that beams finish at different lengths.
        stop_token_ids: vec![26, 38, 92],
        ..SamplingParams::default()
    }
}

fn prompt(len: u32, seed: u32) -> Vec<u32> {
    (0..len).map(|i| (i * 37 + seed * 11) % 97).collect()
}

fn assert_same(what: &str, output: &RequestOutput, expected: &[(Vec<u32>, f64)]) {
    assert_eq!(output.completions.len(), expected.len(), "{what}");
    for (rank, (got, (token_ids, score))) in output.completions.iter().zip(expected).enumerate() {
        assert_eq!(got.token_ids, *token_ids, "{what}: rank {rank}");
        let error = (got.score().expect("beam searches have scores") - score).abs();
        assert!(error < 1e-5, "{what}: score of rank {rank} is off by {error}");
        assert_eq!(got.index as usize, rank);
    }
}

fn assert_all_blocks_are_back(llm: &Llm) {
    let stats = llm.stats();
    assert_eq!((stats.free_blocks, stats.used_blocks), (stats.num_blocks, 0));
}

#[test]
fn widths_2_to_16_equal_the_plain_search() {
    let tiny = Tiny::new("widths");
    let (mut llm, mut plain) = (tiny.llm(|_| ()), tiny.plain());
    let mut stopped = 0;
    for width in 2..=16 {
        let (prompt, params) = (prompt(9 + width, width), beams(width, 14));
        let output = llm.generate(vec![(prompt.clone(), params.clone())]).expect("it generates").remove(0);
        assert_same(&format!("width {width}"), &output, &plain.search(&prompt, &params));
        let is_stop = |c: &&bindery::llm::Completion| c.finish.as_ref().is_some_and(|f| f.reason() == "stop");
        stopped += output.completions.iter().filter(is_stop).count();
        let cost = output.accounting.expect("it is done");
        assert!(cost.blocks_shared > 0 && cost.blocks_copied > 0, "width {width}: {cost:?}");
        assert_all_blocks_are_back(&llm);
    }
    assert!(stopped > 10, "only {stopped} completions end with a stop token");
}

#[test]
fn every_way_to_stop_equals_the_plain_search() {
    let tiny = Tiny::new("stops");
    let (mut llm, mut plain) = (tiny.llm(|_| ()), tiny.plain());
    let mut lengths = std::collections::BTreeSet::new();
    for early_stopping in [EarlyStopping::Heuristic, EarlyStopping::Immediate, EarlyStopping::Never] {
        for length_penalty in [-1.0, 0.0, 1.0, 2.5] {
            for (min_tokens, ignore_eos, stop_token_ids) in
                [(0, false, (0..97).step_by(3).collect()), (5, true, (0..97).step_by(5).collect()), (0, true, vec![])]
            {
                let params = SamplingParams {
                    early_stopping,
                    length_penalty,
                    min_tokens,
                    ignore_eos,
                    stop_token_ids,
                    n: 3,
                    ..beams(4, 12)
                };
                let prompt = prompt(7, 3);
                let output = llm.generate(vec![(prompt.clone(), params.clone())]).expect("it generates").remove(0);
                let what = format!("{early_stopping:?}, {length_penalty}, {min_tokens} tokens at least");
                assert_same(&what, &output, &plain.search(&prompt, &params));
                lengths.extend(output.completions.iter().map(|c| c.token_ids.len()));
            }
        }
    }
    assert!(lengths.len() > 2, "all completions are {lengths:?} tokens long");
}

/// Beams of many widths and sampled requests, together.
fn mixed_requests() -> Vec<(Vec<u32>, SamplingParams)> {
    let sampled = |n, seed| SamplingParams {
        n,
        seed: Some(seed),
        max_tokens: Some(20),
        ignore_eos: true,
        ..SamplingParams::default()
    };
    vec![
        (prompt(20, 1), beams(6, 24)),
        (prompt(33, 2), sampled(3, 7)),
        (prompt(5, 3), beams(2, 20)),
        (prompt(20, 1), SamplingParams { ignore_eos: true, ..SamplingParams::greedy(16) }),
        (prompt(18, 5), SamplingParams { logprobs: Some(2), stop_token_ids: Vec::new(), ..beams(5, 30) }),
        (prompt(20, 1), beams(3, 24)),
        (prompt(40, 6), sampled(1, 8)),
    ]
}

#[test]
fn neighbours_budgets_and_preemption_change_nothing() {
    let tiny = Tiny::new("mixed");
    let mut plain = tiny.plain();
    let mut alone = Vec::new();
    for request in mixed_requests() {
        let output = tiny.llm(|_| ()).generate(vec![request.clone()]).expect("it generates").remove(0);
        if request.1.use_beam_search {
            assert_same("alone", &output, &plain.search(&request.0, &request.1));
        }
        alone.push(output.completions);
    }
    let mut preemptions = 0;
    for enable_prefix_caching in [false, true] {
        let mut shapes = vec![(256, 512, 64), (256, 3, 8), (25, 512, 64), (25, 4, 7), (24, 16, 6)];
        // Preempted while some beams wait for the others, in many ways.
        shapes.extend((24..32).flat_map(|num_blocks| [(num_blocks, 5, 32), (num_blocks, 9, 32)]));
        for (num_blocks, budget, seats) in shapes {
            let mut llm = tiny.llm(|options| {
                options.enable_prefix_caching = enable_prefix_caching;
                options.num_gpu_blocks_override = Some(num_blocks);
                options.max_num_batched_tokens = budget;
                options.max_num_seqs = seats;
                options.long_prefill_token_threshold = if seats == 32 { 3 } else { 0 };
            });
            let outputs = llm.generate(mixed_requests()).expect("it generates");
            for (request, (output, alone)) in outputs.into_iter().zip(&alone).enumerate() {
                assert_eq!(
                    output.completions, *alone,
                    "request {request}, {num_blocks} blocks, {budget} tokens a step"
                );
            }
            preemptions += llm.stats().preemptions;
            assert_all_blocks_are_back(&llm);
        }
    }
    assert!(preemptions > 5, "only {preemptions} preemptions");
}

#[test]
fn a_beam_search_tells_all_at_its_end() {
    let tiny = Tiny::new("events");
    let mut llm = tiny.llm(|_| ());
    let params = SamplingParams { logprobs: Some(3), ..beams(4, 10) };
    llm.add(prompt(12, 4), params.clone()).expect("it is admissible");
    let mut events = Vec::new();
    let mut steps_with_events = 0;
    while !llm.is_idle() {
        let before = events.len();
        llm.step(&mut events).expect("a step");
        steps_with_events += usize::from(events.len() > before);
    }
    assert_eq!(steps_with_events, 1);
    let mut output = RequestOutput::new(events[0].request(), prompt(12, 4), &params);
    events.into_iter().for_each(|event| output.push(event));
    assert!(output.is_done());
    for completion in &output.completions {
        assert_eq!(completion.logprobs.len(), completion.token_ids.len());
        let sum = completion.cumulative_logprob();
        let score = completion.score().expect("beam searches have scores");
        assert!((sum / completion.token_ids.len() as f64 - score).abs() < 1e-6);
        assert!(completion.logprobs.iter().all(|l| l.top.len() == 3 && l.top[0].logprob >= l.chosen.logprob));
        let cause = &completion.finish.as_ref().expect("it has ended").cause;
        let expected = match completion.token_ids.last() {
            Some(2) => FinishCause::Eos,
            Some(&token @ (26 | 38 | 92)) => FinishCause::StopToken(token),
            _ => FinishCause::Length,
        };
        assert_eq!(*cause, expected);
    }
    let scores: Vec<f64> = output.completions.iter().filter_map(|c| c.score()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
}

#[test]
fn hostile_requests_change_nothing() {
    let tiny = Tiny::new("hostile");
    let mut llm = tiny.llm(|options| options.max_num_seqs = 8);
    let table = [
        beams(0, 4),
        SamplingParams { n: 1, ..beams(1_000_000_000, 4) },
        SamplingParams { n: 1_000_000_000, beam_width: None, ..beams(2, 4) },
        SamplingParams { length_penalty: f64::NAN, ..beams(2, 4) },
        SamplingParams { stop_token_ids: (0..90).collect(), ..beams(2, 4) },
        // More beams than sequences can run.
        beams(9, 4),
    ];
    for (row, params) in table.into_iter().enumerate() {
        let error = llm.add(prompt(5, 1), params).expect_err("it can never be served");
        assert!(matches!(error, LlmError::Param(_) | LlmError::Request(_)), "row {row}: {error}");
    }
    assert!(llm.is_idle());
    assert_eq!(llm.stats().used_blocks, 0);
    let id = llm.add(prompt(20, 1), beams(8, 20)).expect("it is admissible");
    for _ in 0..5 {
        llm.step(&mut Vec::new()).expect("a step");
    }
    assert!(llm.abort(id), "in the middle of a search");
    assert_all_blocks_are_back(&llm);
}

#[test]
fn best_of_returns_the_likeliest_samples() {
    let tiny = Tiny::new("best_of");
    let mut llm = tiny.llm(|_| ());
    let all =
        SamplingParams { n: 6, seed: Some(3), max_tokens: Some(8), logprobs: Some(0), ..SamplingParams::default() };
    let best = SamplingParams { n: 2, best_of: Some(6), logprobs: None, ..all.clone() };
    let outputs = llm.generate(vec![(prompt(20, 1), all), (prompt(20, 1), best)]).expect("it generates");
    let mut ranked = outputs[0].completions.clone();
    assert_eq!(ranked.len(), 6);
    ranked.sort_by(|a, b| b.cumulative_logprob().total_cmp(&a.cumulative_logprob()));
    let tokens = |completions: &[bindery::llm::Completion]| -> Vec<(u32, Vec<u32>)> {
        completions.iter().map(|c| (c.index, c.token_ids.clone())).collect()
    };
    assert_eq!(tokens(&outputs[1].completions), tokens(&ranked[..2]));
    assert_ne!(ranked[0].token_ids, ranked[5].token_ids);
    let cost = outputs[0].accounting.expect("it is done");
    assert!(cost.blocks_shared >= 5 && cost.blocks_copied >= 5, "{cost:?}");
    assert_all_blocks_are_back(&llm);
}
