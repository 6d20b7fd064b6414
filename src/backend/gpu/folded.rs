//! What a product's kernel computes beside its sums.

use super::super::{AttentionShape, KvDtype, RopePairing};

/// What is folded into a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::backend) struct Folded {
    /// x is normalised as it is read.
    pub(in crate::backend) norm: bool,
    /// What becomes of the sums.
    pub(in crate::backend) epilogue: Epilogue,
}

/// What a product does with its sums.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::backend) enum Epilogue {
    /// They are out.
    Plain,
    /// The weight's rows are as many gates and then ups, out is `silu(gate) * up`.
    Gate,
    /// As `rope_and_cache` of a KV pool of floats, out is q.
    RopeAndCache {
        /// The heads.
        shape: AttentionShape,
        /// Elements of the pool.
        kv: KvDtype,
        /// Which elements turn together.
        pairing: RopePairing,
    },
}

impl Epilogue {
    /// Rows of the weight that make one column.
    pub(in crate::backend) fn parts(self) -> u32 {
        match self {
            Self::Plain => 1,
            Self::Gate | Self::RopeAndCache { .. } => 2,
        }
    }

    /// Rows of the weight whose sums must meet for a column to leave; of two elements of a pool that may share a word, two
    /// columns leave at once.
    pub(in crate::backend) fn least_rows(self) -> u32 {
        match self {
            Self::Plain => 1,
            Self::Gate => 2,
            Self::RopeAndCache { .. } => 4,
        }
    }
}
