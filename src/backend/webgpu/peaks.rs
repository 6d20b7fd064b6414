//! What a device reaches at best: the yardsticks for kernels that move bytes, and for those that compute.

use super::super::BackendError;
use super::GpuDevice;
use super::best_of::best_of;
use super::kernel::{FmaPeakParams, fma_peak};
use std::time::{Duration, Instant};

const BUFFER_BYTES: u64 = 64 << 20;
const MAX_COPIES: u32 = 1 << 14;

/// Workgroups of `fma_peak`, more than any GPU runs at the same time; of invocations and multiply-adds as in the WGSL.
const FMA_WORKGROUPS: u32 = 8192;
const FMA_INVOCATIONS: u32 = 64;
const FMA_PER_ROUND: u32 = 48;
const MAX_ROUNDS: u32 = 1 << 20;

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
        let (copies, time) = best_of(MAX_COPIES, &mut |copies| self.time_copies(&buffers, bytes, copies))?;
        Ok(2.0 * bytes as f64 * f64::from(copies) / time.as_secs_f64())
    }

    /// Time of so many copies, to and fro so that each waits for the one before.
    fn time_copies(&self, buffers: &[wgpu::Buffer; 2], bytes: u64, copies: u32) -> Result<Duration, BackendError> {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("copies") });
        for copy in 0..copies as usize {
            encoder.copy_buffer_to_buffer(&buffers[copy % 2], 0, &buffers[(copy + 1) % 2], 0, bytes);
        }
        self.time_commands(encoder)
    }

    /// Floating point operations per second, two for each f32 multiply-add, of a kernel that does nothing else. The best
    /// of a few runs of a quarter of a second each. Matrix units are not asked.
    ///
    /// # Errors
    /// When the device fails.
    pub fn measure_fma_peak(&self) -> Result<f64, BackendError> {
        let kernel = fma_peak();
        let pipeline = self.pipelines(&[&kernel])?.remove(0);
        let step = self.buffer("peak", 16)?;
        // The summand: sums that went to zero would be slow on processors.
        self.queue.write_buffer(&step, 0, &1u32.to_le_bytes());
        let out = self.buffer("peak", 4 * u64::from(FMA_WORKGROUPS * FMA_INVOCATIONS))?;
        let bind_group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(kernel.name),
            layout: &pipeline.layout,
            entries: &[
                wgpu::BindGroupEntry { binding: kernel.bindings[0].number, resource: step.as_entire_binding() },
                wgpu::BindGroupEntry { binding: kernel.bindings[1].number, resource: out.as_entire_binding() },
            ],
        });
        let (rounds, time) = best_of(MAX_ROUNDS, &mut |rounds| {
            let mut encoder =
                self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("peak") });
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                pass.set_pipeline(&pipeline.pipeline);
                pass.set_bind_group(0, &bind_group, &[]);
                pass.set_immediates(0, bytemuck::bytes_of(&FmaPeakParams { rounds, factor: 0.75 }));
                pass.dispatch_workgroups(FMA_WORKGROUPS, 1, 1);
            }
            self.time_commands(encoder)
        })?;
        let per_round = 2.0 * f64::from(FMA_WORKGROUPS) * f64::from(FMA_INVOCATIONS) * f64::from(FMA_PER_ROUND);
        Ok(per_round * f64::from(rounds) / time.as_secs_f64())
    }

    fn time_commands(&self, encoder: wgpu::CommandEncoder) -> Result<Duration, BackendError> {
        let commands = encoder.finish();
        let start = Instant::now();
        self.wait_for(self.queue.submit([commands]))?;
        Ok(start.elapsed())
    }
}
