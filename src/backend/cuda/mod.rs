//! The CUDA backend: the same engine and kernels of the same names on NVIDIA's devices, the yardstick for WebGPU there.
//!
//! The kernels in `shaders/cuda/` are twins of the WGSL ones and read the same step metadata and weight planes. NVRTC
//! compiles them at first use, for the device at hand (`nvrtc`, `cubin_cache`); a step is one upload, one graph of launches
//! (`plan`, `graphs`) and one read-back of token ids. Neither the driver nor NVRTC is linked: without them the binary runs,
//! and [`CudaDevice::open`] says what is missing.
//!
//! Everything above the [`Driver`] is tested with [`EmulatedDevice`], which runs the kernels' own text on the processor.

mod bandwidth;
mod cubin_cache;
mod device;
mod driver;
mod emulate;
mod events;
mod graphs;
mod kernel;
mod library;
pub mod nvrtc;
mod plan;
mod staging;
mod weights;

pub use device::CudaDevice;
pub use driver::{DeviceTraits, Driver, GraphId, KernelId, Launch};
pub use emulate::EmulatedDevice;
pub use kernel::{DecodeKernel, Kernel, ResourceLimits, kernel_variants};
pub use library::{CudaSummary, NO_DRIVER, cuda_devices};

use super::cpu::draw;
use super::step_words::{self, AttentionTiling, StepCounts, StepWords};
use super::{
    ActId, Backend, BackendError, DeviceMemory, DispatchTime, ForwardProfile, HostWeight, KvDtype, KvLayout, MAX_TOP_K,
    ProfileClock, Program, Rows, StepInput, StepLimits, StepOutput, WeightId,
};
use driver::Buffer;
use graphs::Graphs;
use kernel::{LOGITS_CHUNK, attention_tiling};
use plan::{Buffers, Plan, Planner};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use weights::CudaWeight;

/// A [`Backend`] on a CUDA device.
pub struct CudaBackend {
    driver: Arc<dyn Driver>,
    weights: Vec<CudaWeight>,
    prepared: Option<Prepared>,
    words: StepWords,
    /// Of the last step, those fed by the one before in place.
    token_ids: Vec<u32>,
    /// Of the last step.
    last: StepOutput,
    /// Steps that have not been collected.
    done: VecDeque<StepOutput>,
    allocated_bytes: u64,
    decode: DecodeKernel,
    /// The times of the last step, if they are wanted.
    profile: Option<ForwardProfile>,
}

struct Prepared {
    program: Program,
    kv: KvLayout,
    limits: StepLimits,
    tiling: AttentionTiling,
    graphs: Graphs,
    plan: Plan,
    buffers: Buffers,
}

impl CudaBackend {
    /// A backend with no weights on an open device.
    pub fn new(driver: Arc<dyn Driver>) -> Self {
        Self {
            driver,
            weights: Vec::new(),
            prepared: None,
            words: StepWords::default(),
            token_ids: Vec::new(),
            last: StepOutput::default(),
            done: VecDeque::new(),
            allocated_bytes: 0,
            decode: DecodeKernel::default(),
            profile: None,
        }
    }

    /// The same with another kernel for the attention of decodes, to measure them against each other.
    pub fn with_decode_kernel(mut self, decode: DecodeKernel) -> Self {
        self.decode = decode;
        self
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
        let driver = self.driver.clone();
        let mut buffer = |what: &str, bytes: u64| {
            self.allocated_bytes += bytes;
            Buffer::new(&driver, what, bytes)
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
            k_pool.push(buffer(&format!("the K pool of layer {layer}"), kv.layer_bytes())?);
            v_pool.push(buffer(&format!("the V pool of layer {layer}"), kv.layer_bytes())?);
        }
        let shape = &program.attention;
        let partials = u64::from(step_words::max_partials(limits, kv.block_size, tiling)) * u64::from(shape.num_heads);
        let words = step_words::max_words(limits, kv.block_size, tiling);
        let chunks = program.logits.map_or(1, |id| program.activations[id.0 as usize].cols.div_ceil(LOGITS_CHUNK));
        let rows = u64::from(limits.max_logits_rows.max(1));
        Ok(Buffers {
            step: buffer("the step's metadata", 4 * words as u64)?,
            activations,
            k_pool,
            v_pool,
            rope: buffer("RoPE's table", 8 * program.rope.cos.len() as u64)?,
            partial_out: buffer("partial attention", 4 * partials * u64::from(shape.head_dim))?,
            partial_stats: buffer("partial attention", 8 * partials)?,
            chunk_max: buffer("the argmax", 8 * rows * u64::from(chunks))?,
            ids: buffer("token ids", 4 * rows)?,
            chunk_sums: buffer("the likeliest tokens", 4 * rows * u64::from(chunks))?,
            chunk_top: buffer("the likeliest tokens", 8 * rows * u64::from(chunks * MAX_TOP_K))?,
            scores: buffer("the likeliest tokens", 8 * rows * u64::from(MAX_TOP_K))?,
            unused: buffer("an input that is not there", 16)?,
        })
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

    /// What comes back of a step: token ids, the likeliest tokens, whole rows of logits. The rows that tokens are drawn from
    /// come back whole as well, and the reference draws: these kernels have no twin yet.
    fn read_back(
        &self,
        driver: &dyn Driver,
        input: &StepInput<'_>,
        output: &mut StepOutput,
    ) -> Result<(), BackendError> {
        let rows = input.logits_indices.len();
        let start = Instant::now();
        let Some(logits) = self.program.logits.filter(|_| rows > 0) else {
            driver.synchronize()?;
            output.waited = start.elapsed();
            return Ok(());
        };
        let row_bytes = 4 * u64::from(self.program.activations[logits.0 as usize].cols);
        let logits = &self.buffers.activations[logits.0 as usize];
        let row = |row: u32| logits.range(u64::from(row) * row_bytes, row_bytes);
        let top_k_bytes = 8 * input.top_k_rows.len() * input.top_k as usize;
        let mut draw_rows: Vec<u32> = input.draws.iter().map(|draw| draw.row).collect();
        draw_rows.sort_unstable();
        draw_rows.dedup();
        let mut ranges = vec![self.buffers.ids.range(0, 4 * rows as u64)];
        ranges.push(self.buffers.scores.range(0, top_k_bytes as u64));
        ranges.extend(input.read_logits_rows.iter().map(|&index| row(index)));
        ranges.extend(draw_rows.iter().map(|&index| row(index)));
        let bytes = driver.read(&ranges)?;
        output.waited = start.elapsed();
        let (ids, rest) = bytes.split_at(4 * rows);
        let (top_k, rest) = rest.split_at(top_k_bytes);
        let (whole, drawn_from) = rest.split_at(input.read_logits_rows.len() * row_bytes as usize);
        output.argmax = bytemuck::pod_collect_to_vec(ids);
        output.top_k = bytemuck::pod_collect_to_vec(top_k);
        output.logits = bytemuck::pod_collect_to_vec(whole);
        let drawn_from: Vec<f32> = bytemuck::pod_collect_to_vec(drawn_from);
        let vocab = row_bytes as usize / 4;
        output.drawn.extend(input.draws.iter().map(|token| {
            let at = draw_rows.binary_search(&token.row).expect("it is one of them");
            draw::draw(&drawn_from[at * vocab..][..vocab], token, input.adjustments)
        }));
        Ok(())
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
        if kv.dtype == KvDtype::Int8 {
            return Err(BackendError::Unsupported(
                "the CUDA kernels have no KV pool of int8: use --kv-cache-dtype f16".to_owned(),
            ));
        }
        if limits.quantize_activations {
            return Err(BackendError::Unsupported(
                "the CUDA kernels do not round activations to int8: leave out --quantize-activations".to_owned(),
            ));
        }
        let tiling = attention_tiling(
            &program.attention,
            kv.dtype,
            self.driver.traits().compute_capability,
            limits.batch_invariant,
        );
        let buffers = self.buffers(&program, &kv, &limits, &tiling)?;
        let rope: Vec<[f32; 2]> = program.rope.cos.iter().zip(&program.rope.sin).map(|(&c, &s)| [c, s]).collect();
        buffers.rope.write(0, bytemuck::cast_slice(&rope))?;
        let planner = Planner {
            driver: &self.driver,
            program: &program,
            kv: &kv,
            tiling,
            decode: self.decode,
            batch_invariant: limits.batch_invariant,
            weights: &self.weights,
            buffers: &buffers,
            nodes: Vec::new(),
        };
        let plan = planner.plan()?;
        let graphs = Graphs::new(self.driver.clone());
        self.prepared = Some(Prepared { program, kv, limits, tiling, graphs, plan, buffers });
        self.driver.synchronize()
    }

    /// Waits for the step at once.
    fn submit(&mut self, input: &StepInput<'_>) -> Result<(), BackendError> {
        self.last.feed(input, &mut self.token_ids);
        let input = &StepInput { token_ids: &self.token_ids, ..*input };
        let prepared = self.prepared.as_mut().expect("prepare() comes before submit()");
        input.check(prepared.kv.num_blocks, prepared.kv.block_size, &prepared.limits);
        let rope_rows = prepared.program.rope.cos.len() as u32 / (prepared.program.attention.head_dim / 2).max(1);
        if rope_rows > 0 {
            assert!(input.positions.iter().all(|&position| position < rope_rows), "position beyond the RoPE table");
        }
        self.words.build(input, prepared.kv.block_size, &prepared.tiling);
        prepared.buffers.step.write(0, bytemuck::cast_slice(&self.words.words))?;
        match &mut self.profile {
            None => prepared.graphs.run(&prepared.plan, &self.words.counts, &prepared.limits)?,
            Some(profile) => profile.dispatches = prepared.run_timed(&*self.driver, &self.words.counts)?,
        }
        self.last.clear();
        prepared.read_back(&*self.driver, input, &mut self.last)?;
        self.done.push_back(self.last.clone());
        Ok(())
    }

    fn collect(&mut self, output: &mut StepOutput) -> Result<(), BackendError> {
        *output = self.done.pop_front().expect("submit() comes before collect()");
        Ok(())
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
