//! Where the time of all steps so far went.

use crate::backend::{ForwardProfile, ProfileClock};
use std::collections::BTreeMap;
use std::time::Duration;

/// Sums over the steps since profiling began ([`LlmOptions::profile`](super::LlmOptions::profile)).
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Where the devices' times come from.
    pub clock: ProfileClock,
    /// Steps.
    pub steps: u64,
    /// By name of the kernel.
    pub kernels: BTreeMap<&'static str, KernelTimes>,
    /// On the host.
    pub host: HostTimes,
    /// Seconds from one dispatch's end to the next one's begin, within steps. Timestamps in one pass leave what two dispatches
    /// wait for each other to the later one, so that little is seen of it there.
    pub idle_in_steps_s: f64,
    /// Seconds from a step's last dispatch to the next step's first, as long as there was work. No step is submitted ahead while
    /// profiling, so that without it there is less of this on a GPU.
    pub idle_between_steps_s: f64,
    /// When the last dispatch ended, unless there was nothing to do since.
    last_end_ns: Option<u64>,
}

/// All dispatches of one kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct KernelTimes {
    /// How many.
    pub dispatches: u64,
    /// Seconds on the device.
    pub seconds: f64,
}

/// The parts of a step, as the host sees them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostTimes {
    /// Choosing what the step computes.
    pub schedule: Duration,
    /// Copying blocks to and from the host.
    pub swap: Duration,
    /// What the step needs back, metadata, recording, submitting.
    pub encode: Duration,
    /// From then until the results were there: the device's time is within.
    pub wait: Duration,
    /// Sampling, logprobs, beams.
    pub sample: Duration,
    /// Taking tokens in: scheduler, detokenizer, events.
    pub update: Duration,
}

impl HostTimes {
    /// What the host does itself: all but waiting for the device.
    pub fn busy(&self) -> Duration {
        self.schedule + self.swap + self.encode + self.sample + self.update
    }

    /// The parts and their names.
    pub fn parts(&self) -> [(&'static str, Duration); 6] {
        [
            ("schedule", self.schedule),
            ("swap", self.swap),
            ("encode", self.encode),
            ("wait", self.wait),
            ("sample", self.sample),
            ("update", self.update),
        ]
    }
}

impl Profile {
    pub(super) fn new(clock: ProfileClock) -> Self {
        Self {
            clock,
            steps: 0,
            kernels: BTreeMap::new(),
            host: HostTimes::default(),
            idle_in_steps_s: 0.0,
            idle_between_steps_s: 0.0,
            last_end_ns: None,
        }
    }

    /// Adds a step. `has_more`: whether another step follows at once.
    pub(super) fn add(&mut self, forward: &ForwardProfile, host: HostTimes, has_more: bool) {
        self.steps += 1;
        let sum = &mut self.host;
        sum.schedule += host.schedule;
        sum.swap += host.swap;
        sum.encode += host.encode;
        sum.wait += host.wait;
        sum.sample += host.sample;
        sum.update += host.update;
        let mut end = self.last_end_ns;
        for (index, dispatch) in forward.dispatches.iter().enumerate() {
            let times = self.kernels.entry(dispatch.kernel).or_default();
            times.dispatches += 1;
            times.seconds += dispatch.seconds();
            let idle_s = end.map_or(0.0, |end| dispatch.begin_ns.saturating_sub(end) as f64 / 1e9);
            if index == 0 {
                self.idle_between_steps_s += idle_s;
            } else {
                self.idle_in_steps_s += idle_s;
            }
            end = Some(dispatch.end_ns);
        }
        self.last_end_ns = end.filter(|_| has_more);
    }

    /// Seconds that the device computed.
    pub fn device_s(&self) -> f64 {
        self.kernels.values().map(|times| times.seconds).sum()
    }

    /// Dispatches of all kernels.
    pub fn dispatches(&self) -> u64 {
        self.kernels.values().map(|times| times.dispatches).sum()
    }

    /// The kernels, the one that took longest first.
    pub fn by_time(&self) -> Vec<(&'static str, KernelTimes)> {
        let mut kernels: Vec<(&'static str, KernelTimes)> = self.kernels.iter().map(|(&k, &t)| (k, t)).collect();
        kernels.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
        kernels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::DispatchTime;

    fn forward(times: &[(&'static str, u64, u64)]) -> ForwardProfile {
        let dispatches = times.iter().map(|&(kernel, begin_ns, end_ns)| DispatchTime { kernel, begin_ns, end_ns });
        ForwardProfile { dispatches: dispatches.collect() }
    }

    #[test]
    fn bubbles_are_within_steps_or_between_them() {
        let mut profile = Profile::new(ProfileClock::InPass);
        let ns = |seconds: f64| (seconds * 1e9).round() as u64;
        profile.add(&forward(&[("a", 100, 200), ("b", 230, 300)]), HostTimes::default(), true);
        profile.add(&forward(&[("a", 350, 400)]), HostTimes::default(), false);
        // After a pause without work.
        profile.add(&forward(&[("a", 9_000, 9_010), ("b", 9_011, 9_012)]), HostTimes::default(), true);
        assert_eq!((ns(profile.idle_in_steps_s), ns(profile.idle_between_steps_s)), (31, 50));
        assert_eq!((profile.steps, profile.dispatches(), ns(profile.device_s())), (3, 5, 231));
        assert_eq!(profile.by_time()[0].0, "a");
        assert_eq!(profile.kernels["b"].dispatches, 2);
    }
}
