//! What every request passes: its id, the key, the log.

use super::App;
use crate::openai::ApiError;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use subtle::{Choice, ConstantTimeEq};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The request's id: the client's, or one of ours.
#[derive(Debug, Clone)]
pub(super) struct RequestTag(pub(super) String);

/// Gives the request an id, checks its key, and logs how it went.
pub(super) async fn pass(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let tag = tag(request.headers())
        .unwrap_or_else(|| format!("{:x}-{:x}", app.started, app.next_id.fetch_add(1, Ordering::Relaxed)));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(RequestTag(tag.clone()));
    let mut response = match check_key(&app, &method, &path, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    tracing::debug!(
        request_id = %tag, %method, %path, status = response.status().as_u16(),
        ms = began.elapsed().as_millis() as u64, "answered"
    );
    if let Ok(value) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn tag(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get(REQUEST_ID)?.to_str().ok()?;
    let is_fine = (1..=MAX_REQUEST_ID_BYTES).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_graphic());
    is_fine.then(|| tag.to_owned())
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
    // Every key is compared, each in a time that does not tell where it differs.
    let known = app.config.api_keys.iter().fold(Choice::from(0), |known, key| known | key.as_bytes().ct_eq(sent));
    if known.into() {
        Ok(())
    } else {
        Err(ApiError::unauthorized("the API key is missing or wrong: send `Authorization: Bearer KEY`"))
    }
}
