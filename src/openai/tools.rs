//! Tool calling: the functions that a request offers.

use super::ApiError;
use super::fields::Fields;
use crate::structured::{GrammarSpec, ToolCalls};
use serde_json::{Value, json};

/// `tools` and `tool_choice` of a request.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tools {
    /// As sent, for the chat template.
    pub offered: Vec<Value>,
    /// What the model may do with them.
    pub choice: ToolChoice,
}

/// What the model may do with the tools.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum ToolChoice {
    /// Write text: no call is looked for.
    #[default]
    None,
    /// Write text or calls.
    Auto,
    /// Make at least one call.
    Required,
    /// Call this function, once.
    Named(String),
}

/// Names of functions, as OpenAI allows them.
const MAX_NAME_BYTES: usize = 64;

impl Tools {
    pub(super) fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let offered: Vec<Value> = fields.or("tools", Vec::new())?;
        let choice: Option<Value> = fields.take("tool_choice")?;
        if offered.is_empty() {
            return match choice {
                None => Ok(Self::default()),
                Some(choice) if choice == "none" || choice == "auto" => Ok(Self::default()),
                Some(_) => Err(ApiError::bad_field("tool_choice", "`tool_choice` needs `tools`")),
            };
        }
        for (index, tool) in offered.iter().enumerate() {
            check(index, tool)?;
        }
        let choice = match &choice {
            None => ToolChoice::Auto,
            Some(Value::String(word)) if word == "auto" => ToolChoice::Auto,
            Some(Value::String(word)) if word == "none" => ToolChoice::None,
            Some(Value::String(word)) if word == "required" => ToolChoice::Required,
            Some(named) => match named.pointer("/function/name").and_then(Value::as_str) {
                Some(name) if offered.iter().any(|tool| name_of(tool) == name) => ToolChoice::Named(name.to_owned()),
                _ => {
                    let message = "`tool_choice` must be none, auto, required, or name one of the `tools`";
                    return Err(ApiError::bad_field("tool_choice", message));
                }
            },
        };
        Ok(Self { offered, choice })
    }

    /// What the completion must look like, if calls must come.
    pub(super) fn grammar(&self, parallel: bool) -> Option<GrammarSpec> {
        let functions = |keep: &dyn Fn(&str) -> bool| {
            let kept = self.offered.iter().filter(|tool| keep(name_of(tool)));
            kept.map(|tool| (name_of(tool).to_owned(), parameters_of(tool))).collect()
        };
        match &self.choice {
            ToolChoice::None | ToolChoice::Auto => None,
            ToolChoice::Required => Some(ToolCalls { functions: functions(&|_| true), parallel }),
            ToolChoice::Named(name) => {
                Some(ToolCalls { functions: functions(&|other| other == name), parallel: false })
            }
        }
        .map(GrammarSpec::ToolCalls)
    }

    /// Whether what is written is calls by [`Tools::grammar`], and nothing else.
    pub(super) fn must_be_called(&self) -> bool {
        matches!(self.choice, ToolChoice::Required | ToolChoice::Named(_))
    }

    /// The `finish_reason` of a choice that ended by itself with so many calls.
    pub(super) fn finish_reason(&self, calls: usize) -> Option<&'static str> {
        let is_named = matches!(self.choice, ToolChoice::Named(_));
        (calls > 0 && !is_named).then_some("tool_calls")
    }
}

fn check(index: usize, tool: &Value) -> Result<(), ApiError> {
    let refuse = |what: &str| Err(ApiError::bad_field("tools", format!("`tools[{index}]{what}")));
    if tool.get("type").and_then(Value::as_str) != Some("function") {
        return refuse(".type` must be function");
    }
    let name = name_of(tool);
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !(1..=MAX_NAME_BYTES).contains(&name.len()) || !name.bytes().all(is_fine) {
        return refuse(".function.name` must be 1 to 64 letters, digits, '_' or '-'");
    }
    match tool.pointer("/function/parameters") {
        None | Some(Value::Object(_) | Value::Null) => Ok(()),
        Some(_) => refuse(".function.parameters` must be a JSON schema"),
    }
}

fn name_of(tool: &Value) -> &str {
    tool.pointer("/function/name").and_then(Value::as_str).unwrap_or_default()
}

fn parameters_of(tool: &Value) -> Value {
    match tool.pointer("/function/parameters") {
        Some(schema @ Value::Object(_)) => schema.clone(),
        _ => json!({"type": "object"}),
    }
}

/// A call as OpenAI's API writes it; `id` must be unique within the conversation.
pub(super) fn call_json(id: &str, name: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_checked() {
        let take = |body: Value| Tools::take(&mut Fields::new(body).expect("an object"));
        let tool =
            |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}});
        let tools = take(json!({"tools": [tool("a"), tool("b")], "tool_choice": "required"})).expect("valid");
        let Some(GrammarSpec::ToolCalls(calls)) = tools.grammar(true) else { panic!("calls are required") };
        assert_eq!((calls.functions.len(), calls.parallel), (2, true));
        let named = json!({"type": "function", "function": {"name": "b"}});
        let tools = take(json!({"tools": [tool("a"), tool("b")], "tool_choice": named})).expect("valid");
        let Some(GrammarSpec::ToolCalls(calls)) = tools.grammar(true) else { panic!("a call is required") };
        assert_eq!((&*calls.functions[0].0, calls.functions.len(), calls.parallel), ("b", 1, false));
        for body in [
            json!({"tools": [{"type": "retrieval"}]}),
            json!({"tools": [tool("")]}),
            json!({"tools": [tool("a b")]}),
            json!({"tools": [{"type": "function", "function": {"name": "a", "parameters": 3}}]}),
            json!({"tools": [tool("a")], "tool_choice": "perhaps"}),
            json!({"tools": [tool("a")], "tool_choice": {"type": "function", "function": {"name": "c"}}}),
            json!({"tool_choice": "required"}),
        ] {
            assert!(take(body.clone()).is_err(), "{body}");
        }
    }
}
