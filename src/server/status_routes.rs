//! How the server is, and what it serves.

use super::error::json_response;
use super::{App, EngineState, KvEventSource};
use crate::openai::ApiError;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(super) async fn health(State(app): State<Arc<App>>) -> Result<StatusCode, ApiError> {
    match app.engine.state() {
        EngineState::Running => Ok(StatusCode::OK),
        EngineState::Stopped => Err(ApiError::overloaded("the server is shutting down")),
        EngineState::Failed(error) => Err(ApiError::overloaded(format!("the engine has failed: {error}"))),
    }
}

pub(super) async fn version() -> Response {
    json_response(StatusCode::OK, &json!({"version": env!("CARGO_PKG_VERSION")}))
}

pub(super) async fn load(State(app): State<Arc<App>>) -> Response {
    json_response(StatusCode::OK, &json!({"server_load": app.load.load(Ordering::Relaxed)}))
}

/// What the server takes and gives, as OpenAPI 3.1.
pub(super) async fn openapi() -> Response {
    let mut description: Value = serde_json::from_str(include_str!("openapi.json")).expect("the file is JSON");
    description["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    json_response(StatusCode::OK, &description)
}

pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.text())
}

/// Where the KV events of each rank come from, with the host that this client used, as vllm-router reads it.
pub(super) async fn kv_event_sources(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1");
    let host = host.rsplit_once(':').map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
    let sources = app.config.kv_event_sources.iter().map(|source| source.seen_from(host));
    let by_rank: BTreeMap<u32, KvEventSource> = sources.map(|source| (source.data_parallel_rank, source)).collect();
    json_response(StatusCode::OK, &json!(by_rank))
}

pub(super) async fn models(State(app): State<Arc<App>>) -> Response {
    let data: Vec<Value> = app.config.served_model_names.iter().map(|name| card(&app, name)).collect();
    json_response(StatusCode::OK, &json!({"object": "list", "data": data}))
}

pub(super) async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, ApiError> {
    Ok(json_response(StatusCode::OK, &card(&app, app.model_name(Some(&name))?)))
}

/// A name that the model is served under, as OpenAI's API describes a model.
fn card(app: &App, name: &str) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": app.started,
        "owned_by": "bindery",
        "root": app.config.served_model_names[0],
        "parent": null,
        "max_model_len": app.scheduler.max_model_len,
    })
}

/// Names and sizes, as vllm-router looks for them. It takes `block_size` and `kv_block_size` for one field, and refuses both.
pub(super) async fn server_info(State(app): State<Arc<App>>) -> Response {
    let scheduler = &app.scheduler;
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "model_id": app.config.served_model_names[0],
        "served_model_names": app.config.served_model_names,
        "device": app.device,
        "block_size": scheduler.block_size,
        "effective_attention_block_size": scheduler.block_size,
        "num_gpu_blocks": scheduler.num_blocks,
        "max_model_len": scheduler.max_model_len,
        "max_num_seqs": scheduler.max_num_seqs,
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        "enable_prefix_caching": scheduler.enable_prefix_caching,
    });
    json_response(StatusCode::OK, &body)
}
