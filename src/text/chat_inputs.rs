//! What a chat template is given besides the messages.

use serde_json::{Map, Value};

use super::TextError;
use super::added_tokens::AddedTokens;
use super::chat_spans::{first_control_token, may_form_control_token};

/// Names that a template knows from elsewhere.
const TAKEN: [&str; 7] =
    ["messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", "unk_token"];

/// Functions, variables and the end of a prompt.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChatInputs<'a> {
    /// The functions that the model may call, as OpenAI's API writes them. What a template does with them is its own
    /// affair; many know none.
    pub tools: &'a [Value],
    /// Variables of the template by name (`chat_template_kwargs`), such as Qwen3's `enable_thinking`; they go before the
    /// operator's ([`super::ChatTemplate::with_variables`]).
    pub variables: Option<&'a Map<String, Value>>,
    /// Whether the prompt ends with the beginning of the assistant's answer.
    pub add_generation_prompt: bool,
}

impl ChatInputs<'_> {
    /// No tools, no variables, and an answer to come.
    pub fn answer() -> Self {
        Self { add_generation_prompt: true, ..Self::default() }
    }

    /// Tools and variables come to stand among the template's own text, where special tokens count.
    pub(super) fn check(&self, added: &AddedTokens) -> Result<(), TextError> {
        if let Some(token) = self.tools.iter().find_map(|tool| first_control_token(tool, added)) {
            return Err(TextError::SpecialTextInTools { token });
        }
        for (name, value) in self.variables.into_iter().flatten() {
            check_name(name)?;
            if !all_strings(value, &mut |text| !may_form_control_token(text, added)) {
                let reason = "it holds text of a special token, which cannot be passed on safely: break it up".into();
                return Err(TextError::Variable { name: name.clone(), reason });
            }
        }
        Ok(())
    }
}

/// That a variable may have this name.
pub(super) fn check_name(name: &str) -> Result<(), TextError> {
    if TAKEN.contains(&name) {
        let reason = "templates get it from elsewhere: leave it out".into();
        return Err(TextError::Variable { name: name.to_owned(), reason });
    }
    Ok(())
}

/// Whether `check` holds for all strings in a value, keys among them.
pub(super) fn all_strings(value: &Value, check: &mut impl FnMut(&str) -> bool) -> bool {
    match value {
        Value::String(text) => check(text),
        Value::Array(items) => items.iter().all(|item| all_strings(item, check)),
        Value::Object(map) => map.iter().all(|(key, value)| check(key) && all_strings(value, check)),
        _ => true,
    }
}
