//! `/tokenize` and `/detokenize`.

use super::App;
use super::body::JsonBody;
use super::error::json_response;
use crate::engine::TokenId;
use crate::openai::{ApiError, ChatCompletionRequest, CompletionRequest, GenerateRequest};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn tokenize(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<Response, ApiError> {
    let wants_texts = body.get("return_token_strs").and_then(Value::as_bool).unwrap_or(false);
    let request = match body.get("messages") {
        Some(_) => GenerateRequest::Chat(ChatCompletionRequest::from_body(body)?),
        None => GenerateRequest::Completion(CompletionRequest::from_body(body)?),
    };
    app.model_name(request.common().model.as_deref())?;
    app.check_text(&request)?;
    let work = move || {
        let max_model_len = app.scheduler.max_model_len;
        let ids = request.token_ids(app.tokenizer.as_deref(), app.chat_template.as_deref(), max_model_len)?;
        let [tokens] = &ids[..] else {
            return Err(ApiError::bad_field("prompt", "`prompt` must be one text"));
        };
        let text = |token: &TokenId| app.tokenizer.as_ref().and_then(|tokenizer| tokenizer.id_to_token(*token));
        let texts = wants_texts.then(|| tokens.iter().map(text).collect::<Vec<_>>());
        Ok(json!({"count": tokens.len(), "max_model_len": max_model_len, "tokens": tokens, "token_strs": texts}))
    };
    let body = tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::internal("the tokenizer failed"))??;
    Ok(json_response(StatusCode::OK, &body))
}

#[derive(Deserialize)]
struct Detokenize {
    model: Option<String>,
    tokens: Vec<TokenId>,
}

pub(super) async fn detokenize(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<Response, ApiError> {
    let request: Detokenize =
        serde_json::from_value(body).map_err(|error| ApiError::bad_field("tokens", format!("bad request: {error}")))?;
    app.model_name(request.model.as_deref())?;
    let tokenizer = app.tokenizer.as_ref().ok_or_else(|| ApiError::bad_request("the model has no tokenizer"))?;
    let vocab_size = tokenizer.vocab_size();
    if let Some(token) = request.tokens.iter().find(|token| **token as usize >= vocab_size) {
        let message = format!("token id {token} is not in the vocabulary of {vocab_size} tokens");
        return Err(ApiError::bad_field("tokens", message));
    }
    Ok(json_response(StatusCode::OK, &json!({"prompt": tokenizer.decode(&request.tokens, false)?})))
}
