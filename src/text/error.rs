//! What can go wrong between text and tokens.

use std::path::PathBuf;

use crate::model::LoadError;

/// An error of the tokenizer or of the chat template.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A file of the model folder could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A tokenizer file or JSON document could not be understood.
    #[error("{what} is not usable: {reason}")]
    Parse {
        /// The file or the part of it.
        what: String,
        /// Why.
        reason: String,
    },
    /// The checkpoint's metadata is malformed.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A GGUF vocabulary of a kind that cannot be rebuilt.
    #[error(
        "this GGUF's tokenizer ({field} = \"{value}\") is not supported; supported are: {supported}. Use the model's \
         Hugging Face folder (tokenizer.json) instead"
    )]
    UnsupportedVocab {
        /// The GGUF metadata key.
        field: &'static str,
        /// Its value.
        value: String,
        /// The values that work.
        supported: &'static str,
    },
    /// Encoding or decoding failed inside the tokenizer.
    #[error("the tokenizer cannot {action} this: {reason}")]
    Tokenizer {
        /// `encode` or `decode`.
        action: &'static str,
        /// Why.
        reason: String,
    },
    /// The chat template itself is wrong, or refused the messages (`raise_exception`), or ran out of its budget.
    #[error("chat template: {reason}")]
    Template {
        /// Message, line and cause as the template engine tells them.
        reason: String,
    },
    /// The model comes without a chat template.
    #[error("this model has no chat template; use plain completions, or give a template file")]
    NoTemplate,
    /// A message a chat template must not see.
    #[error("messages[{index}].{field}: {reason}")]
    Message {
        /// Position of the message.
        index: usize,
        /// The field of it.
        field: &'static str,
        /// What is allowed.
        reason: String,
    },
    /// A variable that a chat template must not be given.
    #[error("chat_template_kwargs: `{name}`: {reason}")]
    Variable {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Special-token text in a tool.
    #[error("`tools` contain the text of a special token ({token:?}), which cannot be passed on safely: break it up")]
    SpecialTextInTools {
        /// The special token's text.
        token: String,
    },
    /// Special-token text in a message that the template rewrites, so that it cannot be told from the template's own.
    #[error(
        "messages[{index}] contains the text of a special token ({token:?}) and the chat template rewrites that \
         message, so it cannot be passed on safely; remove or break up this text"
    )]
    SpecialText {
        /// Position of the first such message.
        index: usize,
        /// The special token's text.
        token: String,
    },
}
