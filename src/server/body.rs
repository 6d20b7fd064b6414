//! JSON bodies, within limits, read off the threads that serve others.

use super::App;
use crate::openai::{ApiError, ChatCompletionRequest, CompletionRequest};
use crate::sampling::SamplingParams;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use serde_json::Value;
use std::sync::Arc;

/// What the JSON of a body is read as.
pub(super) trait FromJson: Sized + Send + 'static {
    /// Reads a body; `default` has the sampling parameters that it leaves out.
    ///
    /// # Errors
    /// The first field that is wrong.
    fn from_json(body: Value, default: &SamplingParams) -> Result<Self, ApiError>;
}

impl FromJson for CompletionRequest {
    fn from_json(body: Value, default: &SamplingParams) -> Result<Self, ApiError> {
        Self::from_body(body, default)
    }
}

impl FromJson for ChatCompletionRequest {
    fn from_json(body: Value, default: &SamplingParams) -> Result<Self, ApiError> {
        Self::from_body(body, default)
    }
}

/// A body of JSON, read as a `T`.
pub(super) struct Body<T>(pub(super) T);

impl<T: FromJson> FromRequest<Arc<App>> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        // A page of another origin can send anything else without asking.
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::unsupported_media_type("send JSON, with `Content-Type: application/json`"));
        }
        let max = app.config.max_body_bytes;
        let too_large = || ApiError::too_large(format!("the body is too large: at most {max} bytes are taken"));
        let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        if length.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > max as u64) {
            return Err(too_large());
        }
        let body = axum::body::to_bytes(request.into_body(), max);
        let bytes = tokio::time::timeout(app.config.read_timeout, body)
            .await
            .map_err(|_| ApiError::bad_request("the body did not arrive in time"))?
            .map_err(|_| too_large())?;
        let (of, bytes_len) = (app.clone(), bytes.len());
        let read = move || {
            let json = serde_json::from_slice(&bytes);
            let json = json.map_err(|error| ApiError::bad_request(format!("the body is not JSON: {error}")))?;
            T::from_json(json, &of.config.default_params)
        };
        app.aside(bytes_len, read).await?.map(Self)
    }
}
