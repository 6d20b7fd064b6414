//! Chat messages, as OpenAI's API has them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::TextError;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool` or whatever the template knows.
    pub role: String,
    /// Null, a string, or a list of parts `{"type": "text", "text": ...}`.
    #[serde(default)]
    pub content: Value,
    /// Everything else: `name`, `tool_calls`, `tool_call_id`, `reasoning_content` ...
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A message of plain text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: Value::String(content.into()), extra: Map::new() }
    }

    /// A user's message.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// A system message.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// A message of the assistant, from an earlier turn.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }

    /// The message as a template sees it: the role checked, parts joined by newlines unless the template reads parts
    /// itself, and tool-call arguments parsed (OpenAI sends them as a string, templates expect an object).
    pub(super) fn for_template(&self, index: usize, keep_parts: bool) -> Result<Map<String, Value>, TextError> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if self.role.is_empty() || self.role.len() > 64 || !self.role.chars().all(is_word) {
            let reason = "a role is 1 to 64 letters, digits, '_', '-' or '.', such as user".into();
            return Err(TextError::Message { index, field: "role", reason });
        }
        let mut message = Map::new();
        message.insert("role".into(), Value::String(self.role.clone()));
        message.insert("content".into(), self.plain_content(index, keep_parts)?);
        for (key, value) in &self.extra {
            message.entry(key.clone()).or_insert_with(|| value.clone());
        }
        for call in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(arguments) = call.pointer_mut("/function/arguments") else { continue };
            if let Some(Ok(parsed @ Value::Object(_))) = arguments.as_str().map(serde_json::from_str) {
                *arguments = parsed;
            }
        }
        Ok(message)
    }

    fn plain_content(&self, index: usize, keep_parts: bool) -> Result<Value, TextError> {
        let refuse = |reason: String| TextError::Message { index, field: "content", reason };
        match &self.content {
            // As vLLM: a message that only calls tools has none, and not every template expects that.
            Value::Null => Ok(Value::String(String::new())),
            Value::String(_) => Ok(self.content.clone()),
            Value::Array(parts) => {
                let mut texts = Vec::with_capacity(parts.len());
                for part in parts {
                    let text = part.get("text").and_then(Value::as_str);
                    match (part.get("type").and_then(Value::as_str), text) {
                        (Some("text"), Some(text)) => texts.push(text),
                        (kind, _) => {
                            let kind = kind.unwrap_or("without a type");
                            return Err(refuse(format!("a part is {kind}; only text parts are supported")));
                        }
                    }
                }
                let parts = || texts.iter().map(|text| serde_json::json!({"type": "text", "text": text})).collect();
                Ok(if keep_parts { Value::Array(parts()) } else { Value::String(texts.join("\n")) })
            }
            _ => Err(refuse("must be null, a string or a list of text parts".into())),
        }
    }
}
