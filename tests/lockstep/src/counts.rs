//! What dispatches did, for whoever wants to know what kernels cost on a GPU.
//!
//! Operations count for a subgroup, whether all of its invocations take part or one. What is the same in all invocations (loop
//! counters, parameters, addresses of rows) is not counted: compilers unroll it, or give it to a scalar unit. A product and the
//! sum that takes it are one operation, and so are bits that are masked and set. Where memory has banks and sectors, they are
//! those that most GPUs have: 32 banks of a word, sectors of 32 bytes.

use super::commands::lock;
use std::sync::{Arc, Mutex};

/// Counts the dispatches of a device. Clones count together.
#[derive(Debug, Clone)]
pub struct Meter {
    most_workgroups: u32,
    dispatches: Arc<Mutex<Vec<Counts>>>,
}

impl Meter {
    /// Counts so many workgroups of each dispatch, spread over its grid, and runs no others: large models' kernels take no time
    /// to count, but do only that part.
    pub fn new(most_workgroups: u32) -> Self {
        Self { most_workgroups, dispatches: Arc::default() }
    }

    /// What was counted since it was last asked, dispatch by dispatch.
    pub fn take(&self) -> Vec<Counts> {
        std::mem::take(&mut *lock(&self.dispatches))
    }

    pub(crate) fn add(&self, counts: Counts) {
        lock(&self.dispatches).push(counts);
    }

    /// Whether this is one of the workgroups that are run.
    pub(crate) fn samples(&self, workgroup: u32, of: u32) -> bool {
        let most = u64::from(self.most_workgroups.min(of));
        let samples_before = |workgroup: u32| u64::from(workgroup) * most / u64::from(of);
        samples_before(workgroup) != samples_before(workgroup + 1)
    }
}

/// What a dispatch did, in the workgroups that were run.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// The entry point.
    pub kernel: String,
    /// Workgroups of the dispatch.
    pub workgroups: u32,
    /// How many of them were run.
    pub sampled: u32,
    /// Invocations of a workgroup.
    pub workgroup_size: usize,
    /// Invocations of a subgroup.
    pub subgroup_size: usize,
    /// Operations at full rate: floats and integers, comparisons, selections, addresses.
    pub operations: u64,
    /// Conversions between integers and floats, and of f16.
    pub conversions: u64,
    /// Exponentials, roots, divisions.
    pub special: u64,
    /// Shuffles, and rounds of sums over subgroups.
    pub exchanges: u64,
    /// Multiply-adds of cooperative matrices, each one of the subgroup's, not a matrix.
    pub matrix_multiply_adds: u64,
    /// Operations, conversions and special functions by line, in the order of the first.
    pub lines: Vec<(String, u64)>,
    /// By what is accessed and where, in the order of the first access.
    pub accesses: Vec<Access>,
    /// What the buffers gave and took.
    pub buffers: Vec<Traffic>,
}

/// The accesses of a line to a buffer or a variable of a workgroup.
#[derive(Debug, Clone)]
pub struct Access {
    /// The buffer or variable.
    pub memory: String,
    /// Whether it is a workgroup's.
    pub is_of_workgroup: bool,
    /// Whether it writes.
    pub writes: bool,
    /// The kernel's line.
    pub line: String,
    /// One for each subgroup that loads or stores a scalar or a vector.
    pub requests: u64,
    /// Different words of each request.
    pub words: u64,
    /// How often a request must wait for a bank: words that the fullest bank gives of each. As wide words are given to fewer
    /// invocations at a time, it is at least 4 where 32 load a `vec4`.
    pub passes: u64,
    /// Passes that as many words would take if their banks were all different.
    pub fewest_passes: u64,
    /// Different sectors of each request.
    pub sectors: u64,
}

/// What comes from and goes to a buffer, taken that a workgroup's cache holds all that it asked for before.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// The buffer.
    pub buffer: String,
    /// Bytes of the different words of each workgroup.
    pub used_bytes: u64,
    /// Bytes of the sectors that these are in.
    pub moved_bytes: u64,
}
