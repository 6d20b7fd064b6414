//! The CUDA backend: the same engine and kernels of the same names on NVIDIA's devices, the yardstick for WebGPU there.
//!
//! The kernels in `shaders/cuda/` are twins of the WGSL ones and read the same step metadata and weight planes. NVRTC
//! compiles them for the device at hand (`nvrtc`, `cubin_cache`); a step is one upload, one graph of launches
//! (`plan`, `graphs`) and one read-back of token ids. Neither the driver nor NVRTC is linked: without them the binary runs,
//! and [`CudaDevice::open`] says what is missing.
//!
//! Everything above the [`Driver`] is tested with [`EmulatedDevice`], which runs the kernels' own text on the processor.

mod cubin_cache;
mod device;
mod driver;
mod emulate;
mod events;
mod graphs;
mod kernel;
mod landing;
mod library;
pub mod nvrtc;
mod peaks;
mod plan;
mod staging;
mod weights;

pub use device::CudaDevice;
pub use driver::{DeviceTraits, Driver, GraphId, KernelId, Launch, ReadId};
pub use emulate::EmulatedDevice;
pub use kernel::{DecodeKernel, Kernel, ResourceLimits, kernel_variants};
pub use library::{CudaSummary, NO_DRIVER, cuda_devices};
pub use peaks::measure_fma_peak;

use super::gpu::{best_of, buffers, folded, fusion, grid, repack, step_words, wanted};
use super::{
    ActId, Backend, BackendError, DeviceMemory, DispatchTime, ForwardProfile, HostWeight, KvLayout, ProductInputs,
    ProfileClock, Program, StepInput, StepLimits, StepOutput, WeightId,
};
use buffers::Buffers;
use driver::Buffer;
use graphs::Graphs;
use kernel::attention_tiling;
use plan::{Plan, Planner};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use step_words::{AttentionTiling, RoundLimits, StepCounts, StepWords, max_partials};
use wanted::WantedBytes;
use weights::CudaWeight;

/// A [`Backend`] on a CUDA device.
pub struct CudaBackend {
    driver: Arc<dyn Driver>,
    weights: Vec<CudaWeight>,
    prepared: Option<Prepared>,
    words: StepWords,
    /// Steps submitted and not collected, in order.
    in_flight: VecDeque<InFlight>,
    allocated_bytes: u64,
    decode: DecodeKernel,
    /// Most keys of a round of the attention.
    round_keys: u64,
    /// The times of the last step, if they are wanted.
    profile: Option<ForwardProfile>,
}

/// A step that the device has been given.
struct InFlight {
    read: ReadId,
    wanted: WantedBytes,
}

struct Prepared {
    program: Program,
    kv: KvLayout,
    limits: StepLimits,
    tiling: AttentionTiling,
    round_limits: RoundLimits,
    graphs: Graphs,
    plan: Plan,
    buffers: Buffers<Buffer>,
    /// What some launches read and write, by its address.
    _halves: Buffer,
}

impl CudaBackend {
    /// A backend with no weights on an open device.
    pub fn new(driver: Arc<dyn Driver>) -> Self {
        Self {
            driver,
            weights: Vec::new(),
            prepared: None,
            words: StepWords::default(),
            in_flight: VecDeque::with_capacity(2),
            allocated_bytes: 0,
            decode: DecodeKernel::default(),
            round_keys: u64::MAX,
            profile: None,
        }
    }

    /// The same with another kernel for the attention of decodes, to measure them against each other.
    pub fn with_decode_kernel(mut self, decode: DecodeKernel) -> Self {
        self.decode = decode;
        self
    }

    /// The same with its attention launched in rounds of at most so many keys, those of all tokens together, as where its
    /// partial results would not fit their buffers otherwise. The results are the same.
    pub fn with_round_keys(mut self, keys: u64) -> Self {
        self.round_keys = keys;
        self
    }

    fn tiling(&self, program: &Program, kv: &KvLayout, limits: &StepLimits) -> AttentionTiling {
        let compute_capability = self.driver.traits().compute_capability;
        let StepLimits { batch_invariant, cascade_attention, .. } = *limits;
        attention_tiling(&program.attention, kv.dtype, compute_capability, batch_invariant, cascade_attention)
    }

    fn halves_bytes(&self, program: &Program, limits: &StepLimits) -> u64 {
        plan::halves_bytes(program, limits, &self.weights, self.driver.traits().compute_capability)
    }

    fn prepared(&self) -> &Prepared {
        self.prepared.as_ref().expect("prepare() comes before this call")
    }

    fn read_pool(&self, buffer: &Buffer) -> Result<Vec<f32>, BackendError> {
        let kv = self.prepared().kv;
        let bytes = self.driver.read(&[buffer.range(0, kv.layer_bytes())])?;
        Ok(kv.decode_layer(&bytes))
    }

    fn write_pool(&self, buffer: &Buffer, values: &[f32]) -> Result<(), BackendError> {
        buffer.write(0, &self.prepared().kv.encode_layer(values))
    }

    /// Where the blocks stand in the pools: address and bytes, in the order of [`Backend::read_blocks`].
    fn block_ranges(&self, blocks: &[u32]) -> Vec<(u64, u64)> {
        let Prepared { kv, buffers, .. } = self.prepared();
        let bytes = kv.layer_block_bytes();
        assert!(blocks.iter().all(|&block| block < kv.num_blocks), "block id beyond the pool");
        let pools = || buffers.k_pool.iter().zip(&buffers.v_pool).flat_map(|(k, v)| [k, v]);
        blocks.iter().flat_map(|&block| pools().map(move |pool| pool.range(u64::from(block) * bytes, bytes))).collect()
    }
}

impl Prepared {
    /// Runs a step's launches, and says what each took.
    fn run_timed(&self, driver: &dyn Driver, counts: &StepCounts) -> Result<Vec<DispatchTime>, BackendError> {
        let names = self.plan.names(counts);
        let times = driver.launch_timed(&self.plan.launches(counts))?.unwrap_or_else(|| vec![(0, 0); names.len()]);
        let dispatch = |(kernel, (begin_ns, end_ns))| DispatchTime { kernel, begin_ns, end_ns };
        Ok(names.into_iter().zip(times).map(dispatch).collect())
    }

    /// Where the bytes that come back of a step stand, in the order of [`WantedBytes`].
    fn wanted_ranges(&self, input: &StepInput<'_>, wanted: &WantedBytes) -> Vec<(u64, u64)> {
        let Some(logits) = self.program.logits else { return Vec::new() };
        let Buffers { activations, ids, draws, top_k, scores, .. } = &self.buffers;
        let firsts = [
            (ids, wanted.argmax),
            (&draws.drawn, wanted.drawn),
            (&top_k.scores, wanted.top_k),
            (scores, wanted.scores),
        ];
        let logits = &activations[logits.0 as usize];
        let row = |&row: &u32| logits.range(u64::from(row) * wanted.logits_row, wanted.logits_row);
        let firsts = firsts.map(|(buffer, bytes)| buffer.range(0, bytes)).into_iter();
        firsts.chain(input.read_logits_rows.iter().map(row)).collect()
    }
}

impl Backend for CudaBackend {
    fn description(&self) -> String {
        self.driver.description()
    }

    fn upload_weight(&mut self, weight: &HostWeight<'_>) -> Result<WeightId, BackendError> {
        let uploaded = weights::upload(&self.driver, weight)?;
        self.allocated_bytes += uploaded.bytes;
        self.weights.push(uploaded);
        Ok(WeightId(self.weights.len() as u32 - 1))
    }

    fn prepare(&mut self, program: Program, kv: KvLayout, limits: StepLimits) -> Result<(), BackendError> {
        if kv.block_size != 16 || !kv.head_dim.is_multiple_of(16) {
            return Err(BackendError::Unsupported(format!(
                "blocks of {} tokens and heads of {} elements; the CUDA kernels take blocks of 16 and multiples of 16",
                kv.block_size, kv.head_dim
            )));
        }
        if limits.quantize_activations {
            return Err(BackendError::Unsupported(
                "the CUDA kernels do not round activations to int8: leave out --quantize-activations".to_owned(),
            ));
        }
        let tiling = self.tiling(&program, &kv, &limits);
        let driver = self.driver.clone();
        let buffers = Buffers::new(&program, &kv, &limits, &tiling, |what, bytes| {
            self.allocated_bytes += bytes;
            Buffer::new(&driver, what, bytes)
        })?;
        let rope: Vec<[f32; 2]> = program.rope.cos.iter().zip(&program.rope.sin).map(|(&c, &s)| [c, s]).collect();
        buffers.rope.write(0, bytemuck::cast_slice(&rope))?;
        let halves_bytes = self.halves_bytes(&program, &limits);
        let halves = Buffer::new(&self.driver, "activations as halves", halves_bytes)?;
        self.allocated_bytes += halves_bytes;
        let planner = Planner {
            driver: &self.driver,
            program: &program,
            kv: &kv,
            tiling,
            decode: self.decode,
            batch_invariant: limits.batch_invariant,
            weights: &self.weights,
            buffers: &buffers,
            halves: &halves,
            nodes: Vec::new(),
        };
        let plan = planner.plan()?;
        let graphs = Graphs::new(self.driver.clone());
        let partials = max_partials(&limits, kv.block_size, &tiling, &program.attention);
        let round_limits = RoundLimits { partials, items: u32::MAX, keys: self.round_keys };
        self.prepared =
            Some(Prepared { program, kv, limits, tiling, round_limits, graphs, plan, buffers, _halves: halves });
        self.driver.synchronize()
    }

    fn submit(&mut self, input: &StepInput<'_>) -> Result<(), BackendError> {
        let prepared = self.prepared.as_mut().expect("prepare() comes before submit()");
        input.check(prepared.kv.num_blocks, prepared.kv.block_size, &prepared.limits);
        let rope_rows = prepared.program.rope.cos.len() as u32 / (prepared.program.attention.head_dim / 2).max(1);
        if rope_rows > 0 {
            assert!(input.positions.iter().all(|&position| position < rope_rows), "position beyond the RoPE table");
        }
        self.words.build(input, prepared.kv.block_size, &prepared.tiling, &prepared.round_limits);
        prepared.buffers.step.write(0, bytemuck::cast_slice(&self.words.words))?;
        match &mut self.profile {
            None => prepared.graphs.run(&prepared.plan, &self.words.counts, &prepared.limits)?,
            Some(profile) => profile.dispatches = prepared.run_timed(&*self.driver, &self.words.counts)?,
        }
        let wanted = WantedBytes::of(input, &prepared.program);
        let read = self.driver.begin_read(&prepared.wanted_ranges(input, &wanted))?;
        self.in_flight.push_back(InFlight { read, wanted });
        Ok(())
    }

    fn collect(&mut self, output: &mut StepOutput) -> Result<(), BackendError> {
        output.clear();
        let InFlight { read, wanted } = self.in_flight.pop_front().expect("submit() comes before collect()");
        let start = Instant::now();
        let bytes = self.driver.finish_read(read)?;
        output.waited = start.elapsed();
        wanted.split(&bytes, output);
        Ok(())
    }

    fn scratch_bytes(&self, program: &Program, kv: &KvLayout, limits: &StepLimits) -> u64 {
        let tiling = self.tiling(program, kv, limits);
        buffers::scratch_bytes(program, kv, limits, &tiling) + self.halves_bytes(program, limits)
    }

    fn product_inputs(&self) -> ProductInputs {
        match kernel::has_tensor_cores(self.driver.traits().compute_capability) {
            true => ProductInputs::F16,
            false => ProductInputs::F32,
        }
    }

    fn runs_beside_the_host(&self) -> bool {
        !self.driver.memory().is_software
    }

    fn write_activation(&mut self, activation: ActId, values: &[f32]) -> Result<(), BackendError> {
        self.prepared().buffers.activations[activation.0 as usize].write(0, bytemuck::cast_slice(values))
    }

    fn read_activation(&mut self, activation: ActId, len: usize) -> Result<Vec<f32>, BackendError> {
        let buffer = &self.prepared().buffers.activations[activation.0 as usize];
        Ok(bytemuck::pod_collect_to_vec(&self.driver.read(&[buffer.range(0, 4 * len as u64)])?))
    }

    fn write_kv(&mut self, layer: usize, k: &[f32], v: &[f32]) -> Result<(), BackendError> {
        let buffers = &self.prepared().buffers;
        self.write_pool(&buffers.k_pool[layer], k)?;
        self.write_pool(&buffers.v_pool[layer], v)
    }

    fn read_kv(&mut self, layer: usize) -> Result<(Vec<f32>, Vec<f32>), BackendError> {
        let buffers = &self.prepared().buffers;
        Ok((self.read_pool(&buffers.k_pool[layer])?, self.read_pool(&buffers.v_pool[layer])?))
    }

    fn read_blocks(&mut self, blocks: &[u32]) -> Result<Vec<u8>, BackendError> {
        self.driver.read(&self.block_ranges(blocks))
    }

    fn write_blocks(&mut self, blocks: &[u32], bytes: &[u8]) -> Result<(), BackendError> {
        let ranges = self.block_ranges(blocks);
        let total: u64 = ranges.iter().map(|&(_, bytes)| bytes).sum();
        assert_eq!(bytes.len() as u64, total, "bytes of {} blocks", blocks.len());
        let mut rest = bytes;
        for (address, bytes) in ranges {
            let (this, after) = rest.split_at(bytes as usize);
            self.driver.upload(address, this)?;
            rest = after;
        }
        Ok(())
    }

    /// Steps are launched kernel by kernel then: a graph does not tell its kernels' times.
    fn start_profiling(&mut self) -> Result<ProfileClock, BackendError> {
        self.profile.get_or_insert_default();
        Ok(if self.driver.launch_timed(&[])?.is_some() { ProfileClock::InPass } else { ProfileClock::None })
    }

    fn take_profile(&mut self) -> Option<ForwardProfile> {
        self.profile.as_mut().map(std::mem::take)
    }

    fn memory(&self) -> DeviceMemory {
        self.driver.memory()
    }

    fn allocated_bytes(&self) -> u64 {
        self.allocated_bytes
    }
}
