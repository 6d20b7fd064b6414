//! The WebGPU backend: WGSL kernels on Vulkan, Metal and DirectX 12.
//!
//! Weights are repacked into aligned planes and stay quantised; every dispatch is prebuilt (`plan`); a step is one
//! metadata upload, one submit and one read-back of token ids.

mod adapter;
mod device;
mod kernel;
mod peaks;
mod plan;
mod profile;
#[cfg(test)]
mod reflection;
pub(in crate::backend) mod repack;
pub(in crate::backend) mod step_words;
#[cfg(test)]
mod translation;
mod tune;
mod tuning;
#[cfg(test)]
mod uniformity;
mod weights;

pub use adapter::{AdapterSummary, Variant, adapters};
pub use device::GpuDevice;
pub use tune::{
    Autotune, CachedTuning, Trial, TuneRequest, TuningChoice, TuningSource, cached_tunings, choose as choose_tuning,
    tuning_candidates,
};
pub use tuning::Tuning;

use super::{
    ActId, Activation, Backend, BackendError, DeviceMemory, ForwardProfile, HostWeight, KvDtype, KvLayout, Laps, Op,
    ProfileClock, Program, Rows, StepInput, StepLimits,
};
use super::{MAX_TOP_K, ProductInputs, StepOutput, WeightId};
use half::f16;
use kernel::{AttentionTiling, LOGITS_CHUNK};
use plan::{Buffers, Plan, Planner, TopKBuffers};
use profile::Profiler;
use std::sync::Arc;
use step_words::StepWords;
use weights::GpuWeight;

/// A [`Backend`] on a `wgpu` device.
pub struct WebGpuBackend {
    gpu: Arc<GpuDevice>,
    tuning: Tuning,
    weights: Vec<GpuWeight>,
    prepared: Option<Prepared>,
    words: StepWords,
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

impl WebGpuBackend {
    /// A backend with no weights on an open device.
    pub fn new(gpu: Arc<GpuDevice>) -> Self {
        Self {
            tuning: gpu.tuning,
            gpu,
            weights: Vec::new(),
            prepared: None,
            words: StepWords::default(),
            profiler: None,
            allocated_bytes: 0,
        }
    }

    /// Other numbers for the kernels than the device's, from the next `prepare` on.
    fn set_tuning(&mut self, tuning: Tuning) {
        self.tuning = tuning;
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
            let rows = rows_of(*activation, limits);
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
        let chunks = program.logits.map_or(1, |id| program.activations[id.0 as usize].cols.div_ceil(LOGITS_CHUNK));
        let rows = u64::from(limits.max_logits_rows.max(1));
        let int8_blocks = if limits.quantize_activations { most_blocks(program, limits) } else { 0 };
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
        let bytes = self.gpu.read(&[(buffer, 0, kv.layer_bytes())])?;
        Ok(match kv.dtype {
            KvDtype::F32 => bytemuck::pod_collect_to_vec(&bytes),
            KvDtype::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        })
    }

    /// Where the blocks stand in the pools: `(buffer, first byte, bytes)`, in the order of [`Backend::read_blocks`].
    fn block_ranges(&self, blocks: &[u32]) -> Vec<(&wgpu::Buffer, u64, u64)> {
        let prepared = self.prepared();
        let bytes = prepared.kv.layer_bytes() / u64::from(prepared.kv.num_blocks);
        assert!(blocks.iter().all(|&block| block < prepared.kv.num_blocks), "block id beyond the pool");
        let layers = || prepared.buffers.k_pool.iter().zip(&prepared.buffers.v_pool).flat_map(|(k, v)| [k, v]);
        blocks.iter().flat_map(|&block| layers().map(move |pool| (pool, u64::from(block) * bytes, bytes))).collect()
    }

    fn write_pool(&self, buffer: &wgpu::Buffer, values: &[f32]) {
        match self.prepared().kv.dtype {
            KvDtype::F32 => self.gpu.queue.write_buffer(buffer, 0, bytemuck::cast_slice(values)),
            KvDtype::F16 => {
                // clamp() keeps NaN, which the tests use as poison.
                let halves: Vec<f16> = values.iter().map(|v| f16::from_f32(v.clamp(-65504.0, 65504.0))).collect();
                self.gpu.queue.write_buffer(buffer, 0, bytemuck::cast_slice(&halves));
            }
        }
    }
}

/// Blocks of 32 in the largest input of a product.
fn most_blocks(program: &Program, limits: &StepLimits) -> u64 {
    let blocks = |op: &Op| match *op {
        Op::MatMul { x, .. } => {
            let x = program.activations[x.0 as usize];
            u64::from(rows_of(x, limits)) * u64::from(x.cols / 32)
        }
        _ => 0,
    };
    program.ops.iter().map(blocks).max().unwrap_or(0)
}

/// Most rows of an activation.
fn rows_of(activation: Activation, limits: &StepLimits) -> u32 {
    match activation.rows {
        Rows::Tokens => limits.max_tokens,
        Rows::Logits => limits.max_logits_rows,
    }
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
        let tuning = if limits.batch_invariant { Tuning::default() } else { self.tuning };
        let tiling =
            AttentionTiling::new(self.gpu.variant(), &program.attention, kv.dtype, limits.batch_invariant, &tuning);
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

    fn forward(&mut self, input: &StepInput<'_>) -> Result<StepOutput, BackendError> {
        let prepared = self.prepared.as_ref().expect("prepare() comes before forward()");
        input.check(prepared.kv.num_blocks, prepared.kv.block_size, &prepared.limits);
        let rope_rows = prepared.program.rope.cos.len() as u32 / (prepared.program.attention.head_dim / 2).max(1);
        if rope_rows > 0 {
            assert!(input.positions.iter().all(|&position| position < rope_rows), "position beyond the RoPE table");
        }
        let mut laps = Laps::start(self.profiler.is_some());
        self.words.build(input, &prepared.tiling);
        let gpu = &self.gpu;
        gpu.queue.write_buffer(&prepared.buffers.step, 0, bytemuck::cast_slice(&self.words.words));
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("step") });
        match &mut self.profiler {
            Some(profiler) => profiler.encode(gpu, &mut encoder, &prepared.plan, &self.words.counts),
            None => {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                prepared.plan.encode(&mut pass, &self.words.counts);
            }
        }
        let rows = input.logits_indices.len();
        let Some(logits) = prepared.program.logits.filter(|_| rows > 0) else {
            gpu.queue.submit([encoder.finish()]);
            let encode = laps.lap();
            gpu.wait()?;
            if let Some(profiler) = &mut self.profiler {
                profiler.finish(gpu, encode, laps.lap())?;
            }
            return Ok(StepOutput::default());
        };
        let row_bytes = 4 * u64::from(prepared.program.activations[logits.0 as usize].cols);
        let logits = &prepared.buffers.activations[logits.0 as usize];
        let mut ranges = vec![(&prepared.buffers.ids, 0, 4 * rows as u64)];
        let top_k_bytes = 8 * input.top_k_rows.len() as u64 * u64::from(input.top_k);
        if top_k_bytes > 0 {
            ranges.push((&prepared.buffers.top_k.scores, 0, top_k_bytes));
        }
        ranges.extend(input.read_logits_rows.iter().map(|&row| (logits, u64::from(row) * row_bytes, row_bytes)));
        let staging = gpu.encode_read(&mut encoder, &ranges);
        gpu.queue.submit([encoder.finish()]);
        let encode = laps.lap();
        let bytes = gpu.finish_read(&staging)?;
        if let Some(profiler) = &mut self.profiler {
            profiler.finish(gpu, encode, laps.lap())?;
        }
        let (ids, rest) = bytes.split_at(4 * rows);
        let (top_k, logits) = rest.split_at(top_k_bytes as usize);
        Ok(StepOutput {
            argmax: bytemuck::pod_collect_to_vec(ids),
            logits: bytemuck::pod_collect_to_vec(logits),
            top_k: bytemuck::pod_collect_to_vec(top_k),
        })
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
