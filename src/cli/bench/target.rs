//! What a benchmark runs on: a backend, one of its devices, a kernel variant.

use super::super::notices::Notices;
use anyhow::Result;
use bindery::backend::webgpu::Variant;
use bindery::backend::{Backend, BackendError, BackendKind, DeviceChoice, KernelVariant, OpenDevice};
use std::str::FromStr;

/// A device as the command line names it: `BACKEND[:[DEVICE][/VARIANT]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) backend: BackendKind,
    pub(super) device: Option<String>,
    pub(super) variant: Option<KernelVariant>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (backend, device) = text.split_once(':').map_or((text, None), |(backend, device)| (backend, Some(device)));
        let backend = backend.parse().map_err(|error| match backend.split_once('/') {
            Some((kind, variant)) if kind.parse::<BackendKind>().is_ok() => {
                format!("backend {backend:?}: {error}; write {kind}:/{variant}")
            }
            _ => format!("backend {backend:?}: {error}"),
        })?;
        let (device, variant) = match device.and_then(|device| device.rsplit_once('/')) {
            Some((device, variant)) => (Some(device), Some(variant)),
            None => (device, None),
        };
        let device = device.filter(|device| !device.is_empty()).map(str::to_owned);
        let variant = match (backend, variant) {
            (_, None) => None,
            #[cfg(feature = "cuda")]
            (BackendKind::Cuda, Some(name)) => Some(KernelVariant::Cuda(name.parse()?)),
            (_, Some(name)) => Some(KernelVariant::WebGpu(name.parse()?)),
        };
        Ok(Self { backend, device, variant })
    }
}

/// An open device, on which any number of backends live one after the other or side by side.
pub(super) struct OpenTarget {
    pub(super) device: OpenDevice,
    /// Adapter, API, driver and kernels, as [`Backend::description`] tells them.
    pub(super) description: String,
    /// Name of the kernel variant.
    pub(super) kernels: String,
    /// Every variant that the device runs; none where there is no choice.
    pub(super) variants: Vec<Variant>,
    /// Whether the device is the processor.
    pub(super) is_software: bool,
}

impl Target {
    /// Opens the device.
    ///
    /// # Errors
    /// When there is none, or it does not run the variant.
    pub(super) fn open(&self) -> Result<OpenTarget, BackendError> {
        let &Self { backend, variant, .. } = self;
        let device = OpenDevice::open(DeviceChoice { backend, device: self.device.as_deref(), variant })?;
        Notices::Lines.warn_of_software(self.device.as_deref(), &device);
        let (kernels, variants) = match &device {
            OpenDevice::WebGpu(gpu) => (gpu.variant().to_string(), gpu.summary().variants.clone()),
            #[cfg(feature = "cuda")]
            OpenDevice::Cuda(..) => ("cuda".to_owned(), Vec::new()),
        };
        let example = device.backend();
        let (description, is_software) = (example.description(), example.memory().is_software);
        Ok(OpenTarget { device, description, kernels, variants, is_software })
    }
}

impl OpenTarget {
    /// A backend with nothing on it.
    pub(super) fn backend(&self) -> Box<dyn Backend> {
        self.device.backend()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_up_to_three_parts() {
        let target =
            |backend, device: Option<&str>, variant| Target { backend, device: device.map(str::to_owned), variant };
        let webgpu =
            |device, variant: Option<Variant>| target(BackendKind::WebGpu, device, variant.map(KernelVariant::WebGpu));
        assert_eq!("webgpu".parse(), Ok(webgpu(None, None)));
        assert_eq!("webgpu:llvmpipe".parse(), Ok(webgpu(Some("llvmpipe"), None)));
        assert_eq!("webgpu:1/plain".parse(), Ok(webgpu(Some("1"), Some(Variant::Plain))));
        assert_eq!("webgpu:/cpu".parse(), Ok(webgpu(None, Some(Variant::Cpu))));
        assert_eq!("cuda:0".parse(), Ok(target(BackendKind::Cuda, Some("0"), None)));
        assert!("llvmpipe".parse::<Target>().unwrap_err().contains("webgpu"));
        assert!("webgpu:x/fast".parse::<Target>().unwrap_err().contains("fast"));
        assert!("webgpu/plain".parse::<Target>().unwrap_err().ends_with("write webgpu:/plain"));
        assert!("opengl/plain".parse::<Target>().unwrap_err().ends_with("webgpu, cuda or auto"));
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_variants_of_cuda_are_its_decode_kernels() {
        use bindery::backend::cuda::DecodeKernel;
        for decode in DecodeKernel::ALL {
            let target: Target = format!("cuda:/{decode}").parse().expect("it is one of them");
            assert_eq!(target.variant, Some(KernelVariant::Cuda(decode)));
        }
        assert!("cuda:0/plain".parse::<Target>().unwrap_err().contains("teams, async, blocks"));
    }
}
