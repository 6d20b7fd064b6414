//! Tool calling: the functions that a request offers, and the calls in what the model wrote.

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

/// A part of what the model wrote.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// Text for the user.
    Text(String),
    /// A call; its arguments as JSON text.
    Call { name: String, arguments: String },
}

/// Finds calls in text as it comes.
#[derive(Debug, Default)]
pub(super) struct CallFinder {
    /// What may be, or become, a call.
    held: String,
    calls: usize,
    /// Whether a call has just ended: blanks after it are nobody's.
    is_after_call: bool,
}

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

impl CallFinder {
    /// Calls so far.
    pub(super) fn calls(&self) -> usize {
        self.calls
    }

    /// Takes text in; what is certain now goes to `parts`.
    pub(super) fn push(&mut self, text: &str, parts: &mut Vec<Part>) {
        self.held += text;
        while let Some(open) = self.held.find(OPEN) {
            self.text(open, parts);
            let Some(close) = self.held.find(CLOSE) else { return };
            let call = parse(&self.held[OPEN.len()..close]);
            let end = close + CLOSE.len();
            match call {
                Some(call) => {
                    self.calls += 1;
                    self.is_after_call = true;
                    parts.push(call);
                    self.held.drain(..end);
                }
                None => self.text(end, parts),
            }
        }
        // The end may be the beginning of a call.
        let begins = (1..OPEN.len()).rev().find(|&len| self.held.ends_with(&OPEN[..len])).unwrap_or(0);
        self.text(self.held.len() - begins, parts);
    }

    /// The text is over: a call that was not finished is text.
    pub(super) fn finish(&mut self, parts: &mut Vec<Part>) {
        self.text(self.held.len(), parts);
    }

    /// Gives the first bytes of what is held away as text.
    fn text(&mut self, bytes: usize, parts: &mut Vec<Part>) {
        let text: String = self.held.drain(..bytes).collect();
        let text = if self.is_after_call { text.trim_start() } else { &text };
        if !text.is_empty() {
            self.is_after_call = false;
            parts.push(Part::Text(text.to_owned()));
        }
    }
}

fn parse(call: &str) -> Option<Part> {
    let call: Value = serde_json::from_str(call.trim()).ok()?;
    let name = call.get("name")?.as_str()?.to_owned();
    let arguments = call.get("arguments").or_else(|| call.get("parameters"));
    Some(Part::Call { name, arguments: arguments.map_or_else(|| "{}".to_owned(), Value::to_string) })
}

/// A call as OpenAI's API writes it; `id` must be unique within the conversation.
pub(super) fn call_json(id: &str, name: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pieces: &[&str]) -> (String, Vec<(String, String)>) {
        let (mut finder, mut parts) = (CallFinder::default(), Vec::new());
        pieces.iter().for_each(|piece| finder.push(piece, &mut parts));
        finder.finish(&mut parts);
        let (mut text, mut calls) = (String::new(), Vec::new());
        for part in parts {
            match part {
                Part::Text(more) => text += &more,
                Part::Call { name, arguments } => calls.push((name, arguments)),
            }
        }
        assert_eq!(finder.calls(), calls.len());
        (text, calls)
    }

    #[test]
    fn calls_are_found_however_the_text_is_cut() {
        let text = "Let me see. <tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"<b>\"}}\n</tool_call>\n\
                    <tool_call>{\"name\":\"g\",\"arguments\":{}}</tool_call> a < b";
        let whole = found(&[text]);
        assert_eq!(whole.0, "Let me see. a < b");
        assert_eq!(whole.1, [("f".into(), r#"{"a":"<b>"}"#.into()), ("g".into(), "{}".into())]);
        for size in 1..40 {
            let pieces: Vec<String> =
                text.chars().collect::<Vec<_>>().chunks(size).map(|piece| piece.iter().collect()).collect();
            assert_eq!(found(&pieces.iter().map(String::as_str).collect::<Vec<_>>()), whole, "pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_call_is_text() {
        for text in ["<tool_call>{\"name\": \"f\"", "<tool_call>no JSON</tool_call>", "a <tool", "<tool_call>"] {
            assert_eq!(found(&[text]), (text.to_owned(), vec![]), "{text}");
        }
    }

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
