//! Weights on the device: planes in buffers, split by rows where a binding would be too large.

use super::super::{BackendError, HostWeight, WeightFormat};
use super::device::GpuDevice;
use super::kernel::{self, DeviceFormat};
use super::repack::{self, BLOCK};

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

/// A run of rows on its way to one pair of buffers.
struct Run<'a> {
    format: DeviceFormat,
    first_row: usize,
    rows: usize,
    pieces: Vec<(WeightFormat, &'a [u8])>,
}

/// Uploads a weight: neighbouring parts of one device format go together, up to what a binding holds.
pub(super) fn upload(gpu: &GpuDevice, weight: &HostWeight<'_>) -> Result<GpuWeight, BackendError> {
    let is_vector = weight.rows() == 1 && weight.parts[0].format == WeightFormat::F32;
    if !is_vector && !weight.cols.is_multiple_of(BLOCK) {
        return Err(BackendError::Unsupported(format!(
            "weight {}: {} input features; the WebGPU kernels need a multiple of {BLOCK}",
            weight.name, weight.cols
        )));
    }
    let mut parts = Vec::new();
    let mut bytes = 0;
    for run in runs(gpu, weight)? {
        let (mut values, mut scales) = (Vec::new(), Vec::new());
        for (format, data) in &run.pieces {
            repack::repack(*format, data, &mut values, &mut scales);
        }
        if !is_vector {
            let group = kernel::weight_group(gpu.variant);
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

fn runs<'a>(gpu: &GpuDevice, weight: &'a HostWeight<'_>) -> Result<Vec<Run<'a>>, BackendError> {
    let limit = gpu.summary().max_binding_bytes.min(gpu.summary().max_buffer_bytes);
    let mut runs: Vec<Run<'a>> = Vec::new();
    let mut first_row = 0;
    for part in &weight.parts {
        let row_bytes = part.format.row_bytes(weight.cols).unwrap_or(0);
        if row_bytes == 0 || part.data.len() != row_bytes * part.rows {
            return Err(BackendError::Unsupported(format!(
                "weight {}: {} bytes do not make {} rows of {} {:?}",
                weight.name,
                part.data.len(),
                part.rows,
                weight.cols,
                part.format
            )));
        }
        let format = repack::device_format(part.format);
        let device_row_bytes = (weight.cols.div_ceil(BLOCK) as u64) * repack::block_bytes(format).0;
        let group = kernel::weight_group(gpu.variant);
        let max_rows = (limit / device_row_bytes) as usize / group * group;
        if max_rows == 0 {
            return Err(BackendError::Unsupported(format!(
                "weight {}: {group} rows are more than the {limit} bytes that this device binds",
                weight.name
            )));
        }
        let mut done = 0;
        while done < part.rows {
            let joins = runs.last().is_some_and(|run| run.format == format && run.rows < max_rows);
            if !joins {
                runs.push(Run { format, first_row: first_row + done, rows: 0, pieces: Vec::new() });
            }
            let run = runs.last_mut().expect("a run was just pushed or joined");
            let rows = (part.rows - done).min(max_rows - run.rows);
            run.pieces.push((part.format, &part.data[done * row_bytes..(done + rows) * row_bytes]));
            run.rows += rows;
            done += rows;
        }
        first_row += part.rows;
    }
    Ok(runs)
}

fn plane(gpu: &GpuDevice, name: &str, mut bytes: Vec<u8>) -> Result<wgpu::Buffer, BackendError> {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let buffer = gpu.buffer(name, bytes.len() as u64)?;
    gpu.queue.write_buffer(&buffer, 0, &bytes);
    Ok(buffer)
}
