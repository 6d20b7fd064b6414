//! The engine core on recorded or made-up requests, with no GPU: how much KV memory paging saves, and what that buys.
//!
//! | file | what it is |
//! |---|---|
//! | `workload`, `trace`, `random` | requests: synthetic ones from a seed, recorded ones from a file |
//! | `cost`, `queue` | how long a step takes, and who has arrived by then |
//! | `paged` | the engine's own [`crate::engine::Scheduler`], forks, beams and all |
//! | `contiguous`, `address_space` | engines without paging: one range of slots for each sequence |
//! | `timeline`, `report` | what memory holds over time, and what a run amounts to |
//! | `suite` | the runs that are compared with one another |

mod address_space;
mod contiguous;
mod cost;
mod paged;
mod queue;
mod random;
mod report;
mod suite;
mod timeline;
mod trace;
mod workload;

use thiserror::Error;

pub use address_space::{AddressSpace, Layout, Range};
pub use contiguous::Reserve;
pub use cost::{CostModel, MODELS, ModelShape, StepWork};
pub use report::{PagedCounts, Report};
pub use suite::{Plan, Sharing, Suite};
pub use timeline::{Means, Moment};
pub use trace::{TraceError, read as read_trace};
pub use workload::{Arrival, Clock, Length, MAX_REQUESTS, OutOfRange, Synthetic, Workload, preset};

/// What all policies have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setup {
    /// Slots of the KV memory: tokens whose keys and values it holds.
    pub num_slots: u64,
    /// Sequences that run at the same time, at most.
    pub max_num_seqs: u32,
    /// Tokens computed in one step, at most.
    pub max_num_batched_tokens: u32,
    /// Tokens of one sequence, at most.
    pub max_model_len: u32,
    /// Whether paging shares full blocks among requests with the same prefix.
    pub enable_prefix_caching: bool,
    /// How contiguous ranges are laid out.
    pub layout: Layout,
    /// Parallel samples of each request.
    pub n: u32,
    /// Beams of each request; 1 for no beam search.
    pub beam_width: u32,
    /// Share of a request's beams that one step replaces by forks of others.
    pub beam_replacement: f64,
    /// Model and device.
    pub cost: CostModel,
    /// Seed of what is random in a run.
    pub seed: u64,
}

/// Slots at most: their bookkeeping takes about 90 bytes each with blocks of one token.
const MAX_SLOTS: u64 = 1 << 26;

/// Sequences that run at the same time, at most.
const MAX_SEQS: u32 = 65_536;

/// A setup that cannot be run.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SetupError {
    /// A number out of its range.
    #[error("{name} is {value}: it must be {low} to {high}")]
    OutOfRange {
        /// What it is called.
        name: &'static str,
        /// What it is.
        value: u64,
        /// The least that it may be.
        low: u64,
        /// The most that it may be.
        high: u64,
    },
    /// A number that is no positive number, or no share.
    #[error("{name} is {value}: it must be {range}")]
    NotInRange {
        /// What it is called.
        name: &'static str,
        /// What it is.
        value: f64,
        /// What it may be.
        range: &'static str,
    },
    /// Both kinds of decoding with several sequences.
    #[error("n is {n} and beam-width is {beam_width}: parallel samples or beams, not both")]
    SamplesAndBeams {
        /// Parallel samples.
        n: u32,
        /// Beams.
        beam_width: u32,
    },
}

impl Setup {
    /// Sequences of each request.
    pub fn seqs_per_request(&self) -> u32 {
        self.n.max(self.beam_width)
    }

    /// Says which value makes no sense, before anything is allocated.
    pub fn check(&self) -> Result<(), SetupError> {
        let max_num_seqs = u64::from(self.max_num_seqs);
        let ranges = [
            ("slots of the KV memory (bytes / bytes per token)", self.num_slots, 1, MAX_SLOTS),
            ("max-num-seqs", max_num_seqs, 1, u64::from(MAX_SEQS)),
            ("max-num-batched-tokens", u64::from(self.max_num_batched_tokens), max_num_seqs, 1 << 24),
            ("max-model-len", u64::from(self.max_model_len), 2, 1 << 24),
            ("n", u64::from(self.n), 1, max_num_seqs),
            ("beam-width", u64::from(self.beam_width), 1, max_num_seqs),
        ];
        for (name, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return Err(SetupError::OutOfRange { name, value, low, high });
            }
        }
        let positive = |value: f64| value > 0.0 && value.is_finite();
        let reals = [
            ("bandwidth", self.cost.bandwidth_bytes_per_s, "above 0", positive(self.cost.bandwidth_bytes_per_s)),
            ("flops", self.cost.flops_per_s, "above 0", positive(self.cost.flops_per_s)),
            ("beam-replacement", self.beam_replacement, "0 to 1", (0.0..=1.0).contains(&self.beam_replacement)),
        ];
        if let Some((name, value, range, _)) = reals.into_iter().find(|real| !real.3) {
            return Err(SetupError::NotInRange { name, value, range });
        }
        if self.n > 1 && self.beam_width > 1 {
            return Err(SetupError::SamplesAndBeams { n: self.n, beam_width: self.beam_width });
        }
        Ok(())
    }
}
