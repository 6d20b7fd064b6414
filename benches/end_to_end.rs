//! The whole engine, backend beside backend: prefill, decode of 1, 8 and 64 sequences, both in the same steps.
//!
//! `cargo bench --bench end_to_end`, with `--features cuda` on CUDA as well where there is a device for it. BINDERY_MODEL
//! names a checkpoint (SmolLM2 in `models/` unless it is set) and BINDERY_DEVICE a device of WebGPU other than the best one.
//! `bindery bench compare` runs the same in turns and prints the ratios.

use bindery::Llm;
use bindery::backend::BackendKind;
use bindery::backend::kernel_cases::SplitMix64;
use bindery::llm::{Event, LlmError, LlmOptions};
use bindery::sampling::SamplingParams;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const PREFILL_TOKENS: u32 = 512;
/// Prompt tokens of what only decodes.
const SHORT_PROMPT: u32 = 16;
const OUTPUT_TOKENS: u32 = 16;

/// The time of a run until every sequence has its first token, and after that.
struct Run {
    prefill: Duration,
    decode: Duration,
}

/// A workload: the lengths of its prompts, and which part of the time counts, for how many tokens.
struct Case {
    name: String,
    prompt_lens: Vec<u32>,
    output_len: u32,
    tokens: u32,
    time: fn(&Run) -> Duration,
}

fn cases() -> Vec<Case> {
    let mut cases = vec![Case {
        name: format!("prefill, {PREFILL_TOKENS} tokens"),
        prompt_lens: vec![PREFILL_TOKENS],
        output_len: 1,
        tokens: PREFILL_TOKENS,
        time: |run| run.prefill,
    }];
    cases.extend([1, 8, 64].map(|sequences| Case {
        name: format!("decode, {sequences} sequences"),
        prompt_lens: vec![SHORT_PROMPT; sequences as usize],
        output_len: OUTPUT_TOKENS,
        tokens: sequences * (OUTPUT_TOKENS - 1),
        time: |run| run.decode,
    }));
    let prompt_lens: Vec<u32> = (1..=8).map(|i| PREFILL_TOKENS * i / 8).collect();
    let tokens = prompt_lens.iter().map(|len| len + OUTPUT_TOKENS).sum();
    cases.push(Case {
        name: format!("mixed, 8 prompts of up to {PREFILL_TOKENS} tokens"),
        prompt_lens,
        output_len: OUTPUT_TOKENS,
        tokens,
        time: |run| run.prefill + run.decode,
    });
    cases
}

/// Runs the prompts of a case together, random ones each time, so that no prefix is cached.
fn run(llm: &mut Llm, case: &Case, random: &mut SplitMix64) -> Result<Run, LlmError> {
    let vocab_size = llm.model_config().vocab_size;
    let params = SamplingParams { ignore_eos: true, detokenize: false, ..SamplingParams::greedy(case.output_len) };
    let start = Instant::now();
    let mut without_token = BTreeSet::new();
    for &len in &case.prompt_lens {
        without_token.insert(llm.add((0..len).map(|_| random.below(vocab_size)).collect(), params.clone())?);
    }
    let mut prefill = Duration::ZERO;
    let mut events = Vec::new();
    while llm.step(&mut events)? {
        for event in events.drain(..) {
            if matches!(&event, Event::Token(update) if without_token.remove(&update.request)) {
                prefill = start.elapsed();
            }
        }
    }
    assert!(without_token.is_empty(), "sequences without a token: {without_token:?}");
    Ok(Run { prefill, decode: start.elapsed() - prefill })
}

fn load(backend: BackendKind) -> Result<Llm, LlmError> {
    let model = std::env::var("BINDERY_MODEL").unwrap_or_else(|_| "models/SmolLM2-135M-Instruct.Q4_1.gguf".to_owned());
    let mut options = LlmOptions::new(model);
    options.backend = backend;
    options.max_model_len = Some(PREFILL_TOKENS + OUTPUT_TOKENS);
    if backend == BackendKind::WebGpu {
        options.device = std::env::var("BINDERY_DEVICE").ok();
    }
    Llm::load(&options, &mut |_| {})
}

fn end_to_end(criterion: &mut Criterion) {
    let mut llms = vec![load(BackendKind::WebGpu).expect("a model, and a device; `bindery devices` lists them")];
    match load(BackendKind::Cuda) {
        Ok(llm) => llms.push(llm),
        Err(LlmError::Backend(why)) => println!("without CUDA: {why}"),
        Err(error) => panic!("on CUDA: {error}"),
    }
    let mut random = SplitMix64::from_name("end to end");
    for case in cases() {
        let mut group = criterion.benchmark_group(&case.name);
        group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(1));
        group.throughput(Throughput::Elements(u64::from(case.tokens)));
        for llm in &mut llms {
            group.bench_function(llm.device_description(), |bencher| {
                bencher.iter_custom(|times| {
                    let mut once = |_| (case.time)(&run(llm, &case, &mut random).expect("the device works"));
                    (0..times).map(&mut once).sum()
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, end_to_end);
criterion_main!(benches);
