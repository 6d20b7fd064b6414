//! Which backend, and which of its devices: the choice that the command line and [`crate::llm::LlmOptions`] offer.

#[cfg(feature = "cuda")]
use super::cuda::{CudaBackend, CudaDevice, DecodeKernel};
#[cfg(feature = "webgpu")]
use super::webgpu::{GpuDevice, Variant, WebGpuBackend};
use super::{Backend, BackendError, DevicePeaks};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A backend, by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BackendKind {
    /// WGSL kernels through `wgpu`: Vulkan, Metal, DirectX 12.
    #[default]
    WebGpu,
    /// CUDA kernels, on NVIDIA's devices.
    Cuda,
    /// CUDA where it is built in and there is a device for it, else WebGPU.
    Auto,
}

impl FromStr for BackendKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "webgpu" => Ok(Self::WebGpu),
            "cuda" => Ok(Self::Cuda),
            "auto" => Ok(Self::Auto),
            _ => Err("must be webgpu, cuda or auto".to_owned()),
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WebGpu => "webgpu",
            Self::Cuda => "cuda",
            Self::Auto => "auto",
        })
    }
}

/// Kernels of a backend, where it has several that compute the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelVariant {
    /// All of the WebGPU backend's.
    #[cfg(feature = "webgpu")]
    WebGpu(Variant),
    /// The one of the CUDA backend's that does the attention of decodes.
    #[cfg(feature = "cuda")]
    Cuda(DecodeKernel),
}

/// Which device to open.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeviceChoice<'a> {
    /// Of which backend.
    pub backend: BackendKind,
    /// Its index or a part of its name, in that backend's list; `None` for the best.
    pub device: Option<&'a str>,
    /// One of that backend; `None` for the one that suits the device.
    pub variant: Option<KernelVariant>,
}

/// An open device of some backend; several backends may share it, and with it the compiled kernels.
#[derive(Clone)]
pub enum OpenDevice {
    /// Of the WebGPU backend.
    #[cfg(feature = "webgpu")]
    WebGpu(Arc<GpuDevice>),
    /// Of the CUDA backend, with the kernel for decodes that its backends get.
    #[cfg(feature = "cuda")]
    Cuda(Arc<CudaDevice>, DecodeKernel),
}

impl OpenDevice {
    /// Opens a device.
    ///
    /// # Errors
    /// [`BackendError::NoDevice`] when there is no such device, or the backend is not built in.
    pub fn open(choice: DeviceChoice<'_>) -> Result<Self, BackendError> {
        match choice.backend {
            BackendKind::WebGpu => open_webgpu(choice),
            BackendKind::Cuda => open_cuda(choice),
            BackendKind::Auto => open_cuda(choice).or_else(|_| open_webgpu(choice)),
        }
    }

    /// A backend with no weights on this device.
    pub fn backend(&self) -> Box<dyn Backend> {
        match self {
            #[cfg(feature = "webgpu")]
            Self::WebGpu(gpu) => Box::new(WebGpuBackend::new(gpu.clone())),
            #[cfg(feature = "cuda")]
            Self::Cuda(device, decode) => Box::new(CudaBackend::new(device.clone()).with_decode_kernel(*decode)),
        }
    }

    /// Measures what the device reaches at best, within about two seconds.
    ///
    /// # Errors
    /// When the device has no room for the buffers, or fails.
    pub fn measure_peaks(&self) -> Result<DevicePeaks, BackendError> {
        Ok(match self {
            #[cfg(feature = "webgpu")]
            Self::WebGpu(gpu) => DevicePeaks {
                copy_bytes_per_s: gpu.measure_copy_bandwidth()?,
                fma_flops_per_s: gpu.measure_fma_peak()?,
            },
            #[cfg(feature = "cuda")]
            Self::Cuda(device, _) => {
                let driver: Arc<dyn super::cuda::Driver> = device.clone();
                let copy_bytes_per_s = device.measure_copy_bandwidth()?;
                DevicePeaks { copy_bytes_per_s, fma_flops_per_s: super::cuda::measure_fma_peak(&driver)? }
            }
        })
    }
}

#[cfg(feature = "webgpu")]
fn open_webgpu(choice: DeviceChoice<'_>) -> Result<OpenDevice, BackendError> {
    let variant = match choice.variant {
        None => None,
        Some(KernelVariant::WebGpu(variant)) => Some(variant),
        #[cfg(feature = "cuda")]
        Some(KernelVariant::Cuda(decode)) => {
            return Err(BackendError::Unsupported(format!("{decode} is one of CUDA's kernels, not of WebGPU's")));
        }
    };
    Ok(OpenDevice::WebGpu(GpuDevice::open(choice.device, variant)?))
}

#[cfg(not(feature = "webgpu"))]
fn open_webgpu(_choice: DeviceChoice<'_>) -> Result<OpenDevice, BackendError> {
    Err(not_built("webgpu"))
}

#[cfg(feature = "cuda")]
fn open_cuda(choice: DeviceChoice<'_>) -> Result<OpenDevice, BackendError> {
    let decode = match choice.variant {
        None => DecodeKernel::default(),
        Some(KernelVariant::Cuda(decode)) => decode,
        #[cfg(feature = "webgpu")]
        Some(KernelVariant::WebGpu(variant)) => {
            return Err(BackendError::Unsupported(format!(
                "--variant {variant} is one of WebGPU's kernels, not of CUDA's"
            )));
        }
    };
    Ok(OpenDevice::Cuda(CudaDevice::open(choice.device)?, decode))
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(_choice: DeviceChoice<'_>) -> Result<OpenDevice, BackendError> {
    Err(not_built("cuda"))
}

#[cfg(not(all(feature = "webgpu", feature = "cuda")))]
fn not_built(backend: &str) -> BackendError {
    BackendError::NoDevice(format!(
        "this bindery was built without --backend {backend}: cargo build --features {backend}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_shown() {
        for kind in [BackendKind::WebGpu, BackendKind::Cuda, BackendKind::Auto] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert!("vulkan".parse::<BackendKind>().is_err());
    }
}
