//! What goes between the routes and the engine's thread.

use crate::engine::{RequestId, TokenId};
use crate::llm::Event;
use crate::openai::ApiError;
use crate::sampling::SamplingParams;
use crate::structured::Grammar;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

/// The prompts of one request to the server, and how to continue them.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Token ids of each prompt.
    pub prompts: Vec<Vec<TokenId>>,
    /// How to sample.
    pub params: SamplingParams,
    /// Lower is served first, under [`crate::engine::Policy::Priority`].
    pub priority: i32,
    /// Prefixes are shared only among requests of one salt.
    pub cache_salt: Option<Vec<u8>>,
    /// The compiled form of [`SamplingParams::structured_outputs`].
    pub grammar: Option<Grammar>,
}

/// What the engine's thread answers to a submission.
#[derive(Debug)]
pub(super) enum Answer {
    /// It was taken in: an id for each prompt.
    Accepted(Vec<RequestId>),
    /// Something happened to the prompt of this index.
    Event(usize, Event),
    /// It was refused, or the engine failed: nothing more will come.
    Failed(ApiError),
}

/// Whether the engine's thread runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineState {
    /// It does.
    Running,
    /// It was told to end.
    Stopped,
    /// The device failed.
    Failed(String),
}

/// What the thread is told.
pub(super) enum Command {
    Submit { ticket: u64, submission: Box<Submission>, sender: UnboundedSender<Answer>, submitted: Instant },
    Abort(u64),
    ResetPrefixCache,
    Stop,
}
