//! OpenAI's error object.

use serde::Serialize;

use crate::llm::LlmError;
use crate::sampling::ParamError;
use crate::structured::GrammarError;
use crate::text::TextError;

/// What went wrong, as `error` in a response's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// For people.
    pub message: String,
    /// `BadRequestError`, `NotFoundError`, `InternalServerError` ..., as vLLM names them.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The field of the body that is wrong, where it is one.
    pub param: Option<String>,
    /// HTTP status.
    pub code: u16,
}

impl ApiError {
    /// The body is wrong: 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: "BadRequestError", param: None, code: 400 }
    }

    /// A field of the body is wrong: 400.
    pub fn bad_field(field: &str, message: impl Into<String>) -> Self {
        Self { param: Some(field.to_owned()), ..Self::bad_request(message) }
    }

    /// There is no such endpoint or model: 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { kind: "NotFoundError", code: 404, ..Self::bad_request(message) }
    }

    /// The key is missing or wrong: 401.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self { kind: "AuthenticationError", code: 401, ..Self::bad_request(message) }
    }

    /// The endpoint exists, but not for this method: 405.
    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        Self { kind: "MethodNotAllowedError", code: 405, ..Self::bad_request(message) }
    }

    /// The body is too large: 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self { kind: "RequestEntityTooLargeError", code: 413, ..Self::bad_request(message) }
    }

    /// The body is not JSON by its own account: 415.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self { kind: "UnsupportedMediaTypeError", code: 415, ..Self::bad_request(message) }
    }

    /// There is no room for the request now: 503.
    pub fn overloaded(message: impl Into<String>) -> Self {
        Self { kind: "ServiceUnavailableError", code: 503, ..Self::bad_request(message) }
    }

    /// The request took longer than the operator allows: 504.
    pub fn late() -> Self {
        let message = "the request took longer than this server allows: ask for fewer tokens";
        Self { kind: "TimeoutError", code: 504, ..Self::bad_request(message) }
    }

    /// Our fault: 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { kind: "InternalServerError", code: 500, ..Self::bad_request(message) }
    }
}

impl From<ParamError> for ApiError {
    fn from(error: ParamError) -> Self {
        Self { param: error.field().map(str::to_owned), ..Self::bad_request(error.to_string()) }
    }
}

impl From<TextError> for ApiError {
    fn from(error: TextError) -> Self {
        let param = match error {
            TextError::Message { .. } | TextError::SpecialText { .. } => Some("messages"),
            TextError::SpecialTextInTools { .. } => Some("tools"),
            TextError::Variable { .. } => Some("chat_template_kwargs"),
            _ => None,
        };
        Self { param: param.map(str::to_owned), ..Self::bad_request(error.to_string()) }
    }
}

impl From<LlmError> for ApiError {
    fn from(error: LlmError) -> Self {
        match error {
            LlmError::Param(error) => error.into(),
            LlmError::Text(error) => error.into(),
            LlmError::Grammar(error @ GrammarError::Busy) => Self::overloaded(error.to_string()),
            error if error.is_request_error() => Self::bad_request(error.to_string()),
            // No fault of the model's: the request needs text where it has no tokenizer.
            error @ LlmError::NoTokenizer(_) => Self::bad_request(error.to_string()),
            error => Self::internal(error.to_string()),
        }
    }
}
