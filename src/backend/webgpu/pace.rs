//! How much work goes into one submit.
//!
//! Operating systems reset a GPU whose submit takes too long: Windows after 2 seconds. A step that would take longer than a
//! fraction of that is submitted in parts, between dispatches, so its results are the same. The attention is dispatched in
//! rounds of no more work than a submit may hold; a matrix product is never cut: the step's token budget bounds it. Nobody
//! watches a software adapter, where a second submit would only make the host wait for the first.

use std::time::{Duration, Instant};

/// What a submit should take at most, in seconds.
const SUBMIT_S: f64 = 0.25;
/// Multiply-adds of a submit, at least; at 4e9 a second, slower than any GPU that is worth using, as long as above. The first
/// step goes by this.
const LEAST_WORK: u64 = 1_000_000_000;
/// Weight of the newest step.
const NEWEST: f64 = 0.25;

/// Measures the device's speed, and says what a submit may hold. Work is counted in multiply-adds. Decode steps, which wait
/// for memory, make the device look slower than it is: then there are more submits than necessary, never fewer.
#[derive(Debug)]
pub(super) struct Pace {
    work_per_second: Option<f64>,
    /// When the last step was done.
    free_since: Option<Instant>,
    /// The budget, whatever is measured.
    fixed: Option<u64>,
}

impl Pace {
    /// Of a device that has not run a step.
    pub(super) fn new(is_software: bool) -> Self {
        Self { work_per_second: None, free_since: None, fixed: is_software.then_some(u64::MAX) }
    }

    /// Work of one submit, at most.
    pub(super) fn budget(&self) -> u64 {
        let measured = self.work_per_second.map_or(0, |speed| (speed * SUBMIT_S) as u64);
        self.fixed.unwrap_or(measured.max(LEAST_WORK))
    }

    /// From now on the budget is this one.
    pub(super) fn fix(&mut self, budget: u64) {
        self.fixed = Some(budget);
    }

    /// A step of so much work, with which the host began then, is done; it may have waited for the one before it.
    pub(super) fn measured(&mut self, work: u64, began: Instant) {
        let now = Instant::now();
        let since = self.free_since.replace(now).map_or(began, |free| free.max(began));
        self.took(work, now.saturating_duration_since(since));
    }

    fn took(&mut self, work: u64, took: Duration) {
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
        assert_eq!(Pace::new(true).budget(), u64::MAX);
        let mut pace = Pace::new(false);
        assert_eq!(pace.budget(), LEAST_WORK);
        pace.took(8_000_000_000, Duration::from_secs(1));
        assert_eq!(pace.budget(), 2_000_000_000);
        pace.took(16_000_000_000, Duration::from_secs(1));
        assert_eq!(pace.budget(), 2_500_000_000);
        pace.took(0, Duration::from_secs(1));
        pace.took(5, Duration::ZERO);
        assert_eq!(pace.budget(), 2_500_000_000);
        (0..100).for_each(|_| pace.took(1, Duration::from_secs(1)));
        assert_eq!(pace.budget(), LEAST_WORK);
        pace.fix(7);
        assert_eq!(pace.budget(), 7);
    }
}
