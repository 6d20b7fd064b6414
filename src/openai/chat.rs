//! The body of `/v1/chat/completions`.

use serde_json::{Map, Value};

use super::ApiError;
use super::fields::Fields;
use super::sampling::CommonFields;
use super::tools::Tools;
use crate::engine::TokenId;
use crate::sampling::SamplingParams;
use crate::text::{ChatInputs, ChatTemplate, Message, Tokenizer};

/// A request to answer a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatCompletionRequest {
    /// The conversation, at least one message.
    pub messages: Vec<Message>,
    /// Whether the prompt ends with the beginning of the assistant's answer.
    pub add_generation_prompt: bool,
    /// Functions that the model may call.
    pub tools: Tools,
    /// Variables of the chat template: `chat_template_kwargs`.
    pub template_variables: Map<String, Value>,
    /// Everything else.
    pub common: CommonFields,
}

impl ChatCompletionRequest {
    /// Reads a body; `default` has the sampling parameters that it leaves out.
    ///
    /// # Errors
    /// The first field that is wrong. Ranges are checked by [`crate::sampling::SamplingParams::validate`].
    pub fn from_body(body: Value, default: &SamplingParams) -> Result<Self, ApiError> {
        let mut fields = Fields::new(body)?;
        let messages: Vec<Message> = fields.required("messages")?;
        if messages.is_empty() {
            return Err(ApiError::bad_field("messages", "`messages` is empty: send at least one message"));
        }
        let says_nothing = |message: &Message| message.content.is_null() && message.role == "user";
        if let Some(index) = messages.iter().position(says_nothing) {
            return Err(ApiError::bad_field("messages", format!("`messages[{index}].content` is null or missing")));
        }
        let mut common = CommonFields::take(&mut fields, default)?;
        let tools = Tools::take(&mut fields)?;
        if let Some(calls) = tools.grammar(fields.or("parallel_tool_calls", true)?) {
            if common.params.structured_outputs.is_some() {
                let message = "`tool_choice` and another format are asked for at once: send one of them";
                return Err(ApiError::bad_field("tool_choice", message));
            }
            common.params.structured_outputs = Some(calls);
        }
        let max_tokens: Option<u32> = fields.take("max_tokens")?;
        common.params.max_tokens = fields.take("max_completion_tokens")?.or(max_tokens);
        let top_logprobs: Option<u32> = fields.take("top_logprobs")?;
        common.params.logprobs = match (fields.or("logprobs", false)?, top_logprobs) {
            (true, top) => Some(top.unwrap_or(0)),
            (false, None | Some(0)) => None,
            (false, Some(_)) => {
                return Err(ApiError::bad_field("top_logprobs", "`top_logprobs` needs `logprobs` to be true"));
            }
        };
        let template_variables = fields.or("chat_template_kwargs", Map::new())?;
        let add_generation_prompt = fields.or("add_generation_prompt", true)?;
        Ok(Self { messages, add_generation_prompt, tools, template_variables, common })
    }

    /// The prompt's token ids.
    ///
    /// # Errors
    /// A message that the template refuses, or a variable that it may not get.
    pub fn token_ids(&self, template: &ChatTemplate, tokenizer: &Tokenizer) -> Result<Vec<TokenId>, ApiError> {
        let inputs = ChatInputs {
            tools: &self.tools.offered,
            variables: Some(&self.template_variables),
            add_generation_prompt: self.add_generation_prompt,
        };
        Ok(template.encode_chat(tokenizer, &self.messages, inputs)?)
    }
}
