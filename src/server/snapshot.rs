//! What the engine thread tells whoever watches it.

use crate::engine::{RequestId, Stats};
use crate::llm::{Event, Llm};
use std::time::{Duration, Instant};

/// The engine's numbers after a step, published for everybody: reading them costs the engine nothing.
#[derive(Debug, Clone, Copy)]
pub struct StepSnapshot {
    /// The scheduler's counters and gauges.
    pub stats: Stats,
    /// When they were taken.
    pub at: Instant,
}

impl StepSnapshot {
    pub(super) fn of(llm: &Llm) -> Self {
        Self { stats: llm.stats(), at: Instant::now() }
    }
}

/// What happened from one step to the next.
#[derive(Debug, Clone, Copy)]
pub struct StepReport<'a> {
    /// The counters after it.
    pub snapshot: StepSnapshot,
    /// When the step began; `None` when requests only came or went.
    pub began: Option<Instant>,
    /// How long it took.
    pub duration: Duration,
    /// Tokens and ends of requests, in order.
    pub events: &'a [Event],
    /// Requests taken in before it.
    pub arrived: &'a [Arrival],
    /// Requests aborted before it: no event tells of them any more.
    pub aborted: &'a [RequestId],
    /// Submissions refused before it because too many requests were waiting.
    pub rejected: u64,
}

/// A request that the engine has taken in.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Its id.
    pub request: RequestId,
    /// When it was handed to the engine's queue.
    pub submitted: Instant,
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    /// Completions it asks for.
    pub n: u32,
    /// Sequences that are generated for them.
    pub num_sequences: u32,
    /// Tokens of each, at most; `None` for as many as there is room for.
    pub max_tokens: Option<u32>,
}

/// Somebody who is told after each step, on the engine's thread: be quick. Metrics, KV events and the block map are
/// observers.
pub trait StepObserver: Send {
    /// The engine is about to serve its first request.
    fn start(&mut self, _llm: &mut Llm) {}

    /// A step is done. `llm` is idle; its scheduler shows blocks and tables, its batch what was computed.
    fn after_step(&mut self, llm: &mut Llm, report: &StepReport<'_>);
}
