//! What a completion must look like.

use super::GrammarError;
use llguidance::api::TopLevelGrammar;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Bytes of a schema, of choices or of functions, at most.
const MAX_BYTES: usize = 256 << 10;
/// Bytes of a Lark grammar, of a regular expression, or of all expressions in a schema, at most: the time to compile them
/// grows with the square. Grammars of programming languages have a few thousand.
const MAX_PATTERN_BYTES: usize = 16 << 10;

/// Least common multiple of all `multipleOf` in a schema, at most: each remainder is a state of the lexer, and compiling
/// cannot be interrupted.
const MAX_MULTIPLE: u64 = 10_000;

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
    /// Refuses what is larger than any use of it needs, or plainly something else.
    ///
    /// # Errors
    /// [`GrammarError::TooLarge`], [`GrammarError::Multiples`], [`GrammarError::NotLark`].
    pub(super) fn check_size(&self) -> Result<(), GrammarError> {
        let check = |what, bytes, max| match bytes <= max {
            true => Ok(()),
            false => Err(GrammarError::TooLarge { what, bytes, max }),
        };
        let check_schema = |what, schema: &Value| {
            check(what, schema.to_string().len(), MAX_BYTES)?;
            check("regular expressions in a schema", pattern_bytes(schema), MAX_PATTERN_BYTES)?;
            let mut numbers = Vec::new();
            add_multiples(schema, &mut numbers);
            match common_multiple(&numbers).is_some_and(|multiple| multiple <= MAX_MULTIPLE) {
                true => Ok(()),
                false => Err(GrammarError::Multiples { max: MAX_MULTIPLE }),
            }
        };
        match self {
            Self::JsonObject => Ok(()),
            Self::JsonSchema(schema) => check_schema("a schema", schema),
            Self::Regex(text) => check("a regular expression", text.len(), MAX_PATTERN_BYTES),
            Self::Grammar(text) if text.contains("::=") && !text.contains("start:") => Err(GrammarError::NotLark),
            Self::Grammar(text) => check("a grammar", text.len(), MAX_PATTERN_BYTES),
            Self::Choice(choices) => check("choices", choices.iter().map(String::len).sum(), MAX_BYTES),
            Self::ToolCalls(calls) => {
                let schemas = calls.functions.iter().map(|(_, schema)| schema.clone()).collect();
                check_schema("schemas of functions", &Value::Array(schemas))
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
                // One terminal: as alternatives of a rule, each would be a state of the parser.
                TopLevelGrammar::from_lark(format!("start: CHOICE\nCHOICE: {}", quoted.join(" | ")))
            }
            Self::Grammar(lark) => TopLevelGrammar::from_lark(lark.clone()),
            Self::ToolCalls(calls) => TopLevelGrammar::from_lark(calls.lark()),
        }
    }
}

impl ToolCalls {
    fn lark(&self) -> String {
        // Each function's schema as a definition of its own, where what it refers to is found.
        let call = |(index, (name, _)): (usize, &(String, Value))| {
            json!({
                "type": "object",
                "properties": {"name": {"const": name}, "arguments": {"$ref": format!("#/$defs/{index}")}},
                "required": ["name", "arguments"],
                "additionalProperties": false,
            })
        };
        let calls: Vec<Value> = self.functions.iter().enumerate().map(call).collect();
        let definition = |(index, (_, schema)): (usize, &(String, Value))| {
            (index.to_string(), moved(schema.clone(), &format!("#/$defs/{index}")))
        };
        let definitions: Map<String, Value> = self.functions.iter().enumerate().map(definition).collect();
        let schema = one_line(json!({"anyOf": calls, "$defs": definitions}));
        let (open, close) = (Value::from(Self::OPEN), Value::from(Self::CLOSE));
        let more = if self.parallel { " (\"\\n\" call)*" } else { "" };
        format!("start: call{more}\ncall: {open} object {close}\nobject: %json {schema}")
    }
}

/// Bytes of the regular expressions in a schema.
fn pattern_bytes(schema: &Value) -> usize {
    let of_key = |(key, value): (&String, &Value)| {
        let own = match (key.as_str(), value) {
            ("pattern", Value::String(pattern)) => pattern.len(),
            ("patternProperties", Value::Object(patterns)) => patterns.keys().map(String::len).sum(),
            _ => 0,
        };
        own + pattern_bytes(value)
    };
    match schema {
        Value::Object(map) => map.iter().map(of_key).sum(),
        Value::Array(items) => items.iter().map(pattern_bytes).sum(),
        _ => 0,
    }
}

/// Adds the numbers of each `multipleOf` in a schema.
fn add_multiples(schema: &Value, numbers: &mut Vec<f64>) {
    match schema {
        Value::Object(map) => {
            numbers.extend(map.get("multipleOf").and_then(Value::as_f64));
            map.values().for_each(|value| add_multiples(value, numbers));
        }
        Value::Array(items) => items.iter().for_each(|item| add_multiples(item, numbers)),
        _ => {}
    }
}

/// The least common multiple in units of the last decimal place that one of the numbers has, as the lexer counts; `None`
/// where it is beyond counting.
fn common_multiple(numbers: &[f64]) -> Option<u64> {
    let places = (0..=9).find(|&places| numbers.iter().all(|number| (number * 10f64.powi(places)).fract() == 0.0))?;
    numbers.iter().try_fold(1u64, |multiple, number| {
        let number = number.abs() * 10f64.powi(places);
        let number = (number < 1e15).then_some(number as u64)?.max(1);
        multiple.checked_mul(number / greatest_divisor(multiple, number))
    })
}

fn greatest_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}

/// A schema that stands at `place` of a larger one, with its references to places of its own led there.
fn moved(schema: Value, place: &str) -> Value {
    match schema {
        Value::Object(map) => {
            let entry = |(key, value): (String, Value)| match (key.as_str(), value) {
                ("$ref", Value::String(target)) => match target.strip_prefix('#') {
                    Some(path) => (key, Value::from(format!("{place}{path}"))),
                    None => (key, Value::from(target)),
                },
                // Values, not schemas.
                ("const" | "enum" | "default" | "examples", value) => (key, value),
                (_, value) => (key, moved(value, place)),
            };
            Value::Object(map.into_iter().map(entry).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(|item| moved(item, place)).collect()),
        other => other,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_refused() {
        let regex = |bytes: usize| GrammarSpec::Regex("a".repeat(bytes));
        let schema = |schema| GrammarSpec::JsonSchema(schema);
        let tool = |pattern: String| {
            let functions = vec![("f".to_owned(), json!({"properties": {"a": {"pattern": pattern}}}))];
            GrammarSpec::ToolCalls(ToolCalls { functions, parallel: false })
        };
        assert_eq!(regex(MAX_PATTERN_BYTES).check_size(), Ok(()));
        assert_eq!(schema(json!({"enum": ["a".repeat(MAX_BYTES / 2)]})).check_size(), Ok(()));
        assert_eq!(tool("a".into()).check_size(), Ok(()));
        let long = "a".repeat(MAX_PATTERN_BYTES + 1);
        let table = [
            regex(MAX_PATTERN_BYTES + 1),
            GrammarSpec::Grammar(long.clone()),
            schema(json!({"items": [{"pattern": long}]})),
            schema(json!({"patternProperties": {long.as_str(): {}}})),
            schema(json!({"enum": ["a".repeat(MAX_BYTES)]})),
            GrammarSpec::Choice(vec!["a".repeat(MAX_BYTES / 2); 3]),
            tool(long.clone()),
        ];
        for spec in table {
            assert!(matches!(spec.check_size(), Err(GrammarError::TooLarge { .. })));
        }
    }

    #[test]
    fn multiples_are_bounded_together() {
        let schema = |schema| GrammarSpec::JsonSchema(schema).check_size();
        let fine = [
            json!({"multipleOf": 9973}),
            json!({"multipleOf": 0.01}),
            json!({"properties": {"a": {"multipleOf": 0.05}, "b": {"multipleOf": 12}}}),
            json!({"multipleOf": 0}),
        ];
        for value in fine {
            assert_eq!(schema(value.clone()), Ok(()), "{value}");
        }
        let bad = [
            json!({"multipleOf": 99_400_891}),
            json!({"multipleOf": 1e300}),
            json!({"multipleOf": 1.23456789012}),
            json!({"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}),
        ];
        for value in bad {
            assert_eq!(schema(value.clone()), Err(GrammarError::Multiples { max: MAX_MULTIPLE }), "{value}");
        }
    }

    #[test]
    fn other_notations_are_told_from_larks() {
        let grammar = |text: &str| GrammarSpec::Grammar(text.to_owned()).check_size();
        assert_eq!(grammar("root ::= \"yes\" | \"no\""), Err(GrammarError::NotLark));
        assert_eq!(grammar("start: \"::=\""), Ok(()));
    }

    #[test]
    fn references_move_with_their_schema() {
        let schema = json!({
            "properties": {"a": {"$ref": "#/$defs/A"}, "$ref": {"$ref": "#"}, "b": {"const": {"$ref": "#"}}},
            "$defs": {"A": {"$ref": "https://example.com/a#b"}},
        });
        let want = json!({
            "properties": {"a": {"$ref": "#/$defs/0/$defs/A"}, "$ref": {"$ref": "#/$defs/0"}, "b": {"const": {"$ref": "#"}}},
            "$defs": {"A": {"$ref": "https://example.com/a#b"}},
        });
        assert_eq!(moved(schema, "#/$defs/0"), want);
    }
}
