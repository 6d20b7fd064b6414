//! What every request passes: its id, the key, the log.

use super::App;
use crate::openai::ApiError;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use subtle::{Choice, ConstantTimeEq};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The request's id.
#[derive(Debug, Clone)]
pub(super) enum RequestTag {
    /// The client's, from the header.
    Sent(String),
    /// One of ours.
    Made(String),
}

impl RequestTag {
    fn as_str(&self) -> &str {
        match self {
            Self::Sent(tag) | Self::Made(tag) => tag,
        }
    }

    /// The id that the answer bears: a header's goes before `in_body`, and that before one of ours.
    ///
    /// # Errors
    /// 400 when `in_body` could not stand in a header.
    pub(super) fn or(self, in_body: Option<&str>) -> Result<String, ApiError> {
        match (self, in_body) {
            (_, Some(tag)) if !is_tag(tag) => Err(ApiError::bad_field(
                "request_id",
                format!("`request_id` must be 1 to {MAX_REQUEST_ID_BYTES} visible ASCII characters"),
            )),
            (Self::Made(_), Some(tag)) => Ok(tag.to_owned()),
            (Self::Sent(tag) | Self::Made(tag), _) => Ok(tag),
        }
    }
}

/// Gives the request an id, checks its key, and logs how it went.
pub(super) async fn pass(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let tag = sent_tag(request.headers()).unwrap_or_else(|| {
        RequestTag::Made(format!("{:x}-{:x}", app.started, app.next_id.fetch_add(1, Ordering::Relaxed)))
    });
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(tag.clone());
    let mut response = match check_key(&app, &method, &path, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    tracing::debug!(
        request_id = tag.as_str(), %method, %path, status = response.status().as_u16(),
        ms = began.elapsed().as_millis() as u64, "answered"
    );
    if let Ok(value) = HeaderValue::from_str(tag.as_str()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn sent_tag(headers: &HeaderMap) -> Option<RequestTag> {
    let tag = headers.get(REQUEST_ID)?.to_str().ok()?;
    is_tag(tag).then(|| RequestTag::Sent(tag.to_owned()))
}

fn is_tag(text: &str) -> bool {
    (1..=MAX_REQUEST_ID_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Everything needs a key but what says how the server is: load balancers ask for that.
fn check_key(app: &App, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), ApiError> {
    let is_open = matches!(path, "/" | "/openapi.json" | "/health" | "/ping" | "/version" | "/load" | "/metrics");
    if app.config.api_keys.is_empty() || is_open || method == Method::OPTIONS {
        return Ok(());
    }
    let sent = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let sent = sent.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
    let sent = sent.map(|(_, key)| key).unwrap_or_default();
    // Every key is compared, by digest: the time tells neither where it differs nor how long it is.
    let sent = Sha256::digest(sent);
    let known = app.config.api_keys.iter().fold(Choice::from(0), |known, key| known | Sha256::digest(key).ct_eq(&sent));
    if known.into() {
        Ok(())
    } else {
        Err(ApiError::unauthorized("the API key is missing or wrong: send `Authorization: Bearer KEY`"))
    }
}
