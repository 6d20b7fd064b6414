//! The engine core: a pure state machine over integers.
//!
//! Nothing in this folder touches a GPU, a file, a clock, a thread or a float, so a seed replays it exactly and the
//! simulator runs millions of steps on any machine.

mod batch;
mod ids;

pub use batch::{Batch, BlockCopy, ScheduledSeq};
pub use ids::{BlockId, RequestId, SeqId, TokenId};

/// Tokens in one KV block, unless configured otherwise (the simulator tries other sizes).
pub const DEFAULT_BLOCK_SIZE: u32 = 16;
