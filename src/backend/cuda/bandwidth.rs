//! How fast a device copies: the yardstick for kernels that only move bytes.

use super::super::BackendError;
use super::device::CudaDevice;
use super::driver::{Buffer, Driver};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// More than any device's caches hold.
const BUFFER_BYTES: u64 = 512 << 20;
const MIN_TIME: Duration = Duration::from_millis(250);
const MAX_COPIES: u32 = 1 << 14;
const SAMPLES: usize = 3;

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
        let time_copies = |copies: u32| {
            let start = Instant::now();
            for copy in 0..copies as usize {
                let [from, to] = [copy % 2, (copy + 1) % 2].map(|i| buffers[i].address());
                self.copy(from, to, BUFFER_BYTES)?;
            }
            self.synchronize()?;
            Ok(start.elapsed())
        };
        time_copies(2)?;
        let mut copies = 4;
        let mut time: Duration = time_copies(copies)?;
        while time < MIN_TIME && copies < MAX_COPIES {
            copies *= 2;
            time = time_copies(copies)?;
        }
        for _ in 1..SAMPLES {
            time = time.min(time_copies(copies)?);
        }
        Ok(2.0 * BUFFER_BYTES as f64 * f64::from(copies) / time.as_secs_f64())
    }
}
