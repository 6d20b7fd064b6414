//! Where a step's time goes on the device and on the way to it, and what the device could do at best.

use std::fmt;
use std::time::{Duration, Instant};

/// How a backend takes the times of its dispatches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileClock {
    /// The device writes a timestamp before and after each dispatch, in one pass.
    InPass,
    /// Each dispatch is a pass of its own, with a timestamp at either end.
    PassPerDispatch,
    /// The device has no timestamps: dispatches are counted, and only the host's times are known.
    None,
}

impl fmt::Display for ProfileClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InPass => "device timestamps around each dispatch",
            Self::PassPerDispatch => "device timestamps, one pass for each dispatch",
            Self::None => "this device has no timestamps: dispatches are counted, only the host's times are known",
        })
    }
}

/// One dispatch, on the device's clock; both times are 0 with [`ProfileClock::None`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DispatchTime {
    /// Name of the kernel.
    pub kernel: &'static str,
    /// When it began, in nanoseconds since an arbitrary moment that is the same in all steps.
    pub begin_ns: u64,
    /// When it ended.
    pub end_ns: u64,
}

impl DispatchTime {
    /// How long it took, in seconds.
    pub fn seconds(&self) -> f64 {
        self.end_ns.saturating_sub(self.begin_ns) as f64 / 1e9
    }
}

/// The times of one [`Backend::forward`](super::Backend::forward).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForwardProfile {
    /// Every dispatch, in order.
    pub dispatches: Vec<DispatchTime>,
}

/// What a device reaches when it does nothing else.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DevicePeaks {
    /// Bytes per second of a copy from buffer to buffer, each byte counted twice: read and written.
    pub copy_bytes_per_s: f64,
    /// Floating point operations per second of f32 multiply-adds that touch no memory, two for each. Matrix units
    /// and tensor cores, which some products use, are not asked, and may go beyond.
    pub fma_flops_per_s: f64,
}

/// Laps of a clock that only runs when somebody wants to know.
#[derive(Debug, Clone, Copy)]
pub struct Laps(Option<Instant>);

impl Laps {
    /// Starts the clock, if `wanted`.
    pub fn start(wanted: bool) -> Self {
        Self(wanted.then(Instant::now))
    }

    /// Time since the start or the last lap; zero when the clock does not run.
    pub fn lap(&mut self) -> Duration {
        let Some(last) = &mut self.0 else { return Duration::ZERO };
        let now = Instant::now();
        now - std::mem::replace(last, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laps_add_up_to_the_whole() {
        let began = Instant::now();
        let mut laps = Laps::start(true);
        let sum = laps.lap() + laps.lap();
        assert!(sum > Duration::ZERO && sum <= began.elapsed());
        assert_eq!(Laps::start(false).lap(), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_went_back_gives_no_time() {
        assert_eq!(DispatchTime { kernel: "x", begin_ns: 9, end_ns: 5 }.seconds(), 0.0);
        assert_eq!(DispatchTime { kernel: "x", begin_ns: 5, end_ns: 2_000_000_005 }.seconds(), 2.0);
    }
}
