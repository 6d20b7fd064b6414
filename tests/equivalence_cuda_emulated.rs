//! The CUDA backend end to end, its kernels run by the processor: a tiny model under real scheduling generates what the
//! reference backend does, through sharing, copies on write, preemption and swaps; by graphs of launches and by launches.

#![cfg(feature = "cuda")]

use bindery::backend::cpu::CpuBackend;
use bindery::backend::cuda::{
    CudaBackend, DeviceTraits, Driver, EmulatedDevice, GraphId, Kernel, KernelId, Launch, NO_DRIVER, ReadId,
    cuda_devices,
};
use bindery::backend::{Backend, BackendError, DeviceMemory, WeightFormat};
use bindery::model::{DummyWeights, LoadFormat};
use bindery::sampling::SamplingParams;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

#[path = "support/llm.rs"]
mod llm;
#[path = "support/tiny.rs"]
mod tiny;
use llm::{Rng, greedy};

/// One for all tests: it compiles each kernel once.
fn emulated() -> Arc<EmulatedDevice> {
    static DEVICE: OnceLock<Arc<EmulatedDevice>> = OnceLock::new();
    DEVICE
        .get_or_init(|| {
            EmulatedDevice::open(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap_or_else(|error| panic!("{error}"))
        })
        .clone()
}

/// The emulated device, counting launches and replays; without graphs, if so told.
struct Counting {
    device: Arc<EmulatedDevice>,
    captures: bool,
    launches: AtomicU32,
    captured: AtomicU32,
    replays: AtomicU32,
    forgotten: AtomicU32,
}

impl Counting {
    fn new(captures: bool) -> Arc<Self> {
        let [launches, captured, replays, forgotten] = [const { AtomicU32::new(0) }; 4];
        Arc::new(Self { device: emulated(), captures, launches, captured, replays, forgotten })
    }

    fn backend(self: &Arc<Self>) -> Box<dyn Backend> {
        Box::new(CudaBackend::new(self.clone()))
    }

    fn make(self: &Arc<Self>) -> tiny::MakeBackend {
        let driver = self.clone();
        Box::new(move || driver.backend())
    }
}

impl Driver for Counting {
    fn description(&self) -> String {
        self.device.description()
    }
    /// That of a GPU: steps are submitted ahead, and shared prefixes read together.
    fn memory(&self) -> DeviceMemory {
        DeviceMemory { is_software: false, ..self.device.memory() }
    }
    fn traits(&self) -> DeviceTraits {
        self.device.traits()
    }
    fn alloc(&self, what: &str, bytes: u64) -> Result<u64, BackendError> {
        self.device.alloc(what, bytes)
    }
    fn free(&self, address: u64) {
        self.device.free(address);
    }
    fn upload(&self, address: u64, bytes: &[u8]) -> Result<(), BackendError> {
        self.device.upload(address, bytes)
    }
    fn read(&self, ranges: &[(u64, u64)]) -> Result<Vec<u8>, BackendError> {
        self.device.read(ranges)
    }
    fn begin_read(&self, ranges: &[(u64, u64)]) -> Result<ReadId, BackendError> {
        self.device.begin_read(ranges)
    }
    fn finish_read(&self, read: ReadId) -> Result<Vec<u8>, BackendError> {
        self.device.finish_read(read)
    }
    fn load(&self, kernels: &[&Kernel]) -> Result<Vec<KernelId>, BackendError> {
        self.device.load(kernels)
    }
    fn launch(&self, launch: &Launch<'_>) -> Result<(), BackendError> {
        self.launches.fetch_add(1, Ordering::Relaxed);
        self.device.launch(launch)
    }
    fn capture(&self, launches: &[Launch<'_>]) -> Result<Option<GraphId>, BackendError> {
        if !self.captures {
            return Ok(None);
        }
        self.captured.fetch_add(1, Ordering::Relaxed);
        self.device.capture(launches)
    }
    fn replay(&self, graph: GraphId) -> Result<(), BackendError> {
        self.replays.fetch_add(1, Ordering::Relaxed);
        self.device.replay(graph)
    }
    fn forget(&self, graph: GraphId) {
        self.forgotten.fetch_add(1, Ordering::Relaxed);
        self.device.forget(graph);
    }
    fn synchronize(&self) -> Result<(), BackendError> {
        self.device.synchronize()
    }
}

/// So tight that requests are preempted and prompts cut into chunks of 5; and roomier, with shared prefixes.
const SHAPES: [tiny::Shape; 2] = [(7, 5, 3, true), (12, 40, 8, true)];

fn count(counter: &AtomicU32) -> u32 {
    counter.load(Ordering::Relaxed)
}

#[test]
fn a_served_model_agrees_with_the_reference() {
    let driver = Counting::new(true);
    let seen = tiny::agree_with_the_reference(WeightFormat::F32, &[driver.make()], &SHAPES, 1);
    assert!(seen.preemptions > 0 && seen.swaps > 0 && seen.prefix_hit_tokens > 0 && seen.steps_ahead > 0, "{seen:?}");
    let (captured, replays) = (count(&driver.captured), count(&driver.replays));
    assert!(captured > 0 && replays > captured, "{captured} graphs, replayed {replays} times");
    assert_eq!(count(&driver.forgotten), captured, "a backend forgets its graphs when it goes");
}

#[test]
fn a_device_without_graphs_is_given_launches() {
    let driver = Counting::new(false);
    tiny::agree_with_the_reference(WeightFormat::F32, &[driver.make()], &SHAPES[1..], 5);
    assert_eq!((count(&driver.captured), count(&driver.replays)), (0, 0));
    assert!(count(&driver.launches) > 0);
}

#[test]
fn quantised_models_agree_with_the_reference() {
    for (format, seed) in [(WeightFormat::Q8_0, 2), (WeightFormat::Q4_0, 3)] {
        tiny::agree_with_the_reference(format, &[Counting::new(true).make()], &SHAPES[1..], seed);
    }
}

/// Samples and beams share their prompt, whose last block is copied when they part.
#[test]
fn samples_and_beams_are_those_of_the_reference() {
    let folder = tiny::tiny("cuda-samples");
    let outputs = |backend: Box<dyn Backend>| {
        let mut llm = tiny::load_tiny(&folder, WeightFormat::F32, backend, (32, 64, 8, true));
        let mut rng = Rng(5);
        let prompt = rng.prompt(23, tiny::VOCAB);
        let sampled = SamplingParams { n: 4, seed: Some(11), temperature: 1.0, ..greedy(20) };
        let beams = SamplingParams { n: 3, use_beam_search: true, ..greedy(12) };
        let requests = vec![(prompt.clone(), sampled), (prompt, beams), (rng.prompt(40, tiny::VOCAB), greedy(20))];
        let outputs = llm.generate(requests).expect("generation succeeds");
        let copies = llm.stats().cow_copies;
        let tokens = |output: &bindery::llm::RequestOutput| {
            output.completions.iter().map(|completion| completion.token_ids.clone()).collect::<Vec<_>>()
        };
        (outputs.iter().map(tokens).collect::<Vec<_>>(), copies)
    };
    let (got, copies) = outputs(Counting::new(true).backend());
    let (want, _) = outputs(Box::new(CpuBackend::new()));
    assert_eq!(got, want);
    assert!(copies > 0);
}

/// Few rows leave norms, gates, and RoPE with the cache write to the products; those of many rows take halves, made in a launch
/// of their own, and leave RoPE.
#[test]
fn a_decode_takes_five_launches_a_layer() {
    let mut llm = llm::load(&tiny::tiny("cuda-launches"), Counting::new(false).backend(), |options| {
        options.load_format = LoadFormat::Dummy(DummyWeights { format: WeightFormat::Q8_0, seed: 3 });
        options.profile = true;
    });
    let mut launches = |prompt_len: u32, tokens: u32| {
        llm.reset_profile();
        llm.generate(vec![(Rng(5).prompt(prompt_len, tiny::VOCAB), greedy(tokens))]).expect("generation succeeds");
        let kernels = &llm.profile().expect("asked for").kernels;
        let count = |name: &str| kernels.get(name).map_or(0, |times| times.dispatches);
        ["matvec", "attention_decode", "round_rows", "matmul_tensor", "rope_and_cache", "rms_norm", "silu_mul"]
            .map(count)
    };
    // Four products in each of two layers and the output head, three times.
    assert_eq!(launches(1, 3), [27, 6, 0, 0, 0, 0, 0]);
    // Of a prefill of 20 rows only the output head has few.
    assert_eq!(launches(20, 1), [1, 0, 8, 8, 2, 0, 0]);
}

/// This machine has a driver, and lists devices, or none, and says so in one line.
#[test]
fn a_machine_without_a_driver_says_so() {
    match cuda_devices() {
        Ok(devices) => assert!(devices.iter().all(|device| device.memory_bytes > 0)),
        Err(error) => assert!(error.to_string().contains(NO_DRIVER) && !error.to_string().contains('\n'), "{error}"),
    }
}
