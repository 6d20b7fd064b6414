//! Programs of one op, or of some that belong together, at the shapes of real models, for measuring any [`Backend`]'s kernels.
//!
//! A program holds as many copies of its op as it takes to move more bytes than a cache holds, each with weights (or a
//! KV pool) of its own, as the layers of a model have; times are for one op. Inputs are noise.

mod cases;
mod parts;
mod products;
mod row_ops;
mod selection;
mod shapes;

pub use cases::programs;
pub use selection::Selection;
pub use shapes::ModelShape;

use super::kernel_cases::{SplitMix64, StepData};
use super::{
    ActId, Backend, BackendError, DeviceMemory, HostWeight, KvLayout, ProfileClock, Program, StepLimits, StepOutput,
};
use std::time::Instant;

/// A program of one op, and the steps to run it with.
pub struct BenchProgram {
    /// Whose shapes these are.
    pub model: String,
    /// The op.
    pub op: &'static str,
    /// What of the model, and its shape and format.
    pub what: String,
    /// The steps.
    pub steps: Vec<BenchStep>,
    /// Bytes of the largest buffer that a backend must bind at once, weights apart (those may be split).
    largest_buffer_bytes: u64,
    /// Bytes that all buffers take.
    total_bytes: u64,
    /// How often the program has the op.
    copies: u32,
    /// With what the names of the kernels begin that count, where there are times by kernel: logits bring argmax along.
    counted: &'static str,
    weights: Vec<BenchWeight>,
    program: Program,
    kv: KvLayout,
    limits: StepLimits,
}

/// A step of a [`BenchProgram`].
pub struct BenchStep {
    /// What is special about it: rows, or sequences and their lengths.
    pub label: String,
    /// Bytes that one op must read and write.
    pub bytes: u64,
    /// Floating point operations of one op.
    pub flops: u64,
    data: StepData,
}

/// A weight that is uploaded for each copy of the op.
#[derive(Clone)]
struct BenchWeight {
    format: super::WeightFormat,
    rows: usize,
    cols: usize,
}

/// What one step took.
#[derive(Debug, Clone, PartialEq)]
pub struct StepTime {
    /// Seconds of one op.
    pub seconds: f64,
    /// Whether the device's clock took it; otherwise the host's, from before the step until its end.
    pub is_device_time: bool,
    /// The kernels that ran, in order, each once; none where the backend takes no times.
    pub kernels: Vec<&'static str>,
}

impl BenchProgram {
    /// `model/op what`, for filters.
    pub fn name(&self) -> String {
        format!("{}/{} {}", self.model, self.op, self.what)
    }

    /// Whether a device has room for it, with a tenth to spare.
    pub fn fits(&self, memory: &DeviceMemory) -> bool {
        self.largest_buffer_bytes <= memory.max_buffer_bytes
            && memory.total_bytes.is_none_or(|total| self.total_bytes <= total / 10 * 9)
    }

    /// Puts the program on a new backend: weights, KV pool, inputs.
    ///
    /// # Errors
    /// What the backend returns.
    pub fn prepare(&self, backend: &mut dyn Backend) -> Result<ProfileClock, BackendError> {
        let mut random = SplitMix64::from_name(&self.name());
        for weight in &self.weights {
            let noise = weight.noise(&mut random);
            for _ in 0..self.copies {
                backend.upload_weight(&noise)?;
            }
        }
        self.prepare_again(backend)
    }

    /// Prepares a backend that holds the weights already: its kernels may be others now.
    ///
    /// # Errors
    /// What the backend returns.
    pub fn prepare_again(&self, backend: &mut dyn Backend) -> Result<ProfileClock, BackendError> {
        let mut random = SplitMix64::from_name(&self.name());
        backend.prepare(self.program.clone(), self.kv, self.limits)?;
        let tokens = self.limits.max_tokens as usize;
        for (index, activation) in self.program.activations.iter().enumerate() {
            let rows = match activation.rows {
                super::Rows::Tokens => tokens,
                super::Rows::Logits => self.limits.max_logits_rows as usize,
            };
            // One row again and again: noise takes longer to make than it takes to be used up.
            let row = random.values(activation.cols as usize, 1.0);
            backend.write_activation(ActId(index as u32), &row.repeat(rows))?;
        }
        self.fill_kv(backend, &mut random)?;
        match backend.start_profiling() {
            Err(BackendError::Unsupported(_)) => Ok(ProfileClock::None),
            other => other,
        }
    }

    /// Noise in every block of the pool, in each the same.
    fn fill_kv(&self, backend: &mut dyn Backend, random: &mut SplitMix64) -> Result<(), BackendError> {
        if !self.program.ops.iter().any(|op| matches!(op, super::Op::PagedAttention { .. })) {
            return Ok(());
        }
        let chunk_blocks = ((CHUNK_BYTES / self.kv.block_bytes()).max(1) as u32).min(self.kv.num_blocks);
        let elements = self.kv.block_bytes() / self.kv.page_bytes() * self.kv.page_elements() as u64;
        let block = self.kv.encode_layer(&random.values(elements as usize, 1.0));
        let bytes = block.repeat(chunk_blocks as usize);
        for first in (0..self.kv.num_blocks).step_by(chunk_blocks as usize) {
            let blocks: Vec<u32> = (first..self.kv.num_blocks.min(first + chunk_blocks)).collect();
            backend.write_blocks(&blocks, &bytes[..blocks.len() * self.kv.block_bytes() as usize])?;
            // What is written waits in host memory until something is read.
            backend.read_blocks(&blocks[..1])?;
        }
        Ok(())
    }

    /// Runs a step of the [prepared](Self::prepare) program once.
    ///
    /// # Errors
    /// What the backend returns.
    pub fn run(
        &self,
        step: &BenchStep,
        clock: ProfileClock,
        backend: &mut dyn Backend,
    ) -> Result<StepTime, BackendError> {
        let began = Instant::now();
        backend.forward(&step.data.input(), &mut StepOutput::default())?;
        let host_s = began.elapsed().as_secs_f64();
        let mut dispatches = backend.take_profile().map(|profile| profile.dispatches).unwrap_or_default();
        dispatches.retain(|dispatch| dispatch.kernel.starts_with(self.counted));
        let mut kernels = Vec::new();
        for dispatch in &dispatches {
            if !kernels.contains(&dispatch.kernel) {
                kernels.push(dispatch.kernel);
            }
        }
        let is_device_time = clock != ProfileClock::None;
        let whole_s = if is_device_time { dispatches.iter().map(|time| time.seconds()).sum() } else { host_s };
        Ok(StepTime { seconds: whole_s / f64::from(self.copies), is_device_time, kernels })
    }

    /// Runs a step of the [prepared](Self::prepare) program once, on inputs whose rows all differ, and gives what comes out:
    /// `[tokens][columns]`. Backends that were prepared alike, and ran the same steps since, agree on it.
    ///
    /// # Errors
    /// What the backend returns.
    pub fn results(&self, step: &BenchStep, backend: &mut dyn Backend) -> Result<Vec<f32>, BackendError> {
        let input = step.data.input();
        let elements = |of: ActId| input.positions.len() * self.program.activations[of.0 as usize].cols as usize;
        let mut random = SplitMix64::from_name(&step.label);
        backend.write_activation(parts::IN, &random.values(elements(parts::IN), 1.0))?;
        backend.forward(&input, &mut StepOutput::default())?;
        backend.take_profile();
        backend.read_activation(parts::OUT, elements(parts::OUT))
    }
}

/// Of the KV pool, written at a time.
const CHUNK_BYTES: u64 = 32 << 20;

impl BenchWeight {
    fn noise(&self, random: &mut SplitMix64) -> HostWeight<'static> {
        let row_bytes = self.format.row_bytes(self.cols).expect("shapes are whole blocks");
        let mut data = vec![0; self.rows * row_bytes];
        super::fill_with_noise(self.format, (self.cols as f32).sqrt().recip(), random, &mut data);
        let part = super::WeightPart { format: self.format, rows: self.rows, data: data.into() };
        HostWeight { name: "noise".into(), cols: self.cols, parts: vec![part] }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cpu::CpuBackend;
    use super::*;

    /// Every program is one that a backend takes, and that gives finite numbers.
    #[test]
    fn programs_run_on_the_reference() {
        let shape = ModelShape {
            name: "tiny".into(),
            hidden: 64,
            intermediate: 96,
            attention: super::super::AttentionShape { num_heads: 4, num_kv_heads: 2, head_dim: 16, scale: 0.25 },
            vocab: 128,
        };
        let selection = Selection {
            formats: vec![super::super::WeightFormat::Q4_1],
            rows: vec![1, 3, 9],
            decode: vec![(1, 40), (3, 17)],
            prefill: vec![(0, 5), (20, 19)],
            shared: vec![(4, 32)],
            cache_bytes: 64 << 10,
            ..Selection::default()
        };
        let programs = programs(&shape, &selection);
        let ops: std::collections::BTreeSet<&str> = programs.iter().map(|program| program.op).collect();
        assert_eq!(
            ops.into_iter().collect::<Vec<_>>(),
            [
                "argmax",
                "decode",
                "draw",
                "embed",
                "matmul",
                "prefill",
                "rms_norm",
                "rope_and_cache",
                "shared",
                "silu_mul",
                "top_k"
            ]
        );
        for program in &programs {
            let mut backend = CpuBackend::new();
            let clock = program.prepare(&mut backend).expect("it fits");
            for step in &program.steps {
                let time = program.run(step, clock, &mut backend).expect("it runs");
                assert!(time.seconds > 0.0 && !time.is_device_time, "{}", program.name());
                assert!(step.bytes > 0, "{}", program.name());
            }
            let out = if program.program.activations.len() == 1 { parts::IN } else { parts::OUT };
            let values = backend.read_activation(out, 16).expect("it is there");
            assert!(values.iter().all(|value| value.is_finite()), "{}: {values:?}", program.name());
        }
        // Few rows of small matrices: more copies than many rows.
        let copies = |step: &str| {
            let found = programs.iter().find(|p| p.what.starts_with("qkv") && p.steps.iter().any(|s| s.label == step));
            found.expect("there is one").copies
        };
        assert!(copies("1") > 1 && copies("9") == 1);
    }
}
