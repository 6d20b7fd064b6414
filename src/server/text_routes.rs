//! `/tokenize` and `/detokenize`.

use super::App;
use super::body::{Body, FromJson};
use super::error::json_response;
use crate::engine::TokenId;
use crate::openai::{ApiError, ChatCompletionRequest, CompletionRequest, GenerateRequest};
use crate::sampling::SamplingParams;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Either kind of request, of which only the prompt counts.
pub(super) struct Tokenize {
    request: GenerateRequest,
    wants_texts: bool,
}

impl FromJson for Tokenize {
    fn from_json(body: Value, default: &SamplingParams) -> Result<Self, ApiError> {
        let wants_texts = body.get("return_token_strs").and_then(Value::as_bool).unwrap_or(false);
        let request = match body.get("messages") {
            Some(_) => GenerateRequest::Chat(ChatCompletionRequest::from_body(body, default)?),
            None => GenerateRequest::Completion(CompletionRequest::from_body(body, default)?),
        };
        Ok(Self { request, wants_texts })
    }
}

pub(super) async fn tokenize(
    State(app): State<Arc<App>>,
    Body(Tokenize { request, wants_texts }): Body<Tokenize>,
) -> Result<Response, ApiError> {
    app.model_name(request.common().model.as_deref())?;
    app.check_text(&request)?;
    let (of, text_bytes) = (app.clone(), request.text_bytes());
    let work = move || {
        let app = of;
        let max_model_len = app.scheduler.max_model_len;
        let ids = request.token_ids(app.tokenizer.as_deref(), app.chat_template.as_deref(), max_model_len)?;
        let [tokens] = &ids[..] else {
            return Err(ApiError::bad_field("prompt", "`prompt` must be one text"));
        };
        let text = |token: &TokenId| app.tokenizer.as_ref().and_then(|tokenizer| tokenizer.id_to_token(*token));
        let texts = wants_texts.then(|| tokens.iter().map(text).collect::<Vec<_>>());
        Ok(json!({"count": tokens.len(), "max_model_len": max_model_len, "tokens": tokens, "token_strs": texts}))
    };
    Ok(json_response(StatusCode::OK, &app.aside(text_bytes, work).await??))
}

#[derive(Deserialize)]
pub(super) struct Detokenize {
    model: Option<String>,
    tokens: Vec<TokenId>,
}

impl FromJson for Detokenize {
    fn from_json(body: Value, _: &SamplingParams) -> Result<Self, ApiError> {
        serde_json::from_value(body).map_err(|error| ApiError::bad_field("tokens", format!("bad request: {error}")))
    }
}

pub(super) async fn detokenize(
    State(app): State<Arc<App>>,
    Body(request): Body<Detokenize>,
) -> Result<Response, ApiError> {
    app.model_name(request.model.as_deref())?;
    let tokenizer = app.tokenizer.clone().ok_or_else(|| ApiError::bad_request("the model has no tokenizer"))?;
    let vocab_size = tokenizer.vocab_size();
    if let Some(token) = request.tokens.iter().find(|token| **token as usize >= vocab_size) {
        let message = format!("token id {token} is not in the vocabulary of {vocab_size} tokens");
        return Err(ApiError::bad_field("tokens", message));
    }
    let text = app.aside(4 * request.tokens.len(), move || tokenizer.decode(&request.tokens, false)).await??;
    Ok(json_response(StatusCode::OK, &json!({"prompt": text})))
}
