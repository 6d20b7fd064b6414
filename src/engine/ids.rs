//! Newtypes for the engine's identifiers.

use std::fmt;

/// A token of the model's vocabulary.
pub type TokenId = u32;

/// A request, numbered by whoever submits it; unique while the request lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One sequence of a request: request and sample index (0 for the first, 1.. for its forks).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqId {
    /// The request this sequence belongs to.
    pub request: RequestId,
    /// Which of the request's sequences.
    pub index: u32,
}

/// A physical KV block: an index into the block pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for SeqId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.request, self.index)
    }
}
