//! What a request generates does not depend on its neighbours, the token budget, the size of the pool, preemption or
//! prefix hits (invariant I11), nor, on a tiny model, on the backend.
//!
//! Kernels differ with the shape of a step, and so in rounding: a greedy run may part from its reference where the
//! reference's own margin is tiny. Such partings are counted and bounded.

#![cfg(feature = "webgpu")]

use bindery::backend::cpu::CpuBackend;
use bindery::backend::webgpu::{Variant, WebGpuBackend};
use bindery::backend::{Backend, WeightFormat};
use bindery::llm::{Llm, LlmOptions, RequestOutput, SpeculativeConfig};
use bindery::sampling::SamplingParams;

#[path = "support/llm.rs"]
mod llm;
#[path = "support/models.rs"]
mod models;
#[path = "support/tiny.rs"]
mod tiny;
use llm::{NearTies, Reference, Rng, golden, gpu, greedy, ids, load, smollm2};
use tiny::Shape;

const TOKENS: u32 = 24;
/// Margin of log probabilities below which the f16 pool and the shape of a kernel may decide.
const NEAR_TIE: f32 = 0.15;

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
fn smollm2_generates_the_same_alone_in_a_batch_in_chunks_ahead_preempted_and_from_the_prefix_cache() {
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

    let mut llm = smollm2(&model, |options| {
        without_cache(options);
        options.async_scheduling = Some(true);
    });
    check("a step ahead", together(&mut llm));
    let stats = llm.stats();
    assert!(stats.steps_ahead > u64::from(TOKENS) / 2 && stats.used_blocks == 0, "{stats:?}");

    let mut llm = smollm2(&model, |options| {
        without_cache(options);
        options.speculative = Some(SpeculativeConfig { disable_by_batch_size: 64, ..SpeculativeConfig::ngram() });
    });
    check("drafts", together(&mut llm));
    let stats = llm.stats();
    let wrong = stats.draft_tokens - stats.accepted_draft_tokens;
    assert!(stats.accepted_draft_tokens > 10 && wrong > 10 && stats.used_blocks == 0, "{stats:?}");

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

/// Reference and WebGPU in every shape, against the reference with each request alone.
fn tiny_model_agrees_with_the_reference(
    format: WeightFormat,
    devices: &[(&'static str, Variant)],
    shapes: &[Shape],
    seed: u64,
) {
    let mut makers: Vec<tiny::MakeBackend> = vec![Box::new(|| Box::new(CpuBackend::new()) as Box<dyn Backend>)];
    for &(name, variant) in devices {
        makers.push(Box::new(move || Box::new(WebGpuBackend::new(gpu(name, variant))) as Box<dyn Backend>));
    }
    let seen = tiny::agree_with_the_reference(format, &makers, shapes, seed);
    assert!(seen.preemptions > 0 && seen.prefix_hit_tokens > 0, "{seen:?}");
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
