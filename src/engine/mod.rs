//! The engine core: a pure state machine over integers.
//!
//! Nothing in this folder touches a GPU, a file, a clock, a thread or a float, so a seed replays it exactly and the
//! simulator runs millions of steps on any machine.
//!
//! | file | what it is |
//! |---|---|
//! | `ids`, `batch`, `event`, `stats` | what crosses the border: identifiers, one step's work, tokens, counters |
//! | `config`, `request` | sizes, limits, and requests checked against them |
//! | `free_queue`, `block_pool`, `block_table` | free blocks, reference counts, who holds which block |
//! | `block_hash`, `prefix_cache`, `block_manager`, `block_event` | sharing: prefix hits, forks, copy-on-write |
//! | `sequence`, `request_state`, `requests` | tokens computed chasing tokens known |
//! | `host_pool`, `preempt` | how a request gives its blocks up, and gets them back |
//! | `scheduler`, `ahead`, `placement`, `lifecycle`, `invariants` | the step, the one after it, how they are filled, how sequences end, what must hold |
//! | `drafts` | tokens computed before they are known, to be several steps in one |
//! | `echo`, `simulator` | a device that checks what it reads, and random traffic against it |

mod ahead;
mod batch;
mod block_event;
mod block_hash;
mod block_manager;
mod block_pool;
mod block_table;
mod config;
mod drafts;
mod echo;
mod event;
mod free_queue;
mod host_pool;
mod ids;
mod invariants;
mod lifecycle;
mod placement;
mod planted;
mod preempt;
mod prefix_cache;
mod request;
mod request_state;
mod requests;
mod scheduler;
mod sequence;
pub mod simulator;
mod stats;

pub use batch::{Batch, BlockCopy, FedToken, SampleRow, ScheduledSeq, UNKNOWN_TOKEN};
pub use block_event::{BlockEvent, FullBlock};
pub use block_hash::{BlockHash, ExtraKeys};
pub use block_manager::{BlockManager, Reserved};
pub use block_pool::BlockPool;
pub use block_table::BlockTable;
pub use config::{Limits, Policy, SchedulerConfig};
pub use drafts::DraftConfig;
pub use echo::{EchoDevice, EchoHash, EchoHistory};
pub use event::{EndedRequest, FinishReason, RequestAccounting, SampledToken, TokenEvent};
pub use free_queue::FreeQueue;
pub use host_pool::{BlockSwap, PreemptionCosts};
pub use ids::{BlockId, RequestId, SeqId, TokenId};
pub use prefix_cache::PrefixCache;
pub use request::{Request, RequestError, RequestParams};
pub use scheduler::Scheduler;
pub use sequence::Sequence;
pub use stats::Stats;

/// Tokens in one KV block, unless configured otherwise (the simulator tries other sizes).
pub const DEFAULT_BLOCK_SIZE: u32 = 16;
