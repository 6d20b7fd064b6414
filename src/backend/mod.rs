//! The backend seam: what a device must do so that a model runs on it.
//!
//! A model is written once, as a [`Program`]: a list of fused kernels ([`Op`]) over activations, weights and the KV
//! pool. A backend gives storage for them and runs the list once per step. It is not a tensor library. Weight
//! repacking, memory layouts and kernel variants stay inside the backend.
//!
//! [`cpu`] is the plain reference that defines what every kernel computes; `webgpu` is the real one, and `cuda` its
//! yardstick on NVIDIA's devices.

mod dequant;
#[cfg(feature = "webgpu")]
mod gpu;
mod kv_layout;
mod noise;
#[cfg(any(feature = "webgpu", feature = "cuda"))]
mod open;
mod profile;
mod program;
mod step;
mod weight;

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod kernel_bench;
pub mod kernel_cases;
#[cfg(feature = "webgpu")]
pub mod webgpu;

pub use dequant::{dequantize_row, quantize_row};
pub use kv_layout::{KvDtype, KvLayout};
pub use noise::fill_with_noise;
#[cfg(any(feature = "webgpu", feature = "cuda"))]
pub use open::{BackendKind, DeviceChoice, KernelVariant, OpenDevice};
pub use profile::{DevicePeaks, DispatchTime, ForwardProfile, Laps, ProfileClock};
pub use program::{ActId, Activation, AttentionShape, HeadNorm, Op, Program, RopePairing, RopeTable, Rows};
pub use step::{
    DRAWN_BROKEN, DRAWN_NOTHING, FedToken, LogitAdjustment, MAX_TOP_K, SampledBy, ScoredRow, ScoredToken, StepInput,
    StepLimits, StepOutput, TokenDraw, TokenRank, TokenScore,
};
pub use weight::{HostWeight, WeightFormat, WeightId, WeightPart};

/// What the outside world did to a backend.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// No adapter of the wanted kind.
    #[error("{0}")]
    NoDevice(String),
    /// The device ran out of memory, or a buffer would pass one of its limits.
    #[error("out of device memory: {what} needs {bytes} bytes; {hint}")]
    OutOfMemory {
        /// What was being allocated.
        what: String,
        /// Its size.
        bytes: u64,
        /// What the user can do about it.
        hint: String,
    },
    /// The model needs something that this backend does not do.
    #[error("{0}")]
    Unsupported(String),
    /// A kernel does not compile on this device.
    #[error("kernel {kernel} does not compile: {error}")]
    Kernel {
        /// Its name.
        kernel: String,
        /// What the translator or the driver's compiler says.
        error: String,
    },
    /// The device was lost or reported an error.
    #[error("device error: {0}")]
    Device(String),
}

/// To what a backend's matrix products, and its attention over pools that are not of f32, may round what they multiply; they
/// always sum in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProductInputs {
    /// To f32: activations are not rounded, and weights are what their format says.
    F32,
    /// To f16, both of them.
    F16,
    /// Activations to int8, with a step for each 32 of a row, where weights are quantised; elsewhere at most
    /// as [`F16`](Self::F16).
    Int8,
}

/// What is known about a device's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// All of it, in bytes, where the device tells.
    pub total_bytes: Option<u64>,
    /// Whether the "device" is the processor, and its memory the machine's.
    pub is_software: bool,
    /// Largest buffer that a kernel can be given, in bytes.
    pub max_buffer_bytes: u64,
}

/// A device that runs a [`Program`] step after step.
///
/// Calls in order: [`upload_weight`](Backend::upload_weight) for every weight, [`prepare`](Backend::prepare) once, then
/// [`submit`](Backend::submit) and [`collect`](Backend::collect) per step. At most two steps are submitted and not collected;
/// they are computed, and collected, in order. The other `read_*` and `write_*` calls are for tests and for
/// `bindery selftest`.
pub trait Backend: Send {
    /// One line that names backend, adapter and driver.
    fn description(&self) -> String;

    /// Copies a weight to the device, in the format it has in the file.
    fn upload_weight(&mut self, weight: &HostWeight<'_>) -> Result<WeightId, BackendError>;

    /// Allocates activations and the KV pool, and gets every kernel of `program` ready.
    ///
    /// The KV pool's contents are zero at first.
    fn prepare(&mut self, program: Program, kv: KvLayout, limits: StepLimits) -> Result<(), BackendError>;

    /// Begins a step: to put tokens of the step before in their places, block copies, then every op in order, then the argmax
    /// of each logits row, the likeliest tokens of those that ask for them, and the draws.
    ///
    /// # Panics
    /// If `input` is inconsistent (see [`StepInput::check`]): that is a bug of the caller, never of a client.
    fn submit(&mut self, input: &StepInput<'_>) -> Result<(), BackendError>;

    /// Waits for the earliest step that has been submitted and not collected. `output` is overwritten.
    ///
    /// # Panics
    /// Without such a step.
    fn collect(&mut self, output: &mut StepOutput) -> Result<(), BackendError>;

    /// A step from begin to end: [`submit`](Backend::submit) and [`collect`](Backend::collect).
    ///
    /// # Errors
    /// Theirs.
    fn forward(&mut self, input: &StepInput<'_>, output: &mut StepOutput) -> Result<(), BackendError> {
        self.submit(input)?;
        self.collect(output)
    }

    /// Whether the device computes while the host does something else, so that it pays to submit a step before the one in
    /// front of it is collected.
    fn runs_beside_the_host(&self) -> bool {
        false
    }

    /// Writes the first `values.len()` elements of an activation (f32, row-major).
    fn write_activation(&mut self, activation: ActId, values: &[f32]) -> Result<(), BackendError>;

    /// Reads the first `len` elements of an activation (f32, row-major).
    fn read_activation(&mut self, activation: ActId, len: usize) -> Result<Vec<f32>, BackendError>;

    /// Writes one layer's whole K and V pool: each `[num_blocks][num_kv_heads][block_size][head_dim]`, rounded to the
    /// pool's dtype.
    fn write_kv(&mut self, layer: usize, k: &[f32], v: &[f32]) -> Result<(), BackendError>;

    /// Reads one layer's whole K and V pool, in the shape of [`write_kv`](Backend::write_kv).
    fn read_kv(&mut self, layer: usize) -> Result<(Vec<f32>, Vec<f32>), BackendError>;

    /// Reads whole blocks: for each of `blocks`, in this order and for every layer, K and then V,
    /// `[num_kv_heads]` pages in the pool's dtype. That is [`KvLayout::block_bytes`] for each block.
    fn read_blocks(&mut self, blocks: &[u32]) -> Result<Vec<u8>, BackendError>;

    /// Writes whole blocks, in the shape of [`read_blocks`](Backend::read_blocks). Later steps see them.
    fn write_blocks(&mut self, blocks: &[u32], bytes: &[u8]) -> Result<(), BackendError>;

    /// Bytes that [`prepare`](Backend::prepare) will allocate beside the KV pool, whose size `kv` need not have yet:
    /// activations, results of parts of the attention, and what else a step works with.
    fn scratch_bytes(&self, program: &Program, _kv: &KvLayout, limits: &StepLimits) -> u64 {
        let activations = program.activations.iter();
        activations.map(|activation| 4 * u64::from(limits.max_rows(activation.rows)) * u64::from(activation.cols)).sum()
    }

    /// To what the matrix products of the prepared program may round their inputs.
    fn product_inputs(&self) -> ProductInputs {
        ProductInputs::F32
    }

    /// From now on takes the times of every step, which slows steps down; says how.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] where the backend takes no times.
    fn start_profiling(&mut self) -> Result<ProfileClock, BackendError> {
        Err(BackendError::Unsupported(format!("{}: takes no times", self.description())))
    }

    /// The times of the last step [collected](Backend::collect) since [`start_profiling`](Backend::start_profiling), once.
    fn take_profile(&mut self) -> Option<ForwardProfile> {
        None
    }

    /// The device's memory.
    fn memory(&self) -> DeviceMemory;

    /// Bytes allocated on the device so far: weights, activations, KV pool.
    fn allocated_bytes(&self) -> u64;
}
