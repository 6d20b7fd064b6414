//! Time, and who has arrived by now.

use super::cost::{CostModel, StepWork};
use super::workload::{Arrival, Clock, Workload};

/// Goes through a workload as time passes.
#[derive(Debug)]
pub(super) struct Queue<'a> {
    workload: &'a Workload,
    cost: CostModel,
    /// Seconds (or steps) since the start.
    pub now: f64,
    arrived: usize,
    taken: usize,
}

impl<'a> Queue<'a> {
    pub fn new(workload: &'a Workload, cost: CostModel) -> Self {
        let mut queue = Queue { workload, cost, now: 0.0, arrived: 0, taken: 0 };
        queue.arrive();
        queue
    }

    /// The first request that has arrived and has not been taken, with its number.
    pub fn peek(&self) -> Option<(usize, &'a Arrival)> {
        (self.taken < self.arrived).then(|| (self.taken, &self.workload.arrivals[self.taken]))
    }

    /// Takes the first request.
    pub fn take(&mut self) -> Option<(usize, &'a Arrival)> {
        let first = self.peek()?;
        self.taken += 1;
        Some(first)
    }

    /// Requests that have arrived and have not been taken.
    pub fn len(&self) -> usize {
        self.arrived - self.taken
    }

    /// How long a step takes.
    pub fn duration(&self, work: StepWork) -> f64 {
        match self.workload.clock {
            Clock::Seconds => self.cost.step_seconds(work),
            Clock::Steps => 1.0,
        }
    }

    /// A step has taken `duration`.
    pub fn pass(&mut self, duration: f64) {
        self.now += duration;
        self.arrive();
    }

    /// Nothing to do: on to the next arrival. `false` when there is none.
    pub fn skip_to_next(&mut self) -> bool {
        let Some(next) = self.workload.arrivals.get(self.arrived) else { return false };
        self.now = self.now.max(if self.workload.clock == Clock::Steps { next.at.ceil() } else { next.at });
        self.arrive();
        true
    }

    fn arrive(&mut self) {
        let waiting = &self.workload.arrivals[self.arrived..];
        self.arrived += waiting.iter().take_while(|arrival| arrival.at <= self.now).count();
    }
}
