//! Weights on the device: the aligned planes of `repack`, row-major.

use super::super::repack::{self, BLOCK, DeviceFormat};
use super::super::{BackendError, HostWeight, WeightFormat};
use super::driver::{Buffer, Driver};
use std::sync::Arc;

/// Rows of a weight that have one format.
pub(super) struct CudaPart {
    pub(super) format: DeviceFormat,
    pub(super) first_row: usize,
    pub(super) rows: usize,
    values: Buffer,
    scales: Option<Buffer>,
}

impl CudaPart {
    /// Addresses of its planes, in the order of the kernels' arguments.
    pub(super) fn addresses(&self) -> impl Iterator<Item = u64> {
        std::iter::once(&self.values).chain(&self.scales).map(Buffer::address)
    }
}

/// A weight on the device.
pub(super) struct CudaWeight {
    pub(super) parts: Vec<CudaPart>,
    pub(super) bytes: u64,
}

/// Uploads a weight: neighbouring parts of one device format go together.
pub(super) fn upload(driver: &Arc<dyn Driver>, weight: &HostWeight<'_>) -> Result<CudaWeight, BackendError> {
    let is_vector = weight.rows() == 1 && weight.parts[0].format == WeightFormat::F32;
    if !is_vector && !weight.cols.is_multiple_of(BLOCK) {
        return Err(BackendError::Unsupported(format!(
            "weight {}: {} input features; the CUDA kernels need a multiple of {BLOCK}",
            weight.name, weight.cols
        )));
    }
    let mut uploaded = CudaWeight { parts: Vec::new(), bytes: 0 };
    let mut first_row = 0;
    for run in weight.parts.chunk_by(|a, b| repack::device_format(a.format) == repack::device_format(b.format)) {
        let (mut values, mut scales, mut rows) = (Vec::new(), Vec::new(), 0);
        for part in run {
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
            repack::repack(part.format, &part.data, &mut values, &mut scales);
            rows += part.rows;
        }
        let format = repack::device_format(run[0].format);
        uploaded.bytes += (values.len() + scales.len()) as u64;
        let values = plane(driver, &weight.name, &values)?;
        let scales = if format.has_scales() { Some(plane(driver, &weight.name, &scales)?) } else { None };
        uploaded.parts.push(CudaPart { format, first_row, rows, values, scales });
        first_row += rows;
    }
    Ok(uploaded)
}

fn plane(driver: &Arc<dyn Driver>, name: &str, bytes: &[u8]) -> Result<Buffer, BackendError> {
    let buffer = Buffer::new(driver, name, bytes.len() as u64)?;
    buffer.write(0, bytes)?;
    Ok(buffer)
}
