//! The fields that say what a completion must look like: OpenAI's `response_format`, vLLM's `structured_outputs` and its
//! older `guided_*`.

use super::ApiError;
use super::fields::Fields;
use crate::structured::GrammarSpec;
use serde_json::{Map, Value};

/// Takes them all; at most one may ask for something.
pub(super) fn take(fields: &mut Fields) -> Result<Option<GrammarSpec>, ApiError> {
    let mut specs = Vec::new();
    if let Some(format) = fields.take("response_format")? {
        specs.extend(response_format(&format)?);
    }
    if let Some(outputs) = fields.take::<Map<String, Value>>("structured_outputs")? {
        for (key, value) in outputs {
            specs.extend(one(&format!("structured_outputs.{key}"), &key, value)?);
        }
    }
    for key in ["json", "json_object", "regex", "choice", "grammar"] {
        let field = format!("guided_{key}");
        if let Some(value) = fields.take(&field)? {
            specs.extend(one(&field, key, value)?);
        }
    }
    if specs.len() > 1 {
        return Err(ApiError::bad_request(
            "`response_format`, `structured_outputs` and `guided_*` ask for several formats: send one of them",
        ));
    }
    Ok(specs.pop())
}

fn response_format(format: &Value) -> Result<Option<GrammarSpec>, ApiError> {
    let refuse = |message: &str| Err(ApiError::bad_field("response_format", message));
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(GrammarSpec::JsonObject)),
        Some("json_schema") => match format.pointer("/json_schema/schema") {
            Some(schema @ (Value::Object(_) | Value::Bool(_))) => Ok(Some(GrammarSpec::JsonSchema(schema.clone()))),
            _ => refuse("`response_format.json_schema.schema` must be a JSON schema"),
        },
        _ => refuse("`response_format.type` must be text, json_object or json_schema"),
    }
}

/// One kind of constraint; `None` where its value asks for nothing.
fn one(field: &str, key: &str, value: Value) -> Result<Option<GrammarSpec>, ApiError> {
    let refuse = |expected: &str| Err(ApiError::bad_field(field, format!("`{field}` must be {expected}")));
    Ok(Some(match (key, value) {
        (_, Value::Null) | ("json_object", Value::Bool(false)) => return Ok(None),
        ("json_object", Value::Bool(true)) => GrammarSpec::JsonObject,
        ("json", schema @ (Value::Object(_) | Value::Bool(_))) => GrammarSpec::JsonSchema(schema),
        ("json", Value::String(text)) => match serde_json::from_str(&text) {
            Ok(schema @ (Value::Object(_) | Value::Bool(_))) => GrammarSpec::JsonSchema(schema),
            _ => return refuse("a JSON schema, as an object or as its text"),
        },
        ("regex", Value::String(regex)) => GrammarSpec::Regex(regex),
        ("grammar", Value::String(grammar)) => GrammarSpec::Grammar(grammar),
        ("choice", Value::Array(choices)) => {
            let texts = choices.iter().map(|choice| choice.as_str().filter(|text| !text.is_empty()).map(str::to_owned));
            match texts.collect::<Option<Vec<String>>>() {
                Some(texts) if !texts.is_empty() => GrammarSpec::Choice(texts),
                _ => return refuse("a list of texts that are not empty"),
            }
        }
        ("json_object", _) => return refuse("true or false"),
        ("json", _) => return refuse("a JSON schema, as an object or as its text"),
        ("regex" | "grammar", _) => return refuse("a string"),
        ("choice", _) => return refuse("a list of texts that are not empty"),
        _ => return refuse("left out: there is json, json_object, regex, choice and grammar"),
    }))
}
