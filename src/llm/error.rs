//! What can go wrong with an [`super::Llm`].

use crate::backend::BackendError;
use crate::engine::{RequestError, TokenId};
use crate::model::LoadError;
use crate::sampling::ParamError;
use crate::structured::GrammarError;
use crate::text::TextError;

/// An error of loading or running a model.
#[derive(Debug, thiserror::Error)]
pub enum LlmError {
    /// The checkpoint is not usable.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The device failed, or is too small.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// What a completion must look like cannot be.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
    /// Tokenizer or chat template.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The chat template is missing or not valid.
    #[error("{0}")]
    ChatTemplate(String),
    /// The model came without a tokenizer.
    #[error("{0}; give one with --tokenizer, or send token ids")]
    NoTokenizer(String),
    /// An option has a value that cannot be.
    #[error("{option} {value}: {allowed}")]
    Option {
        /// The option, as the command line spells it.
        option: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// The KV pool would be too small for anything.
    #[error("{0}")]
    KvMemory(String),
    /// The client's sampling parameters.
    #[error(transparent)]
    Param(#[from] ParamError),
    /// The client's request can never be served.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A prompt token that the model does not have.
    #[error("token id {token} is not in the vocabulary of {vocab_size} tokens")]
    UnknownToken {
        /// The token.
        token: TokenId,
        /// Tokens of the model.
        vocab_size: u32,
    },
}

impl LlmError {
    /// Whether the request was at fault, and not the model, the device or the options: others can go on.
    pub fn is_request_error(&self) -> bool {
        matches!(
            self,
            Self::Param(_)
                | Self::Request(_)
                | Self::UnknownToken { .. }
                | Self::Grammar(_)
                | Self::Text(_)
                | Self::ChatTemplate(_)
        )
    }
}
