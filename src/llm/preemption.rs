//! How preempted requests come back, and what either way costs on this device, measured as it runs.

use crate::engine::PreemptionCosts;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What becomes of the blocks of a preempted request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PreemptionMode {
    /// For each request whichever is faster, by what copies and computation have taken so far.
    #[default]
    Auto,
    /// They are given up, and their tokens computed again.
    Recompute,
    /// They are copied to the host while it has room, and back.
    Swap,
}

impl FromStr for PreemptionMode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(Self::Auto),
            "recompute" => Ok(Self::Recompute),
            "swap" => Ok(Self::Swap),
            _ => Err("must be auto, recompute or swap".to_owned()),
        }
    }
}

impl fmt::Display for PreemptionMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Recompute => "recompute",
            Self::Swap => "swap",
        })
    }
}

/// Steps of fewer tokens say little about recomputation, which takes many tokens at once.
const FEWEST_TOKENS: usize = 16;
/// Weight of the newest measurement.
const NEWEST: f64 = 0.2;

/// Running means of what a token and a block copy take, in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct CostMeter {
    compute_token: Option<f64>,
    copy_block: Option<f64>,
}

impl CostMeter {
    /// A step of `tokens` tokens took so long.
    pub(super) fn computed(&mut self, tokens: usize, took: Duration) {
        if tokens >= FEWEST_TOKENS {
            update(&mut self.compute_token, took, tokens as f64);
        }
    }

    /// Copies of `blocks` blocks took so long.
    pub(super) fn copied(&mut self, blocks: u32, took: Duration) {
        update(&mut self.copy_block, took, f64::from(blocks));
    }

    /// The costs, once both have been seen. Until then the scheduler swaps.
    pub(super) fn costs(&self) -> Option<PreemptionCosts> {
        let (compute_token, copy_block) = (self.compute_token?, self.copy_block?);
        Some(PreemptionCosts { compute_token: compute_token as u64, copy_block: copy_block as u64 })
    }
}

fn update(mean: &mut Option<f64>, took: Duration, things: f64) {
    let newest = took.as_nanos() as f64 / things;
    *mean = Some(mean.map_or(newest, |mean| mean + NEWEST * (newest - mean)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_known_once_both_have_been_seen() {
        let mut meter = CostMeter::default();
        meter.computed(FEWEST_TOKENS - 1, Duration::from_secs(1));
        meter.copied(4, Duration::from_nanos(40));
        assert_eq!(meter.costs(), None);
        meter.computed(100, Duration::from_nanos(1000));
        assert_eq!(meter.costs(), Some(PreemptionCosts { compute_token: 10, copy_block: 10 }));
        meter.copied(1, Duration::from_nanos(60));
        assert_eq!(meter.costs(), Some(PreemptionCosts { compute_token: 10, copy_block: 20 }));
    }
}
