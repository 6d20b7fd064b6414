//! What a step tells.

use crate::engine::{RequestAccounting, RequestId, TokenId};
use crate::sampling::TokenLogprobs;

/// Why a sequence ended.
#[derive(Debug, Clone, PartialEq)]
pub enum FinishCause {
    /// The end-of-sequence token.
    Eos,
    /// A token of `stop_token_ids`.
    StopToken(TokenId),
    /// A string of `stop`.
    StopString(String),
    /// `max_tokens`, or the longest sequence.
    Length,
    /// Its logits cannot be sampled from.
    Error(String),
    /// What the request asks for leaves no token, or takes more work than a token may.
    Refused(String),
}

/// The end of a sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// Why.
    pub cause: FinishCause,
    /// Of a beam search: sum of the log probabilities / (tokens ^ `length_penalty`).
    pub score: Option<f64>,
}

impl Finish {
    /// OpenAI's `finish_reason`: `stop`, `length` or `error`.
    pub fn reason(&self) -> &'static str {
        match self.cause {
            FinishCause::Eos | FinishCause::StopToken(_) | FinishCause::StopString(_) => "stop",
            FinishCause::Length => "length",
            FinishCause::Error(_) | FinishCause::Refused(_) => "error",
        }
    }
}

/// One more token of one sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenUpdate {
    /// The request.
    pub request: RequestId,
    /// Which of its sequences.
    pub index: u32,
    /// The token; `None` when the sequence ended without one.
    pub token: Option<TokenId>,
    /// Its log probabilities, if asked for.
    pub logprobs: Option<TokenLogprobs>,
    /// Text that is certain now: what the token completes, less what may begin a stop string.
    pub text: String,
    /// Set on the last update of the sequence.
    pub finish: Option<Finish>,
}

/// What happened to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Log probabilities of some prompt tokens, in order; each prompt token but the first comes once.
    PromptLogprobs {
        /// The request.
        request: RequestId,
        /// Position of the first of them in the prompt.
        first_position: u32,
        /// One for each token.
        logprobs: Vec<TokenLogprobs>,
    },
    /// A token, or the end of a sequence. A beam search is silent until it ends; then come all tokens of the best
    /// completion, of the second best, and so on.
    Token(TokenUpdate),
    /// The request's last sequence has ended, and its blocks are back.
    Done {
        /// The request.
        request: RequestId,
        /// What it has cost.
        accounting: RequestAccounting,
    },
}

impl Event {
    /// The request it is about.
    pub fn request(&self) -> RequestId {
        match self {
            Self::PromptLogprobs { request, .. } | Self::Done { request, .. } => *request,
            Self::Token(update) => update.request,
        }
    }
}
