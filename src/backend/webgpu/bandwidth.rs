//! How fast a device copies: the yardstick for kernels that only move bytes.

use super::super::BackendError;
use super::GpuDevice;
use std::time::{Duration, Instant};

const BUFFER_BYTES: u64 = 64 << 20;
const MIN_TIME: Duration = Duration::from_millis(250);
const MAX_COPIES: u32 = 1 << 14;
const SAMPLES: usize = 3;

impl GpuDevice {
    /// Bytes per second that buffer-to-buffer copies move: each copied byte counts twice, once read and once written.
    /// The best of a few runs of a quarter of a second each, between two buffers of 64 MiB (less where the device binds
    /// less), which no cache of today's GPUs holds both of.
    ///
    /// # Errors
    /// When the device has no room for the buffers, or fails.
    pub fn measure_copy_bandwidth(&self) -> Result<f64, BackendError> {
        let bytes = BUFFER_BYTES.min(self.summary().max_binding_bytes).min(self.summary().max_buffer_bytes) & !15;
        let buffers = [self.buffer("copy bandwidth", bytes)?, self.buffer("copy bandwidth", bytes)?];
        self.time_copies(&buffers, bytes, 2)?;
        let mut copies = 4;
        let mut time = self.time_copies(&buffers, bytes, copies)?;
        while time < MIN_TIME && copies < MAX_COPIES {
            copies *= 2;
            time = self.time_copies(&buffers, bytes, copies)?;
        }
        for _ in 1..SAMPLES {
            time = time.min(self.time_copies(&buffers, bytes, copies)?);
        }
        Ok(2.0 * bytes as f64 * f64::from(copies) / time.as_secs_f64())
    }

    /// Time of so many copies, to and fro so that each waits for the one before.
    fn time_copies(&self, buffers: &[wgpu::Buffer; 2], bytes: u64, copies: u32) -> Result<Duration, BackendError> {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("copies") });
        for copy in 0..copies as usize {
            encoder.copy_buffer_to_buffer(&buffers[copy % 2], 0, &buffers[(copy + 1) % 2], 0, bytes);
        }
        let commands = encoder.finish();
        let start = Instant::now();
        self.queue.submit([commands]);
        self.wait()?;
        Ok(start.elapsed())
    }
}
