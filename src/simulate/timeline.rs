//! What memory holds and who is served, over time.

use serde::Serialize;

/// A moment of a run. Slots are room for one token's keys and values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Moment {
    /// Seconds (or steps) since the start.
    pub time: f64,
    /// Requests being served.
    pub running_requests: u32,
    /// Sequences being served.
    pub running_seqs: u32,
    /// Requests waiting.
    pub waiting_requests: u32,
    /// Slots that hold a token.
    pub token_slots: u64,
    /// Slots kept for tokens that the same request will still write.
    pub reserved_slots: u64,
    /// Internal fragmentation: slots that were given away and that nobody will ever write.
    pub internal_slots: u64,
    /// External fragmentation: free slots that are of no use to whoever waits.
    pub external_slots: u64,
    /// Block table entries; 0 without blocks.
    pub block_table_entries: u64,
    /// Blocks used; 0 without blocks.
    pub used_blocks: u64,
}

/// Moments kept for plots at most.
const MAX_MOMENTS: usize = 16_384;

/// Means over a stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Means {
    /// How long it was, in seconds (or steps).
    pub duration: f64,
    /// Requests being served.
    pub running_requests: f64,
    /// Sequences being served.
    pub running_seqs: f64,
    /// Slots that hold a token.
    pub token_slots: f64,
    /// Slots kept for tokens to come.
    pub reserved_slots: f64,
    /// Slots given away and never written.
    pub internal_slots: f64,
    /// Free slots of no use.
    pub external_slots: f64,
    /// Block table entries.
    pub block_table_entries: f64,
    /// Blocks used.
    pub used_blocks: f64,
}

impl Means {
    fn add(&mut self, moment: &Moment, weight: f64) {
        self.duration += weight;
        self.running_requests += weight * f64::from(moment.running_requests);
        self.running_seqs += weight * f64::from(moment.running_seqs);
        self.token_slots += weight * moment.token_slots as f64;
        self.reserved_slots += weight * moment.reserved_slots as f64;
        self.internal_slots += weight * moment.internal_slots as f64;
        self.external_slots += weight * moment.external_slots as f64;
        self.block_table_entries += weight * moment.block_table_entries as f64;
        self.used_blocks += weight * moment.used_blocks as f64;
    }

    fn divided(self) -> Self {
        let duration = if self.duration > 0.0 { self.duration } else { 1.0 };
        Means {
            duration: self.duration,
            running_requests: self.running_requests / duration,
            running_seqs: self.running_seqs / duration,
            token_slots: self.token_slots / duration,
            reserved_slots: self.reserved_slots / duration,
            internal_slots: self.internal_slots / duration,
            external_slots: self.external_slots / duration,
            block_table_entries: self.block_table_entries / duration,
            used_blocks: self.used_blocks / duration,
        }
    }

    /// Share of the memory given away or lost to fragmentation that holds no token.
    pub fn waste(&self) -> f64 {
        let idle = self.reserved_slots + self.internal_slots + self.external_slots;
        if idle > 0.0 { idle / (idle + self.token_slots) } else { 0.0 }
    }
}

/// Gathers moments. Looking at everything costs as much as a step, so of long runs every 2nd step is looked at, every
/// 4th, and so on: which ones depends on nothing but their number.
#[derive(Debug, Clone)]
pub struct Timeline {
    moments: Vec<Moment>,
    stride: u64,
    steps: u64,
    /// Time since the last look.
    unseen: f64,
    all: Means,
    loaded: Means,
}

impl Default for Timeline {
    fn default() -> Self {
        let (all, loaded) = (Means::default(), Means::default());
        Timeline { moments: Vec::new(), stride: 1, steps: 0, unseen: 0.0, all, loaded }
    }
}

impl Timeline {
    /// A step that lasts `duration`; `look` says what it finds, if it is asked.
    pub fn step(&mut self, duration: f64, look: impl FnOnce() -> Moment) {
        self.unseen += duration;
        self.steps += 1;
        if !self.steps.is_multiple_of(self.stride) {
            return;
        }
        let moment = look();
        let weight = std::mem::take(&mut self.unseen);
        self.all.add(&moment, weight);
        if moment.waiting_requests > 0 {
            self.loaded.add(&moment, weight);
        }
        self.moments.push(moment);
        if self.moments.len() == MAX_MOMENTS {
            self.stride *= 2;
            let mut at = 0;
            self.moments.retain(|_| {
                at += 1;
                at % 2 == 0
            });
        }
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The moments kept, in order.
    pub fn into_moments(self) -> Vec<Moment> {
        self.moments
    }

    /// Means over all time in which there was something to do.
    pub fn means(&self) -> Means {
        self.all.divided()
    }

    /// Means over the time in which requests waited for room; over all time where none ever did.
    pub fn loaded_means(&self) -> Means {
        if self.loaded.duration > 0.0 { self.loaded.divided() } else { self.means() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_survive_thinning_out() {
        let mut timeline = Timeline::default();
        for step in 0..100_000 {
            let time = f64::from(step);
            timeline.step(1.0, || Moment { time, running_requests: step % 1000, ..Moment::default() });
        }
        assert!(timeline.moments.len() < MAX_MOMENTS);
        assert_eq!(timeline.steps(), 100_000);
        let means = timeline.means();
        assert!(
            (means.duration - 100_000.0).abs() < 16.0 && (means.running_requests - 499.5).abs() < 10.0,
            "{means:?}"
        );
        assert_eq!(timeline.loaded_means(), means);
    }

    #[test]
    fn load_is_when_someone_waits() {
        let mut timeline = Timeline::default();
        for (waiting_requests, running_requests, duration) in [(1, 10, 2.0), (2, 20, 2.0), (0, 4, 4.0)] {
            timeline.step(duration, || Moment { waiting_requests, running_requests, ..Moment::default() });
        }
        assert_eq!(timeline.loaded_means().running_requests, 15.0);
        assert_eq!(timeline.means().running_requests, 9.5);
    }
}
