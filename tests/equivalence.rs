//! What a request generates does not depend on its neighbours, the token budget, the size of the pool, preemption or
//! prefix hits (invariant I11), nor, on a tiny model, on the backend.
//!
//! Kernels differ with the shape of a step, and so in rounding: a greedy run may part from its reference where the
//! reference's own margin is tiny. Such partings are counted and bounded.

#![cfg(feature = "webgpu")]

use bindery::backend::cpu::CpuBackend;
use bindery::backend::webgpu::{Variant, WebGpuBackend};
use bindery::backend::{Backend, KvDtype, WeightFormat};
use bindery::engine::RequestId;
use bindery::llm::{Llm, LlmOptions, RequestOutput};
use bindery::model::{DummyWeights, LoadFormat};
use bindery::sampling::SamplingParams;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[path = "support/llm.rs"]
mod llm;
#[path = "support/models.rs"]
mod models;
use llm::{NearTies, Reference, Rng, golden, gpu, greedy, ids, load, smollm2};

const TOKENS: u32 = 24;
/// Margin of log probabilities below which the f16 pool and the shape of a kernel may decide.
const NEAR_TIE: f32 = 0.15;
/// The same with an f32 pool, where only the order of sums differs.
const NEAR_TIE_F32: f32 = 1e-3;

/// The oracle's prompts, and some of 200, 1 and 17 tokens; the longest first, so that the small pool is short.
fn prompts() -> Vec<Vec<u32>> {
    let mut rng = Rng(7);
    let [long, one, few] = [200, 1, 17].map(|len| rng.prompt(len, 49_152));
    let oracle = ["short", "code", "chat2"].map(|name| ids(&golden(name)["ids"]));
    [vec![long], oracle.to_vec(), vec![one, few]].concat()
}

fn together(llm: &mut Llm) -> Vec<RequestOutput> {
    llm.generate(prompts().into_iter().map(|prompt| (prompt, greedy(TOKENS))).collect()).expect("generation succeeds")
}

#[test]
fn smollm2_generates_the_same_alone_in_a_batch_in_chunks_preempted_and_from_the_prefix_cache() {
    let model = models::smollm2_gguf();
    let without_cache = |options: &mut LlmOptions| options.enable_prefix_caching = false;
    let mut llm = smollm2(&model, without_cache);
    let params = SamplingParams { logprobs: Some(2), ..greedy(TOKENS) };
    let alone: Vec<Reference> = prompts()
        .into_iter()
        .map(|prompt| {
            let output = llm.generate(vec![(prompt, params.clone())]).expect("generation succeeds").remove(0);
            Reference::new(&output.completions[0].token_ids, &output.completions[0].logprobs)
        })
        .collect();
    let mut ties = NearTies::default();
    let mut check = |what: &str, outputs: Vec<RequestOutput>| {
        for (i, (output, reference)) in outputs.iter().zip(&alone).enumerate() {
            ties.compare(&format!("{what}, prompt {i}"), &output.completions[0].token_ids, reference, NEAR_TIE);
        }
    };
    check("together", together(&mut llm));

    let mut llm = smollm2(&model, |options| {
        without_cache(options);
        options.max_num_batched_tokens = 7;
    });
    check("7 tokens a step", together(&mut llm));

    let mut llm = smollm2(&model, |options| {
        without_cache(options);
        options.num_gpu_blocks_override = Some(16);
    });
    check("16 blocks", together(&mut llm));
    let stats = llm.stats();
    assert!(stats.preemptions > 0, "16 blocks were enough: {stats:?}");
    assert_eq!((stats.used_blocks, stats.prefix_hit_tokens), (0, 0));

    let mut llm = smollm2(&model, |_| {});
    check("cold prefix cache", together(&mut llm));
    let cold = llm.stats().prefix_hit_tokens;
    check("warm prefix cache", together(&mut llm));
    let hits = llm.stats().prefix_hit_tokens - cold;
    // Whole blocks of each prompt, less the token that must be computed.
    let expected: usize = prompts().iter().map(|prompt| (prompt.len() - 1) / 16 * 16).sum();
    assert_eq!((cold, hits), (0, expected as u64), "prompt tokens found in the cache");
    ties.report("SmolLM2");
}

#[test]
fn parallel_samples_share_their_prompt_and_do_not_depend_on_neighbours() {
    let mut llm = smollm2(&models::smollm2_gguf(), |options| options.enable_prefix_caching = false);
    // 55 tokens: three full blocks, and seven tokens in the fourth, which the samples copy before they write.
    let prompt = ids(&golden("chat2")["ids"]);
    assert_eq!(prompt.len(), 55);
    let sampled = SamplingParams {
        n: 4,
        seed: Some(11),
        temperature: 1.0,
        max_tokens: Some(TOKENS),
        ignore_eos: true,
        ..SamplingParams::default()
    };
    let tokens = |output: &RequestOutput| -> Vec<Vec<u32>> {
        output.completions.iter().map(|completion| completion.token_ids.clone()).collect()
    };
    let alone = llm.generate(vec![(prompt.clone(), sampled.clone())]).expect("generation succeeds").remove(0);
    assert_eq!(alone.completions.len(), 4);
    let different: std::collections::BTreeSet<_> = tokens(&alone).into_iter().collect();
    assert_eq!(different.len(), 4, "four different samples");
    let accounting = alone.accounting.expect("it is done");
    assert_eq!((accounting.blocks_shared, accounting.blocks_copied), (3 * 4, 3), "{accounting:?}");

    let mut batch: Vec<_> = prompts()[1..].iter().map(|prompt| (prompt.clone(), greedy(TOKENS))).collect();
    batch.insert(3, (prompt, sampled));
    let outputs = llm.generate(batch).expect("generation succeeds");
    assert_eq!(tokens(&outputs[3]), tokens(&alone));
    assert_eq!(llm.stats().used_blocks, 0);
}

#[test]
fn swiftshader_runs_smollm2() {
    let backend = WebGpuBackend::new(gpu("SwiftShader", Variant::Cpu));
    let mut llm = load(&models::smollm2_gguf(), Box::new(backend), |options| {
        options.max_model_len = Some(64);
        options.max_num_batched_tokens = 16;
        options.max_num_seqs = 2;
        options.num_gpu_blocks_override = Some(4);
    });
    let golden = golden("short");
    let output = llm.generate(vec![(ids(&golden["ids"]), greedy(4))]).expect("generation succeeds").remove(0);
    // The oracle's margins are all above 0.5 here.
    assert_eq!(output.completions[0].token_ids, ids(&golden["greedy48_ids_ignore_eos"])[..4]);
}

const VOCAB: u32 = 97;

/// Two layers of random weights: `config.json` in a folder of its own.
fn tiny(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("equivalence").join(name);
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": VOCAB,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).expect("a temporary file");
    folder
}

/// Blocks, token budget, sequences, prefix caching.
type Shape = (u32, u32, u32, bool);

fn load_tiny(folder: &std::path::Path, format: WeightFormat, backend: Box<dyn Backend>, shape: Shape) -> Llm {
    load(folder, backend, |options| {
        options.load_format = LoadFormat::Dummy(DummyWeights { format, seed: 3 });
        options.kv_cache_dtype = KvDtype::F32;
        let (blocks, budget, seqs, caching) = shape;
        options.num_gpu_blocks_override = Some(blocks);
        options.max_num_batched_tokens = budget;
        options.max_num_seqs = seqs;
        options.enable_prefix_caching = caching;
    })
}

/// Prompts and lengths of completions; some prompts begin like the one before.
fn traffic(seed: u64) -> Vec<(Vec<u32>, u32)> {
    let mut rng = Rng(seed);
    let mut all: Vec<(Vec<u32>, u32)> = Vec::new();
    for _ in 0..12 {
        let len = 1 + rng.below(60);
        let mut prompt = rng.prompt(len, VOCAB);
        if let (0, Some((before, _))) = (rng.below(3), all.last()) {
            let shared = before.len().min(prompt.len());
            prompt[..shared].copy_from_slice(&before[..shared]);
        }
        all.push((prompt, 1 + rng.below(24)));
    }
    all
}

/// Serves the traffic as it arrives, a few requests at a time, and aborts one of them on the way.
fn serve(llm: &mut Llm, traffic: &[(Vec<u32>, u32)], seed: u64) -> BTreeMap<usize, Vec<u32>> {
    let mut rng = Rng(seed);
    let mut numbers: BTreeMap<RequestId, usize> = BTreeMap::new();
    let mut outputs = BTreeMap::new();
    let (mut next, mut events, mut steps) = (0, Vec::new(), 0);
    while next < traffic.len() || !llm.is_idle() {
        for _ in 0..rng.below(3) {
            if let Some((prompt, tokens)) = traffic.get(next) {
                let id = llm.add(prompt.clone(), greedy(*tokens)).expect("it fits");
                numbers.insert(id, next);
                outputs.insert(next, Vec::new());
                next += 1;
            }
        }
        steps += 1;
        if steps == 6 {
            let (&id, &number) = numbers.first_key_value().expect("some have come");
            if llm.abort(id) {
                outputs.remove(&number);
            }
        }
        llm.step(&mut events).expect("a step succeeds");
        for event in events.drain(..) {
            if let bindery::llm::Event::Token(update) = event {
                outputs.get_mut(&numbers[&update.request]).expect("it was not aborted").extend(update.token);
            }
        }
    }
    assert_eq!(llm.stats().used_blocks, 0, "every block is back");
    outputs
}

/// Reference and WebGPU in every shape, against the reference with each request alone.
fn tiny_model_agrees_with_the_reference(
    format: WeightFormat,
    devices: &[(&str, Variant)],
    shapes: &[Shape],
    seed: u64,
) {
    let folder = tiny(&format!("{format:?}"));
    let mut llm = load_tiny(&folder, format, Box::new(CpuBackend::new()), (64, 128, 1, false));
    let alone = |(prompt, tokens): (Vec<u32>, u32)| {
        let params = SamplingParams { logprobs: Some(2), ..greedy(tokens) };
        let output = llm.generate(vec![(prompt, params)]).expect("generation succeeds").remove(0);
        Reference::new(&output.completions[0].token_ids, &output.completions[0].logprobs)
    };
    let references: Vec<Reference> = traffic(seed).into_iter().map(alone).collect();
    let mut ties = NearTies::default();
    let (mut preemptions, mut hits) = (0, 0);
    let devices = devices.iter().map(|device| Some(*device));
    for device in std::iter::once(None).chain(devices) {
        for &shape in shapes {
            let backend: Box<dyn Backend> = match device {
                None => Box::new(CpuBackend::new()),
                Some((name, variant)) => Box::new(WebGpuBackend::new(gpu(name, variant))),
            };
            let what = format!("{}, {shape:?}", backend.description());
            let mut llm = load_tiny(&folder, format, backend, shape);
            for (number, got) in serve(&mut llm, &traffic(seed), seed) {
                ties.compare(&format!("{what}, request {number}"), &got, &references[number], NEAR_TIE_F32);
            }
            preemptions += llm.stats().preemptions;
            hits += llm.stats().prefix_hit_tokens;
        }
    }
    assert!(preemptions > 0 && hits > 0, "{preemptions} preemptions, {hits} tokens found in the prefix cache");
    ties.report(&format!("tiny model in {format:?}"));
    assert!(ties.ties * 50 <= ties.compared, "too many near ties: {ties:?}");
}

#[test]
fn tiny_model_in_f32_agrees_with_the_reference() {
    let devices = [
        ("llvmpipe", Variant::Cpu),
        ("llvmpipe", Variant::Subgroup),
        ("llvmpipe", Variant::Plain),
        ("SwiftShader", Variant::Cpu),
        ("SwiftShader", Variant::Plain),
    ];
    // Roomy; and so tight that requests are preempted and prompts cut into chunks of 5.
    tiny_model_agrees_with_the_reference(WeightFormat::F32, &devices, &[(64, 128, 16, false), (7, 5, 3, true)], 1);
}

#[test]
fn tiny_model_in_q8_0_agrees_with_the_reference() {
    let devices = [("llvmpipe", Variant::Cpu), ("llvmpipe", Variant::Subgroup)];
    tiny_model_agrees_with_the_reference(WeightFormat::Q8_0, &devices, &[(9, 33, 6, false), (9, 16, 8, true)], 2);
}
