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
pub(in crate::backend) mod repack;
mod shared_prefix;
pub(in crate::backend) mod step_words;
#[cfg(test)]
mod translation;
mod tune;
mod tuning;
#[cfg(test)]
mod uniformity;
mod weights;
mod work_items;

pub use adapter::{AdapterSummary, Variant, adapters};
pub use device::GpuDevice;
pub use tune::{
    Autotune, CachedTuning, Trial, TuneRequest, TuningChoice, TuningSource, cached_tunings, choose as choose_tuning,
    tuning_candidates,
};
pub use tuning::Tuning;

use super::{
    ActId, Backend, BackendError, DeviceMemory, ForwardProfile, HostWeight, KvLayout, Op, ProfileClock, Program, Rows,
    StepInput, StepLimits,
};
use super::{MAX_TOP_K, ProductInputs, StepOutput, WeightId};
use kernel::{AttentionTiling, DRAW_BLOCK, LOGITS_CHUNK, VECTOR_ROWS};
use pace::Pace;
use plan::{Buffers, DrawBuffers, Plan, Planner, TopKBuffers};
use profile::Profiler;
use read_back::ReadBack;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use step_words::{StepCounts, StepWords};
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
    buffers: Buffers,
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

/// Bytes that come back of each kind, in this order.
struct WantedBytes {
    argmax: u64,
    drawn: u64,
    top_k: u64,
    logits: u64,
}

impl WantedBytes {
    fn total(&self) -> u64 {
        self.argmax + self.drawn + self.top_k + self.logits
    }

    fn split(&self, bytes: &[u8], output: &mut StepOutput) {
        let (argmax, rest) = bytes.split_at(self.argmax as usize);
        let (drawn, rest) = rest.split_at(self.drawn as usize);
        let (top_k, logits) = rest.split_at(self.top_k as usize);
        append(&mut output.argmax, argmax);
        append(&mut output.drawn, drawn);
        append(&mut output.top_k, top_k);
        append(&mut output.logits, logits);
    }
}

/// Appends values to `to`; where `bytes` begin in memory is any address.
fn append<T: bytemuck::AnyBitPattern>(to: &mut Vec<T>, bytes: &[u8]) {
    to.extend(bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned::<T>));
}

impl Prepared {
    /// Records a step and submits it, but for its last part.
    fn encode(&self, gpu: &GpuDevice, counts: &StepCounts, budget: u64) -> wgpu::CommandEncoder {
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some("step") };
        let mut next = 0;
        loop {
            let mut encoder = gpu.device.create_command_encoder(&descriptor);
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            next = self.plan.encode(&mut pass, counts, next, budget);
            drop(pass);
            if next == self.plan.len() {
                return encoder;
            }
            gpu.queue.submit([encoder.finish()]);
        }
    }

    /// Nothing comes back of a program without logits.
    fn wanted_bytes(&self, input: &StepInput<'_>) -> WantedBytes {
        let vocab = self.program.logits.map_or(0, |logits| self.program.activations[logits.0 as usize].cols);
        let each = u64::from(vocab > 0);
        WantedBytes {
            argmax: 4 * each * input.logits_indices.len() as u64,
            drawn: 4 * each * input.draws.len() as u64,
            top_k: 8 * each * input.top_k_rows.len() as u64 * u64::from(input.top_k),
            logits: 4 * u64::from(vocab) * input.read_logits_rows.len() as u64,
        }
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
        for &row in input.read_logits_rows {
            let bytes = wanted.logits / input.read_logits_rows.len() as u64;
            read_back.copy(encoder, logits, u64::from(row) * bytes, bytes);
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

    fn prepared(&self) -> &Prepared {
        self.prepared.as_ref().expect("prepare() comes before this call")
    }

    fn buffers(
        &mut self,
        program: &Program,
        kv: &KvLayout,
        limits: &StepLimits,
        tiling: &AttentionTiling,
    ) -> Result<Buffers, BackendError> {
        let gpu = self.gpu.clone();
        let mut buffer = |what: &str, bytes: u64| {
            self.allocated_bytes += bytes;
            gpu.buffer(what, bytes)
        };
        let mut activations = Vec::new();
        for activation in &program.activations {
            let rows = match activation.rows {
                Rows::Tokens => limits.max_tokens,
                Rows::Logits => limits.max_logits_rows,
            };
            activations.push(buffer(activation.name, 4 * u64::from(rows) * u64::from(activation.cols))?);
        }
        let (mut k_pool, mut v_pool) = (Vec::new(), Vec::new());
        for layer in 0..kv.num_layers {
            k_pool.push(buffer(&format!("K pool of layer {layer}"), kv.layer_bytes())?);
            v_pool.push(buffer(&format!("V pool of layer {layer}"), kv.layer_bytes())?);
        }
        let shape = &program.attention;
        let partials = u64::from(step_words::max_partials(limits, kv.block_size, tiling)) * u64::from(shape.num_heads);
        let words = step_words::max_words(limits, kv.block_size, tiling);
        let vocab = program.logits.map_or(1, |id| program.activations[id.0 as usize].cols);
        let chunks = vocab.div_ceil(LOGITS_CHUNK);
        let draw_blocks = u64::from(limits.max_draws) * u64::from(vocab.div_ceil(DRAW_BLOCK));
        let rows = u64::from(limits.max_logits_rows.max(1));
        let int8_blocks = if limits.quantize_activations { int8_blocks(program) } else { 0 };
        Ok(Buffers {
            step: buffer("step", 4 * words as u64)?,
            activations,
            k_pool,
            v_pool,
            rope: buffer("rope", 8 * program.rope.cos.len() as u64)?,
            partial_out: buffer("partial attention", 4 * partials * u64::from(shape.head_dim))?,
            partial_stats: buffer("partial attention", 8 * partials)?,
            chunk_max: buffer("argmax", 8 * rows * u64::from(chunks))?,
            ids: buffer("ids", 4 * rows)?,
            top_k: TopKBuffers {
                chunk_sums: buffer("likeliest tokens", 4 * rows * u64::from(chunks))?,
                chunk_top: buffer("likeliest tokens", 8 * rows * u64::from(chunks * MAX_TOP_K))?,
                scores: buffer("likeliest tokens", 8 * rows * u64::from(MAX_TOP_K))?,
            },
            quants: buffer("int8 activations", 32 * int8_blocks)?,
            steps: buffer("int8 activations", 8 * int8_blocks)?,
            draws: DrawBuffers {
                keys: buffer("draws", 4 * u64::from(DRAW_BLOCK) * draw_blocks)?,
                stats: buffer("draws", 8 * draw_blocks)?,
                drawn: buffer("draws", 4 * u64::from(limits.max_draws))?,
            },
            unused: buffer("unused", 16)?,
        })
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

/// Blocks of 32 in the largest input of a product that may be rounded to int8.
fn int8_blocks(program: &Program) -> u64 {
    let cols = |op: &Op| match *op {
        Op::MatMul { x, .. } => program.activations[x.0 as usize].cols,
        _ => 0,
    };
    u64::from(VECTOR_ROWS) * u64::from(program.ops.iter().map(cols).max().unwrap_or(0) / 32)
}

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
        let limits = StepLimits {
            quantize_activations: limits.quantize_activations
                && !limits.batch_invariant
                && self.gpu.variant() != Variant::Cpu,
            ..limits
        };
        let tuning = if limits.batch_invariant { Tuning::default() } else { self.tuning };
        let tiling = AttentionTiling::new(self.gpu.variant(), &program.attention, kv.dtype, &limits, &tuning);
        let buffers = self.buffers(&program, &kv, &limits, &tiling)?;
        let rope: Vec<[f32; 2]> = program.rope.cos.iter().zip(&program.rope.sin).map(|(&c, &s)| [c, s]).collect();
        self.gpu.queue.write_buffer(&buffers.rope, 0, bytemuck::cast_slice(&rope));
        let planner = Planner {
            gpu: &self.gpu,
            program: &program,
            kv: &kv,
            tiling,
            tuning: &tuning,
            limits: &limits,
            weights: &self.weights,
            buffers: &buffers,
            nodes: Vec::new(),
        };
        let plan = planner.plan()?;
        self.prepared = Some(Prepared { program, kv, limits, tiling, buffers, plan });
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
        self.words.build(input, prepared.kv.block_size, &prepared.tiling);
        let gpu = &self.gpu;
        gpu.queue.write_buffer(&prepared.buffers.step, 0, bytemuck::cast_slice(&self.words.words));
        let mut encoder = match &mut self.profiler {
            Some(profiler) => profiler.encode(gpu, &prepared.plan, &self.words.counts),
            None => prepared.encode(gpu, &self.words.counts, self.pace.budget()),
        };
        let wanted = prepared.wanted_bytes(input);
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
