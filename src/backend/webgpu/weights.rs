//! Weights on the device: planes in buffers, split by rows where a binding would be too large.

use super::super::{BackendError, HostWeight};
use super::device::GpuDevice;
use super::kernel;
use super::repack::{self, BLOCK, DeviceFormat};
use super::weight_runs::{is_vector, weight_runs};

/// Rows of a weight that lie in one pair of buffers.
pub(super) struct GpuPart {
    pub(super) format: DeviceFormat,
    pub(super) first_row: usize,
    pub(super) rows: usize,
    pub(super) values: wgpu::Buffer,
    pub(super) scales: Option<wgpu::Buffer>,
}

impl GpuPart {
    /// The buffers, in the order of the kernels' bindings.
    pub(super) fn buffers(&self) -> Vec<&wgpu::Buffer> {
        std::iter::once(&self.values).chain(self.scales.as_ref()).collect()
    }
}

/// A weight on the device.
pub(super) struct GpuWeight {
    pub(super) parts: Vec<GpuPart>,
    pub(super) bytes: u64,
}

/// Uploads a weight: neighbouring parts of one device format go together, up to what a binding holds.
pub(super) fn upload(gpu: &GpuDevice, weight: &HostWeight<'_>) -> Result<GpuWeight, BackendError> {
    let limit = gpu.summary().max_binding_bytes.min(gpu.summary().max_buffer_bytes);
    let group = kernel::weight_group(gpu.variant);
    let runs = weight_runs(weight, |row_bytes| match (limit / row_bytes) as usize / group * group {
        0 => Err(BackendError::Unsupported(format!(
            "weight {}: {group} rows are more than the {limit} bytes that this device binds",
            weight.name
        ))),
        most_rows => Ok(most_rows),
    })?;
    let mut parts = Vec::new();
    let mut bytes = 0;
    for run in runs {
        let (mut values, mut scales) = run.planes();
        if !is_vector(weight) {
            let (value_bytes, scale_bytes) = repack::block_bytes(run.format);
            values = repack::interleave(values, weight.cols / BLOCK, value_bytes as usize, group);
            scales = repack::interleave(scales, weight.cols / BLOCK, scale_bytes as usize, group);
        }
        bytes += (values.len() + scales.len()) as u64;
        let values = plane(gpu, &weight.name, values)?;
        let scales = if run.format.has_scales() { Some(plane(gpu, &weight.name, scales)?) } else { None };
        parts.push(GpuPart { format: run.format, first_row: run.first_row, rows: run.rows, values, scales });
    }
    // Staging memory is only released once the device has made the copies.
    gpu.wait_for(gpu.queue.submit([]))?;
    Ok(GpuWeight { parts, bytes })
}

fn plane(gpu: &GpuDevice, name: &str, mut bytes: Vec<u8>) -> Result<wgpu::Buffer, BackendError> {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let buffer = gpu.buffer(name, bytes.len() as u64)?;
    gpu.queue.write_buffer(&buffer, 0, &bytes);
    Ok(buffer)
}
