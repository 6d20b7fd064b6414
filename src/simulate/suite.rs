//! The runs that are compared with one another.

use serde::Serialize;

use super::contiguous::{self, Reserve};
use super::report::Report;
use super::workload::Workload;
use super::{Setup, paged};

/// Requests that the runs about sharing take, at most.
const SHARING_REQUESTS: usize = 300;

/// Which runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Block sizes to run paged with; the first one stands for paging among the policies.
    pub block_sizes: Vec<u32>,
    /// Policies without paging.
    pub reserve: Vec<Reserve>,
    /// Numbers of parallel samples, and widths of beam searches, whose sharing is measured.
    pub sharing: Vec<u32>,
}

/// Memory saved by sharing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sharing {
    /// `n` or `beam width`.
    pub kind: &'static str,
    /// How many sequences.
    pub num_seqs: u32,
    /// The run.
    pub report: Report,
}

/// All runs over one workload.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Suite {
    /// Paged, by block size.
    pub paged: Vec<Report>,
    /// Contiguous, by policy.
    pub contiguous: Vec<Report>,
    /// Paged, by number of samples and of beams.
    pub sharing: Vec<Sharing>,
}

impl Suite {
    /// Runs everything in `plan`, one after the other; `setup` must be sound ([`Setup::check`]).
    pub fn run(workload: &Workload, setup: &Setup, plan: &Plan) -> Suite {
        let few = workload.head(SHARING_REQUESTS);
        let mut sharing = Vec::new();
        for (kind, beams) in [("n", false), ("beam width", true)] {
            for &num_seqs in &plan.sharing {
                let (n, beam_width) = if beams { (1, num_seqs) } else { (num_seqs, 1) };
                let setup = Setup { n, beam_width, ..*setup };
                sharing.push(Sharing { kind, num_seqs, report: paged::run(&few, &setup, plan.sharing_block_size()) });
            }
        }
        Suite {
            paged: plan.block_sizes.iter().map(|&block_size| paged::run(workload, setup, block_size)).collect(),
            contiguous: plan.reserve.iter().map(|&reserve| contiguous::run(workload, setup, reserve)).collect(),
            sharing,
        }
    }

    /// The policies side by side: paging with its first block size, then those without it.
    pub fn policies(&self) -> impl Iterator<Item = &Report> {
        self.paged.first().into_iter().chain(&self.contiguous)
    }
}

impl Plan {
    fn sharing_block_size(&self) -> u32 {
        self.block_sizes.first().copied().unwrap_or(crate::engine::DEFAULT_BLOCK_SIZE)
    }
}
