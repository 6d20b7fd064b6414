//! Where the time of a step goes.

use std::time::Duration;

/// The parts of one [`step`](super::Llm::step), in their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepTimes {
    /// Deciding what is computed.
    pub schedule: Duration,
    /// Swaps, and everything up to the submit: metadata, commands.
    pub encode: Duration,
    /// Waiting for the device.
    pub wait: Duration,
    /// Tokens from what came back: the host's sampler, beams.
    pub sample: Duration,
    /// The scheduler's update, and text.
    pub update: Duration,
}

impl StepTimes {
    /// What the host does itself: everything but waiting for the device.
    pub fn host(&self) -> Duration {
        self.schedule + self.encode + self.sample + self.update
    }
}
