//! The device that options ask for, with the kernels that suit it.

use super::{LlmError, LlmOptions};
use crate::backend::OpenDevice;
#[cfg(feature = "webgpu")]
use crate::backend::webgpu::{TuneRequest, TuningChoice, choose_tuning};
use crate::model::Checkpoint;

/// A device for one model, and why it has the kernels that it has.
pub struct ChosenDevice {
    /// Its backends have the chosen kernels.
    pub device: OpenDevice,
    /// Chosen by rule, from disk, or by a short timing; `None` where a backend leaves no choice.
    #[cfg(feature = "webgpu")]
    pub tuning: Option<TuningChoice>,
}

impl LlmOptions {
    /// Opens the best device, or the one that these options name, and chooses its kernels for a checkpoint.
    ///
    /// # Errors
    /// [`LlmError::Backend`] when there is no such device, or it fails.
    #[cfg_attr(not(feature = "webgpu"), expect(unused_variables, reason = "only WebGPU's kernels are chosen"))]
    pub fn open_device(&self, checkpoint: &Checkpoint) -> Result<ChosenDevice, LlmError> {
        match OpenDevice::open(self.device_choice())? {
            #[cfg(feature = "webgpu")]
            OpenDevice::WebGpu(gpu) => {
                let request = TuneRequest {
                    shape: checkpoint.config().shape(),
                    format: checkpoint.matrix_format(),
                    kv_dtype: self.kv_cache_dtype,
                    variant: self.variant,
                    batch_invariant: self.batch_invariant,
                    autotune: self.autotune,
                };
                let (gpu, choice) = choose_tuning(&gpu, &request)?;
                Ok(ChosenDevice { device: OpenDevice::WebGpu(gpu), tuning: Some(choice) })
            }
            #[cfg(feature = "cuda")]
            device @ OpenDevice::Cuda(..) => Ok(ChosenDevice {
                device,
                #[cfg(feature = "webgpu")]
                tuning: None,
            }),
        }
    }
}
