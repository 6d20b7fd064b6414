//! `--batch-invariant`: a request's logits are the same to the bit alone and in any batch, at any chunking, from the
//! prefix cache, with its prompt shared, with drafts, and preempted either way.
//!
//! A schedule is drawn at random: the sizes of the engine, which requests come, when, and which of them are aborted.
//! Each request that ends must have given what it gives alone on an engine that shares, caches and preempts nothing.
//! Log probabilities are compared by their bits: those of the chosen token and of the 20 likeliest after every token.

#![cfg(feature = "webgpu")]

use bindery::backend::WeightFormat;
use bindery::backend::webgpu::{GpuDevice, Variant, WebGpuBackend};
use bindery::engine::{RequestId, Stats};
use bindery::llm::{Llm, LlmOptions, PreemptionMode, RequestOutput, SpeculativeConfig};
use bindery::model::{DummyWeights, LoadFormat};
use bindery::sampling::SamplingParams;
use bindery_lockstep::{Gpu, adapter};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[path = "support/llm.rs"]
mod llm;
#[path = "support/models.rs"]
mod models;
use llm::{Rng, gpu, greedy, load};

/// A prompt, and what is asked for.
type Asked = (Vec<u32>, SamplingParams);

/// What a request gave, log probabilities and scores as bits.
#[derive(Debug, PartialEq)]
struct Given {
    token_ids: Vec<u32>,
    logprobs: Vec<Vec<(u32, u32)>>,
    score: Option<u64>,
}

fn given(output: &RequestOutput) -> Vec<Given> {
    let completions = output.completions.iter();
    completions
        .map(|completion| Given {
            token_ids: completion.token_ids.clone(),
            logprobs: completion
                .logprobs
                .iter()
                .map(|of_token| {
                    let all = std::iter::once(&of_token.chosen).chain(&of_token.top);
                    all.map(|logprob| (logprob.token, logprob.logprob.to_bits())).collect()
                })
                .collect(),
            score: completion.score().map(f64::to_bits),
        })
        .collect()
}

/// Greedy, four samples, or four beams.
fn params(kind: u32, tokens: u32, seed: u64) -> SamplingParams {
    let params = SamplingParams { logprobs: Some(20), ..greedy(tokens) };
    match kind {
        0 => params,
        1 => SamplingParams { n: 4, temperature: 1.0, seed: Some(seed), ..params },
        _ => SamplingParams { n: 4, use_beam_search: true, logprobs: Some(4), ..params },
    }
}

/// Requests of all kinds, some of them with a common start; the first is longer than one split of the attention.
fn requests(vocab_size: u32, longest: u32, tokens: u32) -> Vec<Asked> {
    let mut rng = Rng(5);
    let common = rng.prompt(37, vocab_size);
    let mut requests = vec![(rng.prompt(longest, vocab_size), params(0, tokens, 0))];
    for number in 1..12 {
        let shared = [0, 16, 37][rng.below(3) as usize];
        let own = 1 + rng.below(12);
        let prompt = [&common[..shared], &rng.prompt(own, vocab_size)].concat();
        requests.push((prompt, params(number % 3, tokens / 2 + rng.below(tokens / 2), u64::from(number))));
    }
    requests
}

/// What each request gives alone.
fn alone(mut llm: Llm, requests: &[Asked]) -> Vec<Vec<Given>> {
    let alone = requests
        .iter()
        .map(|request| given(&llm.generate(vec![request.clone()]).expect("generation succeeds")[0]))
        .collect();
    let stats = llm.stats();
    assert_eq!((stats.preemptions, stats.prefix_hit_tokens), (0, 0));
    alone
}

/// The engine of one schedule: at least the blocks that one request of `requests` may need.
fn draw(rng: &mut Rng, options: &mut LlmOptions, fewest_blocks: u32) {
    options.num_gpu_blocks_override = Some(fewest_blocks + rng.below(4));
    options.max_num_batched_tokens = [5, 16, 33, 128][rng.below(4) as usize];
    options.max_num_seqs = [8, 16, 24][rng.below(3) as usize];
    options.long_prefill_token_threshold = [0, 0, 7][rng.below(3) as usize];
    options.enable_prefix_caching = rng.below(3) > 0;
    options.preemption_mode = [PreemptionMode::Recompute, PreemptionMode::Swap][rng.below(2) as usize];
    options.swap_space_bytes = 1 << 30;
    let mut apart = Rng(rng.0);
    options.async_scheduling = Some(apart.below(2) > 0);
    // From a single token, so that many are wrong.
    let speculative = SpeculativeConfig { prompt_lookup_min: Some(1), ..SpeculativeConfig::ngram() };
    options.speculative = (apart.below(2) > 0).then_some(speculative);
}

/// Runs one schedule of some of the requests, and compares each that ends.
fn run(llm: &mut Llm, rng: &mut Rng, requests: &[Asked], alone: &[Vec<Given>], what: &str) {
    let count = 6 + rng.below(6);
    let mut to_come: Vec<usize> = (0..count).map(|_| rng.below(requests.len() as u32) as usize).collect();
    let mut outputs: BTreeMap<RequestId, (usize, RequestOutput)> = BTreeMap::new();
    let mut events = Vec::new();
    let mut compared = 0;
    while !to_come.is_empty() || !llm.is_idle() {
        for _ in 0..rng.below(4) {
            let Some(number) = to_come.pop() else { break };
            let (prompt, params) = requests[number].clone();
            let id = llm.add(prompt.clone(), params.clone()).expect("it fits");
            outputs.insert(id, (number, RequestOutput::new(id, prompt, &params)));
        }
        if rng.below(40) == 0
            && let Some((&id, _)) = outputs.first_key_value()
        {
            llm.abort(id);
            outputs.remove(&id);
        }
        llm.step(&mut events).expect("a step succeeds");
        for event in events.drain(..) {
            let id = event.request();
            let Some((number, output)) = outputs.get_mut(&id) else { continue };
            output.push(event);
            if output.is_done() {
                assert_eq!(given(output), alone[*number], "{what}, request {number} is not as it is alone");
                outputs.remove(&id);
                compared += 1;
            }
        }
    }
    assert!(outputs.is_empty() && compared > 0, "{what}: requests were lost");
    let stats = llm.stats();
    assert_eq!((stats.used_blocks, stats.used_host_blocks), (0, 0), "{what}: blocks were lost");
}

/// What the schedules have been through.
#[derive(Debug, Default)]
struct Seen {
    preemptions: u64,
    swaps: u64,
    prefix_hit_tokens: u64,
    cow_copies: u64,
    steps_ahead: u64,
    draft_tokens: u64,
    accepted_draft_tokens: u64,
}

impl Seen {
    fn add(&mut self, stats: &Stats) {
        self.preemptions += stats.preemptions;
        self.swaps += stats.swaps;
        self.prefix_hit_tokens += stats.prefix_hit_tokens + stats.resumed_hit_tokens;
        self.cow_copies += stats.cow_copies;
        self.steps_ahead += stats.steps_ahead;
        self.draft_tokens += stats.draft_tokens;
        self.accepted_draft_tokens += stats.accepted_draft_tokens;
    }

    fn assert_enough(&self, schedules: u64) {
        let recomputed = self.preemptions - self.swaps;
        assert!(recomputed * 4 >= schedules && self.swaps * 8 >= schedules, "too few of either preemption: {self:?}");
        assert!(self.prefix_hit_tokens > 0 && self.cow_copies > 0 && self.steps_ahead > 0, "{self:?}");
        let right = self.accepted_draft_tokens;
        assert!(2 * right >= schedules && self.draft_tokens - right >= schedules, "too few drafts: {self:?}");
    }
}

const VOCAB: u32 = 97;

/// Those of the first 200 that preempt most, two of either kind.
const SCHEDULES_THAT_PREEMPT: [u64; 4] = [26, 187, 57, 93];

/// Two layers of random weights: `config.json` in a folder of its own.
fn tiny(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("batch_invariant").join(name);
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": VOCAB,
        "max_position_embeddings": 320, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).expect("a temporary file");
    folder
}

fn load_tiny(folder: &Path, gpu: &Arc<GpuDevice>, edit: impl FnOnce(&mut LlmOptions)) -> Llm {
    load(folder, Box::new(WebGpuBackend::new(gpu.clone())), |options| {
        options.load_format = LoadFormat::Dummy(DummyWeights { format: WeightFormat::Q8_0, seed: 3 });
        options.batch_invariant = true;
        options.num_gpu_blocks_override = Some(64);
        options.max_num_seqs = 4;
        options.enable_prefix_caching = false;
        edit(options);
    })
}

fn schedules_of_a_tiny_model(gpu: &Arc<GpuDevice>, schedules: &[u64]) -> Seen {
    let what = format!("{}, {} kernels", gpu.summary().name, gpu.variant());
    let folder = tiny(&what);
    let requests = requests(VOCAB, 270, 14);
    let alone = alone(load_tiny(&folder, gpu, |_| {}), &requests);
    let mut seen = Seen::default();
    for &seed in schedules {
        let mut rng = Rng(seed);
        let mut llm = load_tiny(&folder, gpu, |options| draw(&mut rng, options, 18));
        run(&mut llm, &mut rng, &requests, &alone, &format!("{what}, schedule {seed}"));
        seen.add(&llm.stats());
    }
    println!("{what}, {} schedules: {seen:?}", schedules.len());
    seen
}

fn first_schedules_of_a_tiny_model(gpu: &Arc<GpuDevice>, schedules: u64) {
    let seeds: Vec<u64> = (0..schedules).collect();
    schedules_of_a_tiny_model(gpu, &seeds).assert_enough(schedules);
}

#[test]
fn on_lavapipe() {
    first_schedules_of_a_tiny_model(&gpu("llvmpipe", Variant::Cpu), 200);
}

#[test]
fn on_swiftshader() {
    first_schedules_of_a_tiny_model(&gpu("SwiftShader", Variant::Cpu), 200);
}

#[test]
fn with_subgroup_kernels() {
    first_schedules_of_a_tiny_model(&gpu("llvmpipe", Variant::Subgroup), 24);
}

#[test]
fn with_plain_kernels() {
    first_schedules_of_a_tiny_model(&gpu("llvmpipe", Variant::Plain), 24);
}

#[test]
fn on_a_gpu_in_lockstep() {
    let gpu =
        GpuDevice::open_adapter(adapter(Gpu::AMD), Some(Variant::Subgroup)).unwrap_or_else(|error| panic!("{error}"));
    let [recomputes, _, swaps, _] = SCHEDULES_THAT_PREEMPT;
    let seen = schedules_of_a_tiny_model(&gpu, &[recomputes, swaps]);
    assert!(seen.swaps > 0 && seen.preemptions > seen.swaps && seen.cow_copies > 0, "{seen:?}");
}

#[test]
fn with_smollm2() {
    let model = models::smollm2_gguf();
    let requests = requests(49_152, 270, 14);
    let load = |edit: &mut dyn FnMut(&mut LlmOptions)| {
        llm::smollm2(&model, |options| {
            options.batch_invariant = true;
            options.enable_prefix_caching = false;
            edit(options);
        })
    };
    let alone = alone(load(&mut |_| {}), &requests);
    let mut seen = Seen::default();
    for seed in SCHEDULES_THAT_PREEMPT {
        let mut rng = Rng(seed);
        let mut llm = load(&mut |options| draw(&mut rng, options, 18));
        run(&mut llm, &mut rng, &requests, &alone, &format!("SmolLM2, schedule {seed}"));
        seen.add(&llm.stats());
    }
    println!("{seen:?}");
    assert!(seen.swaps > 0 && seen.preemptions > seen.swaps && seen.cow_copies > 0, "{seen:?}");
}
