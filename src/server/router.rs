//! Paths to routes.

use super::{App, gate, generate, status_routes, text_routes, ui};
use crate::openai::ApiError;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use std::str::FromStr;
use std::sync::Arc;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{Any, CorsLayer};

/// A CORS flag with a value that no header can hold, or `*` together with credentials.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {value:?}: {allowed}")]
pub struct CorsError {
    flag: &'static str,
    value: String,
    allowed: &'static str,
}

/// All routes.
///
/// # Errors
/// [`CorsError`] when the CORS options contradict each other or are no header values.
pub fn router(app: Arc<App>) -> Result<Router, CorsError> {
    let cors = cors(&app)?;
    let page = match app.config.ui {
        true => Router::new().route("/", get(ui::page)).route("/ui/events", get(ui::frames)),
        false => Router::new(),
    };
    Ok(page
        .route("/v1/completions", post(generate::completions))
        .route("/v1/chat/completions", post(generate::chat_completions))
        .route("/v1/completions/render", post(generate::render_completion))
        .route("/v1/chat/completions/render", post(generate::render_chat))
        .route("/v1/models", get(status_routes::models))
        .route("/v1/models/{*model}", get(status_routes::model))
        .route("/tokenize", post(text_routes::tokenize))
        .route("/detokenize", post(text_routes::detokenize))
        .route("/health", get(status_routes::health))
        .route("/ping", get(status_routes::health).post(status_routes::health))
        .route("/version", get(status_routes::version))
        .route("/load", get(status_routes::load))
        .route("/openapi.json", get(status_routes::openapi))
        .route("/metrics", get(status_routes::metrics))
        .route("/kv_event_sources", get(status_routes::kv_event_sources))
        .route("/get_server_info", get(status_routes::server_info))
        .method_not_allowed_fallback(async |request: Request| {
            let (method, path) = (request.method(), request.uri().path());
            ApiError::method_not_allowed(format!("{path} does not take {method}"))
        })
        .fallback(async |request: Request| ApiError::not_found(format!("there is nothing at {}", request.uri().path())))
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(|_| ApiError::internal("the server made a mistake").into_response()))
        .layer(from_fn_with_state(app.clone(), gate::pass))
        .layer(cors)
        .with_state(app))
}

fn cors(app: &App) -> Result<CorsLayer, CorsError> {
    let config = &app.config;
    let wildcard = |list: &[String]| list.iter().any(|entry| entry == "*");
    let mut layer = CorsLayer::new();
    let lists = [&config.allowed_origins, &config.allowed_methods, &config.allowed_headers];
    if config.allow_credentials {
        if lists.iter().any(|list| wildcard(list)) {
            return Err(CorsError {
                flag: "--allow-credentials",
                value: "*".into(),
                allowed: "name the allowed origins, methods and headers: browsers take no `*` with credentials",
            });
        }
        layer = layer.allow_credentials(true);
    }
    layer = match wildcard(&config.allowed_origins) {
        true => layer.allow_origin(Any),
        false => layer.allow_origin(parse::<HeaderValue>("--allowed-origins", &config.allowed_origins)?),
    };
    layer = match wildcard(&config.allowed_methods) {
        true => layer.allow_methods(Any),
        false => layer.allow_methods(parse::<Method>("--allowed-methods", &config.allowed_methods)?),
    };
    Ok(match wildcard(&config.allowed_headers) {
        true => layer.allow_headers(Any),
        false => layer.allow_headers(parse::<HeaderName>("--allowed-headers", &config.allowed_headers)?),
    })
}

fn parse<T: FromStr>(flag: &'static str, list: &[String]) -> Result<Vec<T>, CorsError> {
    let one = |value: &String| {
        value.parse().map_err(|_| CorsError { flag, value: value.clone(), allowed: "cannot stand in a header" })
    };
    list.iter().map(one).collect()
}
