//! What a benchmark runs on: a backend, one of its devices, a kernel variant.

use anyhow::Result;
use bindery::backend::webgpu::{GpuDevice, Variant, WebGpuBackend};
use bindery::backend::{Backend, BackendError};
use std::str::FromStr;
use std::sync::Arc;

/// A device as the command line names it: `BACKEND[:DEVICE[/VARIANT]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) device: Option<String>,
    pub(super) variant: Option<Variant>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (backend, device) = text.split_once(':').map_or((text, None), |(backend, device)| (backend, Some(device)));
        if backend != "webgpu" {
            return Err(format!("there is no backend {backend:?} in this build; use webgpu[:DEVICE[/VARIANT]]"));
        }
        let Some(device) = device else { return Ok(Self::default()) };
        let (device, variant) = match device.rsplit_once('/') {
            Some((device, variant)) => (device, Some(variant.parse()?)),
            None => (device, None),
        };
        Ok(Self { device: (!device.is_empty()).then(|| device.to_owned()), variant })
    }
}

/// An open device, on which any number of backends live one after the other or side by side.
pub(super) struct OpenTarget {
    /// Adapter, API, driver and kernels, as [`Backend::description`] tells them.
    pub(super) description: String,
    /// Name of the kernel variant.
    pub(super) kernels: String,
    /// Every variant that the device runs.
    pub(super) variants: Vec<Variant>,
    /// Whether the device is the processor.
    pub(super) is_software: bool,
    make: Box<dyn Fn() -> Box<dyn Backend>>,
}

impl Target {
    /// Opens the device.
    ///
    /// # Errors
    /// When there is none, or it does not run the variant.
    pub(super) fn open(&self) -> Result<OpenTarget, BackendError> {
        let gpu = GpuDevice::open(self.device.as_deref(), self.variant)?;
        let make = {
            let gpu = Arc::clone(&gpu);
            Box::new(move || Box::new(WebGpuBackend::new(gpu.clone())) as Box<dyn Backend>)
        };
        Ok(OpenTarget {
            description: make().description(),
            kernels: gpu.variant().to_string(),
            variants: gpu.summary().variants.clone(),
            is_software: gpu.summary().is_software,
            make,
        })
    }
}

impl OpenTarget {
    /// A backend with nothing on it.
    pub(super) fn backend(&self) -> Box<dyn Backend> {
        (self.make)()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_up_to_three_parts() {
        let target = |device: Option<&str>, variant| Target { device: device.map(str::to_owned), variant };
        assert_eq!("webgpu".parse(), Ok(Target::default()));
        assert_eq!("webgpu:llvmpipe".parse(), Ok(target(Some("llvmpipe"), None)));
        assert_eq!("webgpu:1/plain".parse(), Ok(target(Some("1"), Some(Variant::Plain))));
        assert_eq!("webgpu:/cpu".parse(), Ok(target(None, Some(Variant::Cpu))));
        assert!("llvmpipe".parse::<Target>().unwrap_err().contains("webgpu"));
        assert!("webgpu:x/fast".parse::<Target>().unwrap_err().contains("fast"));
    }
}
