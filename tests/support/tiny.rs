//! A tiny model with random weights, served as traffic arrives, on any backend in any shape.
#![allow(dead_code, reason = "each test binary uses its own part")]

use bindery::backend::cpu::CpuBackend;
use bindery::backend::{Backend, KvDtype, WeightFormat};
use bindery::engine::RequestId;
use bindery::llm::Llm;
use bindery::model::{DummyWeights, LoadFormat};
use bindery::sampling::SamplingParams;
use std::collections::BTreeMap;
use std::path::PathBuf;

use super::llm::{NearTies, Reference, Rng, greedy, load};

/// Margin of log probabilities, with an f32 pool, below which the order of sums may decide.
const NEAR_TIE_F32: f32 = 1e-3;

pub const VOCAB: u32 = 97;

/// Two layers of random weights: `config.json` in a folder of its own.
pub fn tiny(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("equivalence").join(name);
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": VOCAB,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
    });
    // Other tests may be reading it: the file gets its name when it is whole.
    let partial = folder.join(format!("{:?}.partial", std::thread::current().id()));
    std::fs::write(&partial, config.to_string()).expect("a temporary file");
    std::fs::rename(&partial, folder.join("config.json")).expect("a file that is there");
    folder
}

/// Blocks, token budget, sequences, prefix caching.
pub type Shape = (u32, u32, u32, bool);

pub fn load_tiny(folder: &std::path::Path, format: WeightFormat, backend: Box<dyn Backend>, shape: Shape) -> Llm {
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
pub fn traffic(seed: u64) -> Vec<(Vec<u32>, u32)> {
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
pub fn serve(llm: &mut Llm, traffic: &[(Vec<u32>, u32)], seed: u64) -> BTreeMap<usize, Vec<u32>> {
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

/// Makes a backend with nothing on it.
pub type MakeBackend = Box<dyn Fn() -> Box<dyn Backend>>;

/// What happened on the way, over all backends and shapes.
#[derive(Debug, Default)]
pub struct Seen {
    pub preemptions: u64,
    pub swaps: u64,
    pub prefix_hit_tokens: u64,
    pub steps_ahead: u64,
}

/// Holds each backend in every shape against the reference with each request alone.
pub fn agree_with_the_reference(format: WeightFormat, makers: &[MakeBackend], shapes: &[Shape], seed: u64) -> Seen {
    let folder = tiny(&format!("{format:?}"));
    let mut llm = load_tiny(&folder, format, Box::new(CpuBackend::new()), (64, 128, 1, false));
    let alone = |(prompt, tokens): (Vec<u32>, u32)| {
        let params = SamplingParams { logprobs: Some(2), ..greedy(tokens) };
        let output = llm.generate(vec![(prompt, params)]).expect("generation succeeds").remove(0);
        Reference::new(&output.completions[0].token_ids, &output.completions[0].logprobs)
    };
    let references: Vec<Reference> = traffic(seed).into_iter().map(alone).collect();
    let mut ties = NearTies::default();
    let mut seen = Seen::default();
    for make in makers {
        for &shape in shapes {
            let backend = make();
            let what = format!("{}, {shape:?}", backend.description());
            let mut llm = load_tiny(&folder, format, backend, shape);
            for (number, got) in serve(&mut llm, &traffic(seed), seed) {
                ties.compare(&format!("{what}, request {number}"), &got, &references[number], NEAR_TIE_F32);
            }
            let stats = llm.stats();
            seen.preemptions += stats.preemptions;
            seen.swaps += stats.swaps;
            seen.prefix_hit_tokens += stats.prefix_hit_tokens;
            seen.steps_ahead += stats.steps_ahead;
        }
    }
    ties.report(&format!("tiny model in {format:?}"));
    assert!(ties.ties * 50 <= ties.compared, "too many near ties: {ties:?}");
    seen
}
