//! The CUDA devices in the list, where the backend is built in and its driver is there.

use serde_json::Value;

/// What there is of CUDA.
pub(super) struct CudaDevices {
    /// A table of the devices, or one line that says why there is none.
    pub(super) text: String,
    /// Entries of the JSON list.
    pub(super) json: Vec<Value>,
}

#[cfg(not(feature = "cuda"))]
pub(super) fn list() -> CudaDevices {
    CudaDevices { text: "CUDA: not built in (cargo build --features cuda)".to_owned(), json: Vec::new() }
}

#[cfg(feature = "cuda")]
pub(super) fn list() -> CudaDevices {
    let found = match bindery::backend::cuda::cuda_devices() {
        Ok(found) => found,
        Err(error) => return CudaDevices { text: format!("CUDA: {error}"), json: Vec::new() },
    };
    if found.is_empty() {
        return CudaDevices { text: "CUDA: the driver finds no device".to_owned(), json: Vec::new() };
    }
    let head = ["index", "name", "compute capability", "multiprocessors", "shared memory", "memory"];
    let rows: Vec<Vec<String>> = found.iter().map(built_in::row).collect();
    CudaDevices {
        text: format!("CUDA ({}):\n{}", built_in::compiler(), super::table(&head, &rows)),
        json: found.iter().map(built_in::as_json).collect(),
    }
}

#[cfg(feature = "cuda")]
mod built_in {
    use super::super::bytes;
    use bindery::backend::cuda::{CudaSummary, nvrtc};
    use serde_json::{Value, json};

    /// The kernels' compiler, or why there is none.
    pub(super) fn compiler() -> String {
        match nvrtc::version() {
            Ok((major, minor)) => format!("NVRTC {major}.{minor}"),
            Err(error) => error.to_string(),
        }
    }

    pub(super) fn row(device: &CudaSummary) -> Vec<String> {
        let (major, minor) = device.compute_capability;
        vec![
            device.index.to_string(),
            device.name.clone(),
            format!("{major}.{minor}"),
            device.multiprocessors.to_string(),
            bytes(u64::from(device.max_shared_bytes)),
            bytes(device.memory_bytes),
        ]
    }

    pub(super) fn as_json(device: &CudaSummary) -> Value {
        json!({
            "backend": "cuda",
            "index": device.index,
            "name": device.name,
            "compute_capability": [device.compute_capability.0, device.compute_capability.1],
            "multiprocessors": device.multiprocessors,
            "max_shared_bytes": device.max_shared_bytes,
            "memory_bytes": device.memory_bytes,
            "cuda_version_of_driver": [device.driver_version.0, device.driver_version.1],
        })
    }
}
