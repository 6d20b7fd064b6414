//! The WebGPU backend: WGSL kernels on Vulkan, Metal and DirectX 12.
//!
//! Weights are repacked into aligned planes and stay quantised; every dispatch is prebuilt (`plan`); a step is one
//! metadata upload, one submit (more for long prefills, see `pace`) and one read-back of token ids.

mod adapter;
mod device;
mod kernel;
mod pace;
mod peaks;
mod plan;
mod profile;
mod read_back;
#[cfg(test)]
mod reflection;
#[cfg(test)]
mod translation;
mod tune;
mod tuning;
#[cfg(test)]
mod uniformity;
mod weights;

pub use adapter::{AdapterSummary, NO_ADAPTER, Variant, adapters};
pub use device::GpuDevice;
pub use tune::{
    Autotune, CachedTuning, Trial, TuneRequest, TuningChoice, TuningSource, cached_tunings, choose as choose_tuning,
    tuning_candidates,
};
pub use tuning::Tuning;
/// The version of `wgpu` whose adapters [`GpuDevice::open_adapter`] takes.
pub use wgpu;

use super::gpu::{best_of, buffers, folded, fusion, grid, repack, step_words, wanted, weight_runs};
use super::{
    ActId, Backend, BackendError, DeviceMemory, ForwardProfile, HostWeight, KvLayout, ProductInputs, ProfileClock,
    Program, StepInput, StepLimits, StepOutput, WeightId,
};
use buffers::Buffers;
use kernel::attention_tiling;
use pace::Pace;
use plan::{Int8Rows, Plan, Planner};
use profile::Profiler;
use read_back::ReadBack;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use step_words::{AttentionTiling, RoundLimits, StepCounts, StepWords, max_partials};
use wanted::WantedBytes;
use weights::GpuWeight;

/// A [`Backend`] on a `wgpu` device.
pub struct WebGpuBackend {
    gpu: Arc<GpuDevice>,
    tuning: Tuning,
    weights: Vec<GpuWeight>,
    prepared: Option<Prepared>,
    words: StepWords,
    /// Steps submitted and not collected, in order.
    in_flight: VecDeque<InFlight>,
    /// For the next ones.
    read_backs: Vec<ReadBack>,
    pace: Pace,
    /// `None` unless times are wanted.
    profiler: Option<Profiler>,
    allocated_bytes: u64,
}

struct Prepared {
    program: Program,
    kv: KvLayout,
    limits: StepLimits,
    tiling: AttentionTiling,
    /// But for the keys, which follow from the pace.
    round_limits: RoundLimits,
    buffers: Buffers<wgpu::Buffer>,
    plan: Plan,
}

/// A step that the device has been given.
struct InFlight {
    submission: wgpu::SubmissionIndex,
    read_back: ReadBack,
    wanted: WantedBytes,
    /// In multiply-adds.
    work: u64,
    /// When the host began with it.
    began: Instant,
}

impl Prepared {
    /// Records a step and submits it, but for its last part.
    fn encode(&self, gpu: &GpuDevice, counts: &StepCounts, budget: u64) -> wgpu::CommandEncoder {
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some("step") };
        let mut first = 0;
        loop {
            let mut encoder = gpu.device.create_command_encoder(&descriptor);
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            let next = self.plan.encode(&mut pass, counts, first, budget);
            drop(pass);
            let Some(next) = next else { return encoder };
            first = next;
            gpu.queue.submit([encoder.finish()]);
        }
    }

    /// What the attention dispatches at once, with so much work in a submit.
    fn round_limits(&self, budget: u64) -> RoundLimits {
        RoundLimits { keys: budget / plan::work_per_key(&self.program.attention), ..self.round_limits }
    }

    fn copy_wanted(
        &self,
        input: &StepInput<'_>,
        wanted: &WantedBytes,
        read_back: &mut ReadBack,
        encoder: &mut wgpu::CommandEncoder,
    ) {
        let Some(logits) = self.program.logits else { return };
        let logits = &self.buffers.activations[logits.0 as usize];
        read_back.copy(encoder, &self.buffers.ids, 0, wanted.argmax);
        read_back.copy(encoder, &self.buffers.draws.drawn, 0, wanted.drawn);
        read_back.copy(encoder, &self.buffers.top_k.scores, 0, wanted.top_k);
        read_back.copy(encoder, &self.buffers.scores, 0, wanted.scores);
        for &row in input.read_logits_rows {
            read_back.copy(encoder, logits, u64::from(row) * wanted.logits_row, wanted.logits_row);
        }
    }
}

impl WebGpuBackend {
    /// A backend with no weights on an open device.
    pub fn new(gpu: Arc<GpuDevice>) -> Self {
        let pace = Pace::new(gpu.summary().is_software);
        Self {
            tuning: gpu.tuning,
            gpu,
            weights: Vec::new(),
            prepared: None,
            words: StepWords::default(),
            in_flight: VecDeque::with_capacity(2),
            read_backs: Vec::with_capacity(2),
            pace,
            profiler: None,
            allocated_bytes: 0,
        }
    }

    /// Other numbers for the kernels than the device's, from the next `prepare` on.
    fn set_tuning(&mut self, tuning: Tuning) {
        self.tuning = tuning;
    }

    /// Fixes how much work goes into one submit, in multiply-adds, which otherwise follows from the device's speed. The
    /// results are the same.
    pub fn set_submit_budget(&mut self, work: u64) {
        self.pace.fix(work);
    }

    /// The numbers that hold with these limits.
    fn tuning(&self, limits: &StepLimits) -> Tuning {
        if limits.batch_invariant { Tuning::default() } else { self.tuning }
    }

    fn tiling(&self, program: &Program, kv: &KvLayout, limits: &StepLimits) -> AttentionTiling {
        let (shape, tuning) = (&program.attention, self.tuning(limits));
        let (variant, subgroup_size, matrices) = (self.gpu.variant(), self.gpu.subgroup_size(), self.gpu.matrices());
        attention_tiling(variant, subgroup_size, matrices, shape, kv.dtype, limits, &tuning)
    }

    /// Bytes for the partial sums of split products: on software adapters none are split, nor where rows must not depend on
    /// how many there are.
    fn partial_sums_bytes(&self, limits: &StepLimits) -> Option<u64> {
        (self.gpu.variant() != Variant::Cpu && !limits.batch_invariant).then_some(plan::PARTIAL_SUMS_BYTES)
    }

    fn prepared(&self) -> &Prepared {
        self.prepared.as_ref().expect("prepare() comes before this call")
    }

    fn read_floats(&self, buffer: &wgpu::Buffer, len: usize) -> Result<Vec<f32>, BackendError> {
        if len == 0 {
            return Ok(Vec::new());
        }
        Ok(bytemuck::pod_collect_to_vec(&self.gpu.read(&[(buffer, 0, 4 * len as u64)])?))
    }

    fn read_pool(&self, buffer: &wgpu::Buffer) -> Result<Vec<f32>, BackendError> {
        let kv = self.prepared().kv;
        Ok(kv.decode_layer(&self.gpu.read(&[(buffer, 0, kv.layer_bytes())])?))
    }

    /// Where the blocks stand in the pools: `(buffer, first byte, bytes)`, in the order of [`Backend::read_blocks`].
    fn block_ranges(&self, blocks: &[u32]) -> Vec<(&wgpu::Buffer, u64, u64)> {
        let prepared = self.prepared();
        let bytes = prepared.kv.layer_block_bytes();
        assert!(blocks.iter().all(|&block| block < prepared.kv.num_blocks), "block id beyond the pool");
        let layers = || prepared.buffers.k_pool.iter().zip(&prepared.buffers.v_pool).flat_map(|(k, v)| [k, v]);
        blocks.iter().flat_map(|&block| layers().map(move |pool| (pool, u64::from(block) * bytes, bytes))).collect()
    }

    fn write_pool(&self, buffer: &wgpu::Buffer, values: &[f32]) {
        self.gpu.queue.write_buffer(buffer, 0, &self.prepared().kv.encode_layer(values));
    }
}

/// Most rows of x of a product that rounds activations to int8
/// ([`StepLimits::quantize_activations`](super::StepLimits::quantize_activations)).
pub const MOST_INT8_ROWS: u32 = kernel::VECTOR_ROWS;

impl Backend for WebGpuBackend {
    fn description(&self) -> String {
        let summary = self.gpu.summary();
        format!("{} ({}, {}, {} kernels)", summary.name, summary.api, summary.driver, self.gpu.variant())
    }

    fn upload_weight(&mut self, weight: &HostWeight<'_>) -> Result<WeightId, BackendError> {
        let uploaded = weights::upload(&self.gpu, weight)?;
        self.allocated_bytes += uploaded.bytes;
        self.weights.push(uploaded);
        Ok(WeightId(self.weights.len() as u32 - 1))
    }

    fn prepare(&mut self, program: Program, kv: KvLayout, limits: StepLimits) -> Result<(), BackendError> {
        if kv.block_size != 16 || !kv.head_dim.is_multiple_of(16) {
            return Err(BackendError::Unsupported(format!(
                "blocks of {} tokens and heads of {} elements; the WebGPU kernels take blocks of 16 and multiples of 16",
                kv.block_size, kv.head_dim
            )));
        }
        if limits.quantize_activations {
            Int8Rows::check(self.gpu.variant(), &limits)?;
        }
        let tuning = self.tuning(&limits);
        let tiling = self.tiling(&program, &kv, &limits);
        let partial_sums_bytes = self.partial_sums_bytes(&limits);
        let mut buffer = |what: &str, bytes: u64| {
            self.allocated_bytes += bytes;
            self.gpu.buffer(what, bytes)
        };
        let buffers = Buffers::new(&program, &kv, &limits, &tiling, &mut buffer)?;
        let int8 = limits.quantize_activations.then(|| Int8Rows::new(&program, &mut buffer)).transpose()?;
        let partial_sums = partial_sums_bytes.map(|bytes| buffer("partial sums of products", bytes)).transpose()?;
        let rope: Vec<[f32; 2]> = program.rope.cos.iter().zip(&program.rope.sin).map(|(&c, &s)| [c, s]).collect();
        self.gpu.queue.write_buffer(&buffers.rope, 0, bytemuck::cast_slice(&rope));
        let planner = Planner {
            gpu: &self.gpu,
            program: &program,
            kv: &kv,
            tiling,
            tuning: &tuning,
            batch_invariant: limits.batch_invariant,
            weights: &self.weights,
            buffers: &buffers,
            int8,
            partial_sums,
            plan: Plan::default(),
            drafts: Vec::new(),
        };
        let plan = planner.plan()?;
        let round_limits = RoundLimits {
            partials: max_partials(&limits, kv.block_size, &tiling, &program.attention),
            items: self.gpu.device.limits().max_compute_workgroups_per_dimension,
            keys: u64::MAX,
        };
        self.prepared = Some(Prepared { program, kv, limits, tiling, round_limits, buffers, plan });
        self.gpu.check()
    }

    fn submit(&mut self, input: &StepInput<'_>) -> Result<(), BackendError> {
        let prepared = self.prepared.as_ref().expect("prepare() comes before submit()");
        input.check(prepared.kv.num_blocks, prepared.kv.block_size, &prepared.limits);
        let rope_rows = prepared.program.rope.cos.len() as u32 / (prepared.program.attention.head_dim / 2).max(1);
        if rope_rows > 0 {
            assert!(input.positions.iter().all(|&position| position < rope_rows), "position beyond the RoPE table");
        }
        let began = Instant::now();
        let (gpu, budget) = (&self.gpu, self.pace.budget());
        let round_limits = prepared.round_limits(budget);
        self.words.build(input, prepared.kv.block_size, &prepared.tiling, &round_limits);
        gpu.queue.write_buffer(&prepared.buffers.step, 0, bytemuck::cast_slice(&self.words.words));
        let mut encoder = match &mut self.profiler {
            Some(profiler) => profiler.encode(gpu, &prepared.plan, &self.words.counts),
            None => prepared.encode(gpu, &self.words.counts, budget),
        };
        let wanted = WantedBytes::of(input, &prepared.program);
        let mut read_back = self.read_backs.pop().unwrap_or_default();
        read_back.begin(gpu, wanted.total());
        prepared.copy_wanted(input, &wanted, &mut read_back, &mut encoder);
        let submission = gpu.queue.submit([encoder.finish()]);
        let work = prepared.plan.work(&self.words.counts);
        self.in_flight.push_back(InFlight { submission, read_back, wanted, work, began });
        Ok(())
    }

    fn collect(&mut self, output: &mut StepOutput) -> Result<(), BackendError> {
        output.clear();
        let InFlight { submission, read_back, wanted, work, began } =
            self.in_flight.pop_front().expect("submit() comes before collect()");
        output.waited = read_back.finish(&self.gpu, submission.clone(), |bytes| wanted.split(bytes, output))?;
        self.read_backs.push(read_back);
        self.pace.measured(work, began);
        if let Some(profiler) = &mut self.profiler {
            profiler.finish(&self.gpu, submission)?;
        }
        Ok(())
    }

    fn runs_beside_the_host(&self) -> bool {
        !self.gpu.summary().is_software
    }

    fn write_activation(&mut self, activation: ActId, values: &[f32]) -> Result<(), BackendError> {
        let buffer = &self.prepared().buffers.activations[activation.0 as usize];
        self.gpu.queue.write_buffer(buffer, 0, bytemuck::cast_slice(values));
        self.gpu.check()
    }

    fn read_activation(&mut self, activation: ActId, len: usize) -> Result<Vec<f32>, BackendError> {
        self.read_floats(&self.prepared().buffers.activations[activation.0 as usize], len)
    }

    fn write_kv(&mut self, layer: usize, k: &[f32], v: &[f32]) -> Result<(), BackendError> {
        self.write_pool(&self.prepared().buffers.k_pool[layer], k);
        self.write_pool(&self.prepared().buffers.v_pool[layer], v);
        self.gpu.check()
    }

    fn read_kv(&mut self, layer: usize) -> Result<(Vec<f32>, Vec<f32>), BackendError> {
        let buffers = &self.prepared().buffers;
        Ok((self.read_pool(&buffers.k_pool[layer])?, self.read_pool(&buffers.v_pool[layer])?))
    }

    fn read_blocks(&mut self, blocks: &[u32]) -> Result<Vec<u8>, BackendError> {
        self.gpu.read(&self.block_ranges(blocks))
    }

    fn write_blocks(&mut self, blocks: &[u32], bytes: &[u8]) -> Result<(), BackendError> {
        let ranges = self.block_ranges(blocks);
        let total: u64 = ranges.iter().map(|&(_, _, bytes)| bytes).sum();
        assert_eq!(bytes.len() as u64, total, "bytes of {} blocks", blocks.len());
        let mut rest = bytes;
        for (pool, at, bytes) in ranges {
            let (this, after) = rest.split_at(bytes as usize);
            self.gpu.queue.write_buffer(pool, at, this);
            rest = after;
        }
        self.gpu.check()
    }

    fn scratch_bytes(&self, program: &Program, kv: &KvLayout, limits: &StepLimits) -> u64 {
        let int8_bytes = if limits.quantize_activations { Int8Rows::bytes(program).iter().sum() } else { 0 };
        let all = buffers::scratch_bytes(program, kv, limits, &self.tiling(program, kv, limits));
        all + int8_bytes + self.partial_sums_bytes(limits).unwrap_or(0)
    }

    fn product_inputs(&self) -> ProductInputs {
        let limits = &self.prepared().limits;
        match self.gpu.matrices() {
            _ if limits.quantize_activations => ProductInputs::Int8,
            Some(_) if !limits.batch_invariant => ProductInputs::F16,
            _ => ProductInputs::F32,
        }
    }

    fn start_profiling(&mut self) -> Result<ProfileClock, BackendError> {
        let gpu = &self.gpu;
        Ok(self.profiler.get_or_insert_with(|| Profiler::new(gpu)).clock())
    }

    fn take_profile(&mut self) -> Option<ForwardProfile> {
        self.profiler.as_mut()?.take()
    }

    fn memory(&self) -> DeviceMemory {
        let summary = self.gpu.summary();
        DeviceMemory {
            total_bytes: summary.memory_bytes,
            is_software: summary.is_software,
            max_buffer_bytes: summary.max_binding_bytes.min(summary.max_buffer_bytes),
        }
    }

    fn allocated_bytes(&self) -> u64 {
        self.allocated_bytes
    }
}
