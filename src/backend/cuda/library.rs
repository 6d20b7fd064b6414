//! Which CUDA devices there are, and the one place that asks whether CUDA is there at all: the bindings panic without it.

use super::super::BackendError;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};

/// Shown where the driver's library is missing.
pub const NO_DRIVER: &str = "no CUDA driver found";

/// A CUDA device as its driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaSummary {
    /// Position in the driver's list, for `--device`.
    pub index: usize,
    /// Name, for `--device` too.
    pub name: String,
    /// Major and minor number.
    pub compute_capability: (u32, u32),
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Most workgroup memory that a kernel may ask for, in bytes.
    pub max_shared_bytes: u32,
    /// The newest CUDA that the driver supports, major and minor.
    pub driver_version: (u32, u32),
}

/// Loads and initialises the driver. Whatever else calls CUDA has come through here.
fn require() -> Result<(), BackendError> {
    // SAFETY: loading the driver's library runs its initialisers only.
    if !unsafe { sys::is_culib_present() } {
        return Err(BackendError::NoDevice(format!(
            "{NO_DRIVER}: --backend cuda needs an NVIDIA GPU and its driver (libcuda.so.1, nvcuda.dll); \
             --backend webgpu runs on any GPU"
        )));
    }
    result::init().map_err(|error| match error.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => BackendError::NoDevice("the CUDA driver finds no device".to_owned()),
        _ => BackendError::NoDevice(format!("the CUDA driver does not start: {}", message(error))),
    })
}

/// What an error of the driver means.
pub(super) fn message(error: DriverError) -> String {
    let text = |text: Result<&std::ffi::CStr, DriverError>| text.map(|t| t.to_string_lossy().into_owned()).ok();
    match (text(error.error_name()), text(error.error_string())) {
        (Some(name), Some(meaning)) => format!("{meaning} ({name})"),
        _ => format!("error {}", error.0 as u32),
    }
}

/// An error of a call to the driver, if it failed.
pub(super) fn check<T>(what: &str, result: Result<T, DriverError>) -> Result<T, BackendError> {
    result.map_err(|error| BackendError::Device(format!("CUDA, {what}: {}", message(error))))
}

/// Every CUDA device, in the driver's order.
///
/// # Errors
/// [`BackendError::NoDevice`], beginning with [`NO_DRIVER`] where there is no driver.
pub fn cuda_devices() -> Result<Vec<CudaSummary>, BackendError> {
    require()?;
    let count = check("counting devices", result::device::get_count())?;
    (0..count).map(summary).collect()
}

fn summary(ordinal: i32) -> Result<CudaSummary, BackendError> {
    let device = check("a device", result::device::get(ordinal))?;
    let attribute = |attribute| {
        // SAFETY: the device comes from the driver.
        check("a device's attribute", unsafe { result::device::get_attribute(device, attribute) })
            .map(|value| value as u32)
    };
    let mut version = 0;
    // SAFETY: the pointer is to an integer of ours.
    check("the driver's version", unsafe { sys::cuDriverGetVersion(&mut version) }.result())?;
    Ok(CudaSummary {
        index: ordinal as usize,
        name: check("a device's name", result::device::get_name(device))?,
        compute_capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        // SAFETY: the device comes from the driver.
        memory_bytes: check("a device's memory", unsafe { result::device::total_mem(device) })? as u64,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        max_shared_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        driver_version: (version as u32 / 1000, version as u32 % 1000 / 10),
    })
}

/// The device that `selector` names: an index into [`cuda_devices`], or a part of the name in any case; the first without.
pub(super) fn choose(selector: Option<&str>) -> Result<CudaSummary, BackendError> {
    let all = cuda_devices()?;
    let index = match selector.map(|wanted| (wanted, wanted.parse::<usize>())) {
        None => (!all.is_empty()).then_some(0),
        Some((_, Ok(index))) => (index < all.len()).then_some(index),
        Some(("", _)) => None,
        Some((wanted, Err(_))) => all.iter().position(|s| s.name.to_lowercase().contains(&wanted.to_lowercase())),
    };
    match index.and_then(|index| all.get(index)) {
        Some(summary) => Ok(summary.clone()),
        None => {
            let names: Vec<String> = all.iter().map(|s| format!("{}: {}", s.index, s.name)).collect();
            Err(BackendError::NoDevice(format!(
                "no CUDA device {:?}; there are: {}",
                selector.unwrap_or_default(),
                names.join("; ")
            )))
        }
    }
}
