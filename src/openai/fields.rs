//! A body's fields, taken one by one, so that an error names the field.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::ApiError;

/// The fields of a body that nobody has taken yet.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Those of a JSON object; a null is as good as no field.
    pub(super) fn new(body: Value) -> Result<Self, ApiError> {
        match body {
            Value::Object(map) => Ok(Self(map.into_iter().filter(|(_, value)| !value.is_null()).collect())),
            other => Err(ApiError::bad_request(format!("the body must be a JSON object, not {}", kind(&other)))),
        }
    }

    /// Takes a field; `None` when it is absent or null.
    pub(super) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(value) = self.0.shift_remove(name) else { return Ok(None) };
        let found = kind(&value);
        serde_json::from_value(value)
            .map(Some)
            .map_err(|error| ApiError::bad_field(name, format!("`{name}` is {found}: {}", in_words_of_json(&error))))
    }

    /// Takes a field that has a default.
    pub(super) fn or<T: DeserializeOwned>(&mut self, name: &str, default: T) -> Result<T, ApiError> {
        Ok(self.take(name)?.unwrap_or(default))
    }

    /// Takes a field that must be there.
    pub(super) fn required<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, ApiError> {
        self.take(name)?.ok_or_else(|| ApiError::bad_field(name, format!("`{name}` is missing")))
    }

    /// Refuses fields of other servers in whose place there is something here: `(theirs, the number at which it does
    /// nothing, ours)`.
    pub(super) fn refuse_others(&self, names: &[(&str, Option<f64>, &str)]) -> Result<(), ApiError> {
        let asks = |(name, nothing, _): &&(&str, Option<f64>, &str)| {
            let does_nothing =
                |value: &Value| value.as_str() == Some("") || (nothing.is_some() && value.as_f64() == *nothing);
            self.0.get(*name).is_some_and(|value| !does_nothing(value))
        };
        match names.iter().find(asks) {
            None => Ok(()),
            Some((name, _, ours)) => Err(ApiError::bad_field(name, format!("`{name}` is not known here: use {ours}"))),
        }
    }

    /// Refuses fields that would change the answer and cannot be honoured. Those that ask for nothing (false, 0, empty,
    /// `{"type": "text"}`, `"none"`) are let through.
    pub(super) fn refuse(&self, names: &[&str]) -> Result<(), ApiError> {
        let asks = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) => !matches!(text.as_str(), "" | "none" | "text"),
            Value::Array(items) => !items.is_empty(),
            Value::Object(map) => !map.is_empty() && map.get("type").is_none_or(|kind| kind != "text"),
            Value::Bool(true) => true,
        };
        match names.iter().find(|name| self.0.get(**name).is_some_and(asks)) {
            None => Ok(()),
            Some(name) => Err(ApiError::bad_field(name, format!("`{name}` is not supported: leave it out"))),
        }
    }
}

/// An error of serde's that names types as JSON does.
fn in_words_of_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let Some((start, wanted)) = text.rsplit_once("expected ") else { return text };
    let wanted = match wanted {
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number from 0",
        "i32" => "a whole number from -2147483648 to 2147483647",
        "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        "struct Message" => "an object with `role` and `content`",
        struct_name if struct_name.starts_with("struct ") => "an object",
        other => other,
    };
    format!("{start}expected {wanted}")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
