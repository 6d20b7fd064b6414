//! The device that options ask for, with the kernels that suit it.

use super::{LlmError, LlmOptions};
use crate::backend::webgpu::{GpuDevice, TuneRequest, TuningChoice, WebGpuBackend, choose_tuning};
use crate::model::Checkpoint;

/// A backend for one model, and why it has the kernels that it has.
pub struct OpenDevice {
    /// For [`Llm::with_backend`](super::Llm::with_backend).
    pub backend: WebGpuBackend,
    /// Chosen by rule, from disk, or by a short timing.
    pub choice: TuningChoice,
}

impl LlmOptions {
    /// Opens the best device, or the one that these options name, and chooses its kernels for a checkpoint.
    ///
    /// # Errors
    /// [`LlmError::Backend`] when there is no such device, or it fails.
    pub fn open_device(&self, checkpoint: &Checkpoint) -> Result<OpenDevice, LlmError> {
        let gpu = GpuDevice::open(self.device.as_deref(), self.variant)?;
        let request = TuneRequest {
            shape: checkpoint.config().shape(),
            format: checkpoint.matrix_format(),
            kv_dtype: self.kv_cache_dtype,
            variant: self.variant,
            batch_invariant: self.batch_invariant,
            autotune: self.autotune,
        };
        let (gpu, choice) = choose_tuning(&gpu, &request)?;
        Ok(OpenDevice { backend: WebGpuBackend::new(gpu).with_tuning(choice.tuning), choice })
    }
}
