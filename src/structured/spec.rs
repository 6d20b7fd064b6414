//! What a completion must look like.

use llguidance::api::TopLevelGrammar;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// What a completion must look like.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GrammarSpec {
    /// Any JSON object.
    JsonObject,
    /// JSON by this schema.
    JsonSchema(Value),
    /// Text that this regular expression matches as a whole.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// Text by this Lark grammar, in llguidance's dialect.
    Grammar(String),
    /// Calls of these functions and nothing else.
    ToolCalls(ToolCalls),
}

/// Calls as the Hermes format writes them: `<tool_call>`, a JSON object of `name` and `arguments`, `</tool_call>`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ToolCalls {
    /// Name, and schema of the arguments, of each function that may be called.
    pub functions: Vec<(String, Value)>,
    /// Whether there may be several calls.
    pub parallel: bool,
}

impl ToolCalls {
    /// What stands before a call's JSON.
    pub const OPEN: &str = "<tool_call>\n";
    /// What stands after it.
    pub const CLOSE: &str = "\n</tool_call>";
}

impl GrammarSpec {
    /// Bytes of text that have to be compiled.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::JsonObject => 0,
            Self::JsonSchema(schema) => schema.to_string().len(),
            Self::Regex(text) | Self::Grammar(text) => text.len(),
            Self::Choice(choices) => choices.iter().map(String::len).sum(),
            Self::ToolCalls(calls) => {
                calls.functions.iter().map(|(name, schema)| name.len() + schema.to_string().len()).sum()
            }
        }
    }

    pub(super) fn grammar(&self) -> TopLevelGrammar {
        match self {
            Self::JsonObject => TopLevelGrammar::from_json_schema(one_line(json!({"type": "object"}))),
            Self::JsonSchema(schema) => TopLevelGrammar::from_json_schema(one_line(schema.clone())),
            Self::Regex(regex) => TopLevelGrammar::from_regex(regex),
            Self::Choice(choices) => {
                let quoted: Vec<String> =
                    choices.iter().map(|choice| Value::from(choice.as_str()).to_string()).collect();
                TopLevelGrammar::from_lark(format!("start: {}", quoted.join(" | ")))
            }
            Self::Grammar(lark) => TopLevelGrammar::from_lark(lark.clone()),
            Self::ToolCalls(calls) => TopLevelGrammar::from_lark(calls.lark()),
        }
    }
}

impl ToolCalls {
    fn lark(&self) -> String {
        let call = |(name, arguments): &(String, Value)| {
            json!({
                "type": "object",
                "properties": {"name": {"const": name}, "arguments": arguments},
                "required": ["name", "arguments"],
                "additionalProperties": false,
            })
        };
        let calls: Vec<Value> = self.functions.iter().map(call).collect();
        let schema = one_line(json!({"anyOf": calls}));
        let (open, close) = (Value::from(Self::OPEN), Value::from(Self::CLOSE));
        let more = if self.parallel { " (\"\\n\" call)*" } else { "" };
        format!("start: call{more}\ncall: {open} object {close}\nobject: %json {schema}")
    }
}

/// JSON on one line, with the blanks that models have seen most: a small one would write blanks for ever.
fn one_line(schema: Value) -> Value {
    let guidance = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
    match schema {
        Value::Object(mut schema) => {
            schema.insert("x-guidance".into(), guidance);
            Value::Object(schema)
        }
        Value::Bool(true) => Value::Object(Map::from_iter([("x-guidance".to_owned(), guidance)])),
        other => other,
    }
}
