//! Weights on the device: the aligned planes of `repack`, row-major.

use super::super::gpu::repack::DeviceFormat;
use super::super::gpu::weight_runs::weight_runs;
use super::super::{BackendError, HostWeight};
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
    let mut uploaded = CudaWeight { parts: Vec::new(), bytes: 0 };
    for run in weight_runs(weight, |_| Ok(usize::MAX))? {
        let (values, scales) = run.planes();
        uploaded.bytes += (values.len() + scales.len()) as u64;
        let values = plane(driver, &weight.name, &values)?;
        let scales = if run.format.has_scales() { Some(plane(driver, &weight.name, &scales)?) } else { None };
        uploaded.parts.push(CudaPart { format: run.format, first_row: run.first_row, rows: run.rows, values, scales });
    }
    Ok(uploaded)
}

fn plane(driver: &Arc<dyn Driver>, name: &str, bytes: &[u8]) -> Result<Buffer, BackendError> {
    let buffer = Buffer::new(driver, name, bytes.len() as u64)?;
    buffer.write(0, bytes)?;
    Ok(buffer)
}
