//! Text in, text out.
//!
//! - [`Tokenizer`]: text to token ids and back, from a `tokenizer.json` or from GGUF metadata ([`GgufVocab`]).
//! - [`ChatTemplate`]: [`Message`]s to a prompt, as [`Span`]s: special tokens are honoured in the template's own text
//!   and never in the user's, so that nobody can type `<|im_end|>` and speak for someone else.
//! - [`Detokenizer`]: one sampled token at a time to text, never splitting a character.
//! - [`StopStrings`]: where a completion ends.

mod added_tokens;
mod chat_inputs;
mod chat_spans;
mod chat_template;
mod detokenizer;
mod error;
mod gguf_vocab;
mod message;
mod source;
mod span;
mod stop;
mod template_env;
mod tokenizer;

pub use chat_inputs::ChatInputs;
pub use chat_template::ChatTemplate;
pub use detokenizer::Detokenizer;
pub use error::TextError;
pub use gguf_vocab::GgufVocab;
pub use message::Message;
pub use span::Span;
pub use stop::{StopOutcome, StopStrings};
pub use tokenizer::Tokenizer;
