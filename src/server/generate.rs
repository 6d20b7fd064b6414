//! `/v1/completions` and `/v1/chat/completions`.

use super::app::now;
use super::body::Body;
use super::error::json_response;
use super::gate::RequestTag;
use super::stream::{LoadGuard, sse};
use super::{App, Submission};
use crate::engine::TokenId;
use crate::llm::{LlmError, RequestOutput};
use crate::openai::{
    ApiError, ChatCompletionRequest, CompletionRequest, GenerateRequest, Reply, StreamReply, StreamedResponse,
};
use crate::structured::Grammar;
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// A year: as good as no deadline.
const NO_DEADLINE: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

pub(super) async fn completions(
    State(app): State<Arc<App>>,
    Extension(tag): Extension<RequestTag>,
    Body(request): Body<CompletionRequest>,
) -> Result<Response, ApiError> {
    generate(app, tag, GenerateRequest::Completion(request)).await
}

pub(super) async fn chat_completions(
    State(app): State<Arc<App>>,
    Extension(tag): Extension<RequestTag>,
    Body(request): Body<ChatCompletionRequest>,
) -> Result<Response, ApiError> {
    generate(app, tag, GenerateRequest::Chat(request)).await
}

pub(super) async fn render_completion(
    State(app): State<Arc<App>>,
    Body(request): Body<CompletionRequest>,
) -> Result<Response, ApiError> {
    render(&app, GenerateRequest::Completion(request)).await
}

pub(super) async fn render_chat(
    State(app): State<Arc<App>>,
    Body(request): Body<ChatCompletionRequest>,
) -> Result<Response, ApiError> {
    render(&app, GenerateRequest::Chat(request)).await
}

/// What would be generated from: an object per prompt.
async fn render(app: &Arc<App>, request: GenerateRequest) -> Result<Response, ApiError> {
    let model = app.model_name(request.common().model.as_deref())?.to_owned();
    let (request, prompts, _) = prepare(app, request).await?;
    let params = json!(request.common().params);
    let rendered = |ids| json!({"model": model, "token_ids": ids, "sampling_params": params});
    Ok(json_response(StatusCode::OK, &Value::Array(prompts.into_iter().map(rendered).collect())))
}

async fn generate(app: Arc<App>, tag: RequestTag, request: GenerateRequest) -> Result<Response, ApiError> {
    let deadline = Instant::now() + app.config.request_timeout.unwrap_or(NO_DEADLINE);
    let guard = LoadGuard::new(&app.load);
    check(&app, &request)?;
    let model = app.model_name(request.common().model.as_deref())?.to_owned();
    let tag = tag.or(request.common().request_id.as_deref())?;
    let prepared = timeout_at(deadline, prepare(&app, request)).await;
    let (request, prompts, grammar) = prepared.map_err(|_| ApiError::late())??;
    let common = request.common();
    if app.config.log_requests {
        let tokens: Vec<usize> = prompts.iter().map(Vec::len).collect();
        tracing::info!(request_id = %tag, prompt_tokens = ?tokens, params = ?common.params, "received");
    }
    let mut events = app.engine.submit(Submission {
        prompts: prompts.clone(),
        params: common.params.clone(),
        priority: common.priority,
        cache_salt: common.cache_salt.clone().map(String::into_bytes),
        grammar,
    })?;
    let ids = timeout_at(deadline, events.accepted()).await.map_err(|_| ApiError::late())??;
    let outputs = ids.into_iter().zip(prompts).map(|(id, prompt)| RequestOutput::new(id, prompt, &common.params));
    let mut outputs: Vec<RequestOutput> = outputs.collect();
    let id = format!("{}-{tag}", request.id_prefix());
    if common.stream {
        let reply = StreamReply { id, created: now(), model, tokenizer: app.tokenizer.clone() };
        return Ok(sse(StreamedResponse::new(request, outputs, reply), events, deadline, guard));
    }
    let all = async {
        while let Some(event) = events.next().await {
            let (prompt, event) = event?;
            outputs[prompt].push(event);
        }
        Ok::<(), ApiError>(())
    };
    timeout_at(deadline, all).await.map_err(|_| ApiError::late())??;
    if !outputs.iter().all(RequestOutput::is_done) {
        return Err(ApiError::overloaded("the server was stopped before the answer was complete"));
    }
    let reply = Reply { id: &id, created: now(), model: &model, tokenizer: app.tokenizer.as_deref() };
    Ok(json_response(StatusCode::OK, &request.response(&outputs, reply)?))
}

fn check(app: &App, request: &GenerateRequest) -> Result<(), ApiError> {
    let common = request.common();
    let (max_prompts, max_n) = (app.config.max_prompts, app.config.max_n);
    if let GenerateRequest::Completion(request) = request
        && request.prompts.len() > max_prompts
    {
        let prompts = request.prompts.len();
        return Err(ApiError::bad_field("prompt", format!("{prompts} prompts; at most {max_prompts} are taken")));
    }
    if common.params.num_sequences() > max_n {
        return Err(ApiError::bad_field("n", format!("`n` and `best_of` must be at most {max_n} here")));
    }
    Ok(())
}

/// A request with its prompts' token ids and its grammar.
type Prepared = (GenerateRequest, Vec<Vec<TokenId>>, Option<Grammar>);

/// Templates, tokenizers and grammars take their time: not on the threads that serve others.
async fn prepare(app: &Arc<App>, request: GenerateRequest) -> Result<Prepared, ApiError> {
    app.check_text(&request)?;
    let (of, text_bytes) = (app.clone(), request.text_bytes());
    let tokenise = move || {
        let max_model_len = of.scheduler.max_model_len;
        let ids = request.token_ids(of.tokenizer.as_deref(), of.chat_template.as_deref(), max_model_len)?;
        Ok::<_, ApiError>((request, ids))
    };
    let (request, ids) = app.aside(text_bytes, tokenise).await??;
    let grammar = match request.common().params.structured_outputs.clone() {
        None => None,
        Some(spec) => {
            // It has a bound of its own on how many are compiled at a time.
            let compiler = app.compiler.clone();
            let compiled = tokio::task::spawn_blocking(move || compiler.compile(&spec)).await;
            let compiled = compiled.map_err(|_| ApiError::internal("the grammar compiler failed"))?;
            Some(compiled.map_err(|error| ApiError::from(LlmError::Grammar(error)))?)
        }
    };
    Ok((request, ids, grammar))
}
