//! Device buffers back to the host, through a staging buffer that is kept from step to step.

use super::super::BackendError;
use super::device::GpuDevice;
use std::time::{Duration, Instant};

/// Smallest staging buffer, in bytes; a larger one is the next power of two.
const LEAST_BYTES: u64 = 4096;

/// Copies of one submit, one after the other in a staging buffer.
#[derive(Debug, Default)]
pub(super) struct ReadBack {
    staging: Option<wgpu::Buffer>,
    /// Bytes of the copies recorded so far.
    len: u64,
}

impl ReadBack {
    /// Makes room for copies of so many bytes; those of the submit before have been [read](Self::finish).
    pub(super) fn begin(&mut self, gpu: &GpuDevice, bytes: u64) {
        self.len = 0;
        if self.staging.as_ref().is_none_or(|staging| staging.size() < bytes) {
            self.staging = Some(gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("read-back"),
                size: bytes.next_power_of_two().max(LEAST_BYTES),
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }));
        }
    }

    /// Records a copy, in the order in which they are read.
    pub(super) fn copy(&mut self, encoder: &mut wgpu::CommandEncoder, from: &wgpu::Buffer, offset: u64, bytes: u64) {
        if bytes > 0 {
            let staging = self.staging.as_ref().expect("begin() comes before copy()");
            encoder.copy_buffer_to_buffer(from, offset, staging, self.len, bytes);
            self.len += bytes;
        }
    }

    /// Waits for the copies, which are part of `submission`, and lends `read` their bytes. Returns how long it waited.
    pub(super) fn finish(
        &self,
        gpu: &GpuDevice,
        submission: wgpu::SubmissionIndex,
        read: impl FnOnce(&[u8]),
    ) -> Result<Duration, BackendError> {
        let start = Instant::now();
        let Some(staging) = self.staging.as_ref().filter(|_| self.len > 0) else {
            gpu.wait_for(submission)?;
            read(&[]);
            return Ok(start.elapsed());
        };
        let slice = staging.slice(..self.len);
        slice.map_async(wgpu::MapMode::Read, |_| {});
        gpu.wait_for(submission)?;
        let waited = start.elapsed();
        let view = slice.get_mapped_range().map_err(|error| BackendError::Device(format!("reading back: {error}")))?;
        read(&view);
        drop(view);
        staging.unmap();
        Ok(waited)
    }
}
