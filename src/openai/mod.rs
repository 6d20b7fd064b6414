//! OpenAI's wire types, with vLLM's extra fields: bodies in, bodies out, no transport.
//!
//! - [`CompletionRequest`], [`ChatCompletionRequest`]: a JSON body to prompts and [`crate::sampling::SamplingParams`].
//! - [`ApiError`]: what was wrong with it, in OpenAI's error shape.
//! - [`GenerateRequest`]: either of them.
//! - [`StreamedResponse`]: engine events to the chunks of a streamed answer.
//! - [`completion_response`], [`chat_response`]: [`crate::llm::RequestOutput`]s to the answer's body.
//!
//! A field that would change the answer and is not supported is refused; a field that nobody here knows is ignored, as
//! OpenAI's and vLLM's servers do.

mod body;
mod call_finder;
mod chat;
mod completion;
mod error;
mod fields;
mod logprobs;
mod response;
mod sampling;
mod stream;
mod structured;
#[cfg(test)]
mod tests;
mod tools;

pub use body::GenerateRequest;
pub use chat::ChatCompletionRequest;
pub use completion::{CompletionRequest, Prompt};
pub use error::ApiError;
pub use response::{Reply, chat_response, completion_response};
pub use sampling::{CommonFields, StreamOptions};
pub use stream::{StreamReply, StreamedResponse};
pub use tools::{ToolChoice, Tools};
