//! Either kind of request, for whoever serves both.

use serde_json::Value;

use super::{
    ApiError, ChatCompletionRequest, CommonFields, CompletionRequest, Reply, chat_response, completion_response,
};
use crate::engine::TokenId;
use crate::llm::RequestOutput;
use crate::text::{ChatTemplate, Message, Tokenizer};

/// A body of one of the endpoints that generate.
#[derive(Debug, Clone, PartialEq)]
pub enum GenerateRequest {
    /// `/v1/completions`.
    Completion(CompletionRequest),
    /// `/v1/chat/completions`.
    Chat(ChatCompletionRequest),
}

impl GenerateRequest {
    /// What is common to both.
    pub fn common(&self) -> &CommonFields {
        match self {
            Self::Completion(request) => &request.common,
            Self::Chat(request) => &request.common,
        }
    }

    /// What an answer's id begins with.
    pub fn id_prefix(&self) -> &'static str {
        match self {
            Self::Completion(_) => "cmpl",
            Self::Chat(_) => "chatcmpl",
        }
    }

    /// Bytes of text that are to be tokenised.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Completion(request) => request.prompts.iter().map(super::Prompt::text_bytes).max().unwrap_or(0),
            Self::Chat(request) => {
                let in_message = |message: &Message| {
                    let others = message.extra.iter().map(|(key, value)| key.len() + text_bytes(value));
                    text_bytes(&message.content) + others.sum::<usize>()
                };
                let messages: usize = request.messages.iter().map(in_message).sum();
                let variables = request.template_variables.iter().map(|(name, value)| name.len() + text_bytes(value));
                messages + request.tools.offered.iter().map(text_bytes).chain(variables).sum::<usize>()
            }
        }
    }

    /// The token ids of each prompt, cut as `truncate_prompt_tokens` says.
    ///
    /// # Errors
    /// When the tokenizer or the template refuses, or there is none and one is needed.
    pub fn token_ids(
        &self,
        tokenizer: Option<&Tokenizer>,
        template: Option<&ChatTemplate>,
        max_model_len: u32,
    ) -> Result<Vec<Vec<TokenId>>, ApiError> {
        let mut prompts = match self {
            Self::Completion(request) => request.token_ids(tokenizer)?,
            Self::Chat(request) => match (template, tokenizer) {
                (Some(template), Some(tokenizer)) => vec![request.token_ids(template, tokenizer)?],
                (_, None) => {
                    return Err(ApiError::bad_request(
                        "the model has no tokenizer: send token ids to /v1/completions instead",
                    ));
                }
                (None, _) => {
                    return Err(ApiError::bad_request(
                        "the model has no usable chat template: send the whole prompt to /v1/completions instead",
                    ));
                }
            },
        };
        prompts.iter_mut().try_for_each(|prompt| self.common().truncate(prompt, max_model_len))?;
        Ok(prompts)
    }

    /// The answer's body; `outputs` are those of the prompts, in order, all of them done.
    ///
    /// # Errors
    /// When a sequence ended by an error of ours.
    pub fn response(&self, outputs: &[RequestOutput], reply: Reply<'_>) -> Result<Value, ApiError> {
        match self {
            Self::Completion(request) => completion_response(request, outputs, reply),
            Self::Chat(request) => chat_response(request, &outputs[0], reply),
        }
    }
}

/// Bytes of all texts in a value.
fn text_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(text_bytes).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + text_bytes(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}
