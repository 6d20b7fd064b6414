//! Paths to routes.

use super::{App, CorsPolicy, gate, generate, status_routes, text_routes, ui};
use crate::openai::ApiError;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use std::sync::Arc;
use tower_http::catch_panic::CatchPanicLayer;

/// All routes.
pub fn router(app: Arc<App>, cors: CorsPolicy) -> Router {
    let page = match app.config.ui {
        true => Router::new().route("/", get(ui::page)).route("/ui/events", get(ui::frames)),
        false => Router::new(),
    };
    page.route("/v1/completions", post(generate::completions))
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
        .layer(cors.0)
        .with_state(app)
}
