//! What a completion must look like.

use super::GrammarError;
use llguidance::api::TopLevelGrammar;
use serde::Serialize;
use serde_json::{Map, Number, Value, json};

/// Bytes of a schema, of choices or of functions, at most.
const MAX_BYTES: usize = 256 << 10;
/// Bytes of a Lark grammar, of a regular expression, or of all expressions in a schema, at most: the time to compile them
/// grows with the square. Grammars of programming languages have a few thousand.
const MAX_PATTERN_BYTES: usize = 16 << 10;

/// Least common multiple of all `multipleOf` in a schema, at most: each remainder is a state of the lexer, and compiling
/// cannot be interrupted. So many take about a second.
const MAX_MULTIPLE: u64 = 200_000;

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
    /// Refuses what is larger than any use of it needs.
    ///
    /// # Errors
    /// [`GrammarError::TooLarge`], [`GrammarError::Multiples`].
    pub(super) fn check(&self) -> Result<(), GrammarError> {
        let check = |what, bytes, max| match bytes <= max {
            true => Ok(()),
            false => Err(GrammarError::TooLarge { what, bytes, max }),
        };
        let check_schema = |what, schema: &Value| {
            check(what, schema.to_string().len(), MAX_BYTES)?;
            check("regular expressions in a schema", pattern_bytes(schema), MAX_PATTERN_BYTES)
        };
        match self {
            Self::JsonObject => Ok(()),
            Self::JsonSchema(schema) => {
                check_schema("a schema", schema)?;
                check_multiples(schema)
            }
            Self::Regex(text) => check("a regular expression", text.len(), MAX_PATTERN_BYTES),
            Self::Grammar(text) => check("a grammar", text.len(), MAX_PATTERN_BYTES),
            Self::Choice(choices) => check("choices", choices.iter().map(String::len).sum(), MAX_BYTES),
            Self::ToolCalls(calls) => {
                let schemas = calls.functions.iter().map(|(_, schema)| schema.clone()).collect();
                check_schema("schemas of functions", &Value::Array(schemas))?;
                calls.functions.iter().try_for_each(|(_, schema)| check_multiples(schema))
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

/// Keys of a schema whose values are data.
const DATA: [&str; 4] = ["const", "enum", "default", "examples"];
/// Keys of a schema whose values are maps from names to schemas.
const NAMED_SCHEMAS: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

fn check_multiples(schema: &Value) -> Result<(), GrammarError> {
    let mut numbers = Vec::new();
    add_multiples(schema, &mut numbers);
    match common_multiple(&numbers).is_some_and(|multiple| multiple <= MAX_MULTIPLE) {
        true => Ok(()),
        false => Err(GrammarError::Multiples { max: MAX_MULTIPLE }),
    }
}

/// Adds the numbers of each `multipleOf` in a schema.
fn add_multiples<'a>(schema: &'a Value, numbers: &mut Vec<&'a Number>) {
    match schema {
        Value::Object(map) => {
            numbers.extend(map.get("multipleOf").and_then(Value::as_number));
            for (key, value) in map {
                match (key.as_str(), value) {
                    (data, _) if DATA.contains(&data) => {}
                    (named, Value::Object(schemas)) if NAMED_SCHEMAS.contains(&named) => {
                        schemas.values().for_each(|schema| add_multiples(schema, numbers));
                    }
                    (_, value) => add_multiples(value, numbers),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| add_multiples(item, numbers)),
        _ => {}
    }
}

/// The least common multiple in units of the last decimal place that one of the numbers has, as the lexer counts; `None`
/// where it is beyond counting.
fn common_multiple(numbers: &[&Number]) -> Option<u64> {
    let decimals = numbers.iter().map(|number| decimal(&number.to_string())).collect::<Option<Vec<_>>>()?;
    let places = decimals.iter().map(|&(_, places)| places).max().unwrap_or(0);
    decimals.into_iter().try_fold(1u64, |multiple, (digits, its)| {
        let number = digits.checked_mul(10u64.checked_pow(places - its)?)?.max(1);
        multiple.checked_mul(number / greatest_divisor(multiple, number))
    })
}

/// A number's digits without sign and point, and how many stand behind the point.
fn decimal(text: &str) -> Option<(u64, u32)> {
    let text = text.trim_start_matches('-');
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let part = part.trim_end_matches('0');
    let number: u64 = format!("{whole}{part}").parse().ok()?;
    let places = part.len() as i64 - exponent.parse::<i64>().ok()?;
    match u32::try_from(places) {
        Ok(places) => Some((number, places)),
        Err(_) => Some((number.checked_mul(10u64.checked_pow(u32::try_from(-places).ok()?)?)?, 0)),
    }
}

fn greatest_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}

/// A schema that stands at `place` of a larger one, with its references to places of its own led there. Where a schema
/// has a name of its own, these stay right.
fn moved(schema: Value, place: &str) -> Value {
    let all = |map: Map<String, Value>| map.into_iter().map(|(key, value)| (key, moved(value, place))).collect();
    match schema {
        Value::Object(map) if map.get("$id").is_some_and(Value::is_string) => Value::Object(map),
        Value::Object(map) => {
            let entry = |(key, value): (String, Value)| match (key.as_str(), value) {
                ("$ref", Value::String(target)) => match target.strip_prefix('#') {
                    Some(path) if path.is_empty() || path.starts_with('/') => {
                        (key, Value::from(format!("{place}{path}")))
                    }
                    _ => (key, Value::from(target)),
                },
                (data, value) if DATA.contains(&data) => (key, value),
                (named, Value::Object(map)) if NAMED_SCHEMAS.contains(&named) => (key, Value::Object(all(map))),
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
        assert_eq!(regex(MAX_PATTERN_BYTES).check(), Ok(()));
        assert_eq!(schema(json!({"enum": ["a".repeat(MAX_BYTES / 2)]})).check(), Ok(()));
        assert_eq!(tool("a".into()).check(), Ok(()));
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
            assert!(matches!(spec.check(), Err(GrammarError::TooLarge { .. })));
        }
    }

    #[test]
    fn multiples_are_bounded_together() {
        let check = |schema| GrammarSpec::JsonSchema(schema).check();
        let fine = [
            json!({"multipleOf": 99_991}),
            json!({"multipleOf": 0.01}),
            json!({"multipleOf": 19.99}),
            json!({"multipleOf": 1e-5}),
            json!({"properties": {"a": {"multipleOf": 0.01}, "b": {"multipleOf": 15}, "c": {"multipleOf": 7}}}),
            json!({"properties": {"a": {"multipleOf": 0.01}, "b": {"multipleOf": 1000}}}),
            json!({"multipleOf": 0}),
            json!({"default": {"multipleOf": 99_400_891}, "properties": {"multipleOf": {"type": "string"}}}),
        ];
        for value in fine {
            assert_eq!(check(value.clone()), Ok(()), "{value}");
        }
        let bad = [
            json!({"multipleOf": 99_400_891}),
            json!({"multipleOf": 1e300}),
            json!({"multipleOf": 1.23456789012}),
            json!({"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}),
            json!({"properties": {"default": {"multipleOf": 99_400_891}}}),
        ];
        for value in bad {
            assert_eq!(check(value.clone()), Err(GrammarError::Multiples { max: MAX_MULTIPLE }), "{value}");
        }
        assert_eq!(
            ["15", "0.29", "1.50", "1e-5", "2.5e3"].map(decimal),
            [Some((15, 0)), Some((29, 2)), Some((15, 1)), Some((1, 5)), Some((2500, 0))]
        );
    }

    #[test]
    fn references_move_with_their_schema() {
        let schema = |place: &str| {
            json!({
                "properties": {
                    "a": {"$ref": format!("{place}/$defs/A")},
                    "$ref": {"$ref": place},
                    "default": {"$ref": format!("{place}/$defs/enum")},
                    "b": {"const": {"$ref": "#"}},
                    "c": {"$ref": "#anchor"},
                    "d": {"$id": "https://example.com/d", "items": {"$ref": "#/$defs/own"}},
                },
                "$defs": {"A": {"$ref": "https://example.com/a#b"}, "enum": {"items": {"$ref": place}}},
            })
        };
        assert_eq!(moved(schema("#"), "#/$defs/0"), schema("#/$defs/0"));
    }
}
