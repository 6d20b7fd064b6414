//! What a device reaches at best: the yardsticks for kernels that move bytes, and for those that compute.

use super::super::BackendError;
use super::best_of::best_of;
use super::device::CudaDevice;
use super::driver::{Buffer, Driver, Launch};
use super::kernel::{self, FmaPeakParams};
use std::sync::Arc;
use std::time::Instant;

/// More than any device's caches hold.
const BUFFER_BYTES: u64 = 512 << 20;
const MAX_COPIES: u32 = 1 << 14;

/// Workgroups of `fma_peak`, more than any device runs at the same time, and its multiply-adds.
const FMA_WORKGROUPS: u32 = 8192;
const FMA_PER_ROUND: u32 = 48;
const MAX_ROUNDS: u32 = 1 << 20;

impl CudaDevice {
    /// Bytes per second that copies within the device's memory move: each copied byte counts twice, once read and once
    /// written. The best of a few runs of a quarter of a second each, between two buffers of 512 MiB.
    ///
    /// # Errors
    /// When the device has no room for the buffers, or fails.
    pub fn measure_copy_bandwidth(self: &Arc<Self>) -> Result<f64, BackendError> {
        let driver: Arc<dyn Driver> = self.clone();
        let buffer = || Buffer::new(&driver, "copy bandwidth", BUFFER_BYTES);
        let buffers = [buffer()?, buffer()?];
        let (copies, time) = best_of(MAX_COPIES, &mut |copies| {
            let start = Instant::now();
            for copy in 0..copies as usize {
                let [from, to] = [copy % 2, (copy + 1) % 2].map(|i| buffers[i].address());
                self.copy(from, to, BUFFER_BYTES)?;
            }
            self.synchronize()?;
            Ok(start.elapsed())
        })?;
        Ok(2.0 * BUFFER_BYTES as f64 * f64::from(copies) / time.as_secs_f64())
    }
}

/// Floating point operations per second, two for each f32 multiply-add, of a kernel that does nothing else. The best of a few
/// runs of a quarter of a second each. Tensor cores are not asked.
///
/// # Errors
/// When the device fails.
pub fn measure_fma_peak(driver: &Arc<dyn Driver>) -> Result<f64, BackendError> {
    let kernel = kernel::fma_peak();
    let step = Buffer::new(driver, "peak", 16)?;
    // The summand: sums that went to zero would be slow on processors.
    step.write(0, &1_u32.to_le_bytes())?;
    let out = Buffer::new(driver, "peak", 4 * u64::from(FMA_WORKGROUPS * kernel.threads))?;
    let buffers = [step.address(), out.address()];
    let id = driver.load(&[&kernel])?[0];
    let (rounds, time) = best_of(MAX_ROUNDS, &mut |rounds| {
        let params = FmaPeakParams { rounds, factor: 0.75 };
        let start = Instant::now();
        driver.launch(&Launch {
            kernel: id,
            grid: (FMA_WORKGROUPS, 1),
            buffers: &buffers,
            params: bytemuck::bytes_of(&params).into(),
        })?;
        driver.synchronize()?;
        Ok(start.elapsed())
    })?;
    let per_round = 2.0 * f64::from(FMA_WORKGROUPS) * f64::from(kernel.threads) * f64::from(FMA_PER_ROUND);
    Ok(per_round * f64::from(rounds) / time.as_secs_f64())
}
