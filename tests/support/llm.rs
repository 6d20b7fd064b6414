//! Loaded models on shared devices: a process compiles hardly any kernel twice for a device and variant.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bindery::backend::Backend;
use bindery::backend::webgpu::{GpuDevice, Variant, WebGpuBackend};
use bindery::llm::{Llm, LlmOptions};
use bindery::model::Checkpoint;
use bindery::sampling::{SamplingParams, TokenLogprobs};
use serde_json::Value;

/// An adapter that the test command installs.
pub fn gpu(name: &str, variant: Variant) -> Arc<GpuDevice> {
    static DEVICES: Mutex<BTreeMap<String, Arc<GpuDevice>>> = Mutex::new(BTreeMap::new());
    let mut devices = DEVICES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let open = || {
        GpuDevice::open(Some(name), Some(variant)).unwrap_or_else(|error| {
            panic!("{error}; `cargo xtask test` installs the adapters: mesa-vulkan-drivers (llvmpipe), chromium-common (SwiftShader)")
        })
    };
    devices.entry(format!("{name} {variant}")).or_insert_with(open).clone()
}

pub fn load(model: &Path, backend: Box<dyn Backend>, edit: impl FnOnce(&mut LlmOptions)) -> Llm {
    let mut options = LlmOptions::new(model);
    edit(&mut options);
    let checkpoint = Checkpoint::open(model, options.load_format).unwrap_or_else(|error| panic!("{error}"));
    Llm::with_backend(&checkpoint, backend, &options, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

/// SmolLM2 on lavapipe, sequences of up to 512 tokens.
pub fn smollm2(model: &Path, edit: impl FnOnce(&mut LlmOptions)) -> Llm {
    let backend = WebGpuBackend::new(gpu("llvmpipe", Variant::Cpu));
    load(model, Box::new(backend), |options| {
        options.max_model_len = Some(512);
        options.num_gpu_blocks_override = Some(128);
        edit(options);
    })
}

pub fn greedy(tokens: u32) -> SamplingParams {
    SamplingParams { ignore_eos: true, ..SamplingParams::greedy(tokens) }
}

/// One of transformers' greedy runs, in `tests/golden/oracle`.
pub fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/oracle/greedy_{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).expect("the goldens are in the repository")).expect("JSON")
}

pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("a list of ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// Pseudorandom numbers for prompts (SplitMix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % u64::from(end)) as u32
    }

    pub fn prompt(&mut self, len: u32, vocab_size: u32) -> Vec<u32> {
        (0..len).map(|_| self.below(vocab_size)).collect()
    }
}

/// A greedy run to compare others with: its tokens, and at each the margin of the likeliest over the second.
#[derive(Debug, Clone)]
pub struct Reference {
    pub tokens: Vec<u32>,
    margins: Vec<f32>,
}

impl Reference {
    /// From a run with `logprobs` of at least 2.
    pub fn new(tokens: &[u32], logprobs: &[TokenLogprobs]) -> Self {
        let margins = logprobs.iter().map(|l| l.top[0].logprob - l.top[1].logprob).collect();
        Self { tokens: tokens.to_vec(), margins }
    }
}

/// Compares runs with their references, and counts where they part at a near tie: nothing passes in silence.
#[derive(Debug, Default)]
pub struct NearTies {
    pub compared: usize,
    pub ties: usize,
}

impl NearTies {
    /// `got` must be the reference up to a position whose margin is below `margin`.
    pub fn compare(&mut self, what: &str, got: &[u32], reference: &Reference, margin: f32) {
        self.compared += 1;
        assert_eq!(got.len(), reference.tokens.len(), "{what}: length");
        let Some(at) = got.iter().zip(&reference.tokens).position(|(a, b)| a != b) else { return };
        let found = reference.margins[at];
        let expected = reference.tokens[at];
        assert!(found < margin, "{what}: token {at} is {} instead of {expected} (margin {found})", got[at]);
        eprintln!("{what}: parts at token {at}, a near tie of {found}");
        self.ties += 1;
    }

    pub fn report(&self, what: &str) {
        eprintln!("{what}: {} of {} runs part at a near tie", self.ties, self.compared);
    }
}
