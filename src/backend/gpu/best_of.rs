//! Measuring what a device reaches at best.

use super::super::BackendError;
use std::time::Duration;

const MIN_TIME: Duration = Duration::from_millis(250);
const SAMPLES: usize = 3;

/// The least time of a few runs, and how often they did what `run` is told to do that many times: so often that it takes
/// long enough to be measured, and `most` times at most.
pub(in crate::backend) fn best_of(
    most: u32,
    run: &mut dyn FnMut(u32) -> Result<Duration, BackendError>,
) -> Result<(u32, Duration), BackendError> {
    run(2)?;
    let mut times = 4;
    let mut least = run(times)?;
    while least < MIN_TIME && times < most {
        times *= 2;
        least = run(times)?;
    }
    for _ in 1..SAMPLES {
        least = least.min(run(times)?);
    }
    Ok((times, least))
}
