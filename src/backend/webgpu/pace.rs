//! How much work goes into one submit.
//!
//! Operating systems reset a GPU whose submit takes too long: Windows after 2 seconds. A step that would take longer than a
//! fraction of that is submitted in parts, between dispatches, so its results are the same. One dispatch is never cut:
//! the step's token budget bounds it.

use std::time::Duration;

/// What a submit should take at most, in seconds.
const SUBMIT_S: f64 = 0.25;
/// Multiply-adds of a submit, at least: at 4e9 a second, which two cores of a software adapter do, as long as above. Nothing
/// that runs models is much slower, and this is what the first step goes by.
const LEAST_WORK: u64 = 1_000_000_000;
/// Weight of the newest step.
const NEWEST: f64 = 0.25;

/// Measures the device's speed, and says what a submit may hold. Work is counted in multiply-adds. Decode steps, which wait
/// for memory, make the device look slower than it is: then there are more submits than necessary, never fewer.
#[derive(Debug, Default)]
pub(super) struct Pace {
    work_per_second: Option<f64>,
    fixed: Option<u64>,
}

impl Pace {
    /// Work of one submit, at most.
    pub(super) fn budget(&self) -> u64 {
        let measured = self.work_per_second.map_or(0, |speed| (speed * SUBMIT_S) as u64);
        self.fixed.unwrap_or(measured.max(LEAST_WORK))
    }

    /// From now on the budget is this one.
    pub(super) fn fix(&mut self, budget: u64) {
        self.fixed = Some(budget);
    }

    /// A step of so much work took so long.
    pub(super) fn measured(&mut self, work: u64, took: Duration) {
        if work > 0 && !took.is_zero() {
            let newest = work as f64 / took.as_secs_f64();
            self.work_per_second = Some(self.work_per_second.map_or(newest, |speed| speed + NEWEST * (newest - speed)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_follows_the_measured_speed() {
        let mut pace = Pace::default();
        assert_eq!(pace.budget(), LEAST_WORK);
        pace.measured(8_000_000_000, Duration::from_secs(1));
        assert_eq!(pace.budget(), 2_000_000_000);
        pace.measured(16_000_000_000, Duration::from_secs(1));
        assert_eq!(pace.budget(), 2_500_000_000);
        pace.measured(0, Duration::from_secs(1));
        pace.measured(5, Duration::ZERO);
        assert_eq!(pace.budget(), 2_500_000_000);
        (0..100).for_each(|_| pace.measured(1, Duration::from_secs(1)));
        assert_eq!(pace.budget(), LEAST_WORK);
        pace.fix(7);
        assert_eq!(pace.budget(), 7);
    }
}
