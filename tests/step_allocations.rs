//! A decode step allocates nothing on the host above the backend: not per token, not per step, whether tokens are the
//! argmax or drawn on the device, and whether the next step begins before they are known.
//!
//! The backend here does nothing, so that nothing but the step loop is counted. (A unit test counts what a GPU backend does
//! for a step's metadata; what `wgpu` allocates for a submit is its own affair.)

#![cfg(feature = "runtime")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use bindery::backend::{
    ActId, Backend, BackendError, DeviceMemory, HostWeight, KvLayout, Program, StepInput, StepLimits, StepOutput,
    WeightId,
};
use bindery::llm::{Event, Llm, LlmOptions, SpeculativeConfig};
use bindery::model::{DummyWeights, LoadFormat};
use bindery::sampling::SamplingParams;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, counting.
struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const VOCAB: u32 = 97;
const NUM_SEQS: u32 = 12;
const MAX_TOKENS: u32 = 640;

/// A device on which every next token is the number of the step, modulo a few.
#[derive(Default)]
struct Idle {
    weights: u32,
    steps: u32,
    /// Rows and draws of the steps in flight.
    in_flight: VecDeque<(usize, usize)>,
}

impl Backend for Idle {
    fn description(&self) -> String {
        "idle".to_owned()
    }

    fn upload_weight(&mut self, _: &HostWeight<'_>) -> Result<WeightId, BackendError> {
        self.weights += 1;
        Ok(WeightId(self.weights - 1))
    }

    fn prepare(&mut self, _: Program, _: KvLayout, _: StepLimits) -> Result<(), BackendError> {
        Ok(())
    }

    fn submit(&mut self, input: &StepInput<'_>) -> Result<(), BackendError> {
        self.in_flight.push_back((input.logits_indices.len(), input.draws.len()));
        Ok(())
    }

    fn collect(&mut self, output: &mut StepOutput) -> Result<(), BackendError> {
        output.clear();
        self.steps += 1;
        let (rows, draws) = self.in_flight.pop_front().expect("a step is in flight");
        let next = |_: usize| self.steps % 11;
        output.argmax.extend((0..rows).map(next));
        output.drawn.extend((0..draws).map(next));
        Ok(())
    }

    fn write_activation(&mut self, _: ActId, _: &[f32]) -> Result<(), BackendError> {
        Ok(())
    }

    fn read_activation(&mut self, _: ActId, _: usize) -> Result<Vec<f32>, BackendError> {
        Ok(Vec::new())
    }

    fn write_kv(&mut self, _: usize, _: &[f32], _: &[f32]) -> Result<(), BackendError> {
        Ok(())
    }

    fn read_kv(&mut self, _: usize) -> Result<(Vec<f32>, Vec<f32>), BackendError> {
        Ok(Default::default())
    }

    fn read_blocks(&mut self, _: &[u32]) -> Result<Vec<u8>, BackendError> {
        Ok(Vec::new())
    }

    fn write_blocks(&mut self, _: &[u32], _: &[u8]) -> Result<(), BackendError> {
        Ok(())
    }

    fn memory(&self) -> DeviceMemory {
        DeviceMemory { total_bytes: None, is_software: true, max_buffer_bytes: u64::MAX }
    }

    fn allocated_bytes(&self) -> u64 {
        0
    }
}

/// With steps scheduled ahead, or with drafts, or neither.
fn llm(ahead: bool, drafts: bool) -> Llm {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("step_allocations");
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": VOCAB,
        "max_position_embeddings": 672, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).expect("a temporary file");
    let mut options = LlmOptions::new(folder);
    options.load_format = LoadFormat::Dummy(DummyWeights::default());
    options.max_num_seqs = NUM_SEQS;
    options.async_scheduling = Some(ahead);
    let speculative = SpeculativeConfig { disable_by_batch_size: NUM_SEQS, ..SpeculativeConfig::ngram() };
    options.speculative = drafts.then_some(speculative);
    let checkpoint = options.open_checkpoint().expect("a valid checkpoint");
    Llm::with_backend(&checkpoint, Box::<Idle>::default(), &options, &mut |_| {}).expect("it loads")
}

/// Allocations of so many steps in which all sequences decode, each filling several blocks, after the first `warm_up`.
fn allocations_of_decoding(ahead: bool, drafts: bool, params: &SamplingParams, warm_up: u32, steps: u32) -> u64 {
    let mut llm = llm(ahead, drafts);
    for seq in 0..NUM_SEQS {
        let prompt = (0..20).map(|at| (seq * 7 + at) % VOCAB).collect();
        llm.add(prompt, params.clone()).expect("it is valid");
    }
    let mut events: Vec<Event> = Vec::new();
    let mut step = |llm: &mut Llm| {
        events.clear();
        assert!(llm.step(&mut events).expect("the device works"));
        events.len()
    };
    // Until every array has the size that it needs, and every token has been seen.
    (0..warm_up).for_each(|_| {
        step(&mut llm);
    });
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..steps {
        assert!(step(&mut llm) >= NUM_SEQS as usize, "every sequence gets a token");
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(llm.stats().accepted_draft_tokens > 0, drafts, "drafts that were right");
    allocations
}

/// One test, as the counter sees every thread.
#[test]
fn decoding_allocates_nothing() {
    let base = SamplingParams { max_tokens: Some(MAX_TOKENS), ignore_eos: true, ..SamplingParams::default() };
    let penalties = SamplingParams {
        repetition_penalty: 1.2,
        presence_penalty: 0.5,
        logit_bias: [(5, 1.0)].into(),
        ..base.clone()
    };
    let greedy = SamplingParams { ignore_eos: true, ..SamplingParams::greedy(MAX_TOKENS) };
    for ahead in [false, true] {
        for (what, params) in [("greedy", &greedy), ("drawn", &base), ("penalties", &penalties)] {
            let allocations = allocations_of_decoding(ahead, false, params, 40, 150);
            assert_eq!(allocations, 0, "{what}, a step ahead: {ahead}");
        }
    }
    // One draft of each step is right at most, as the device gives all rows one token.
    for (what, params) in [("greedy", &greedy), ("drawn", &base)] {
        assert_eq!(allocations_of_decoding(false, true, params, 200, 100), 0, "{what}, with drafts");
    }
}
