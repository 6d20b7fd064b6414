//! The bodies of answers.

use serde_json::{Value, json};

use super::call_finder::{CallFinder, Part};
use super::logprobs::{chat_logprobs, completion_logprobs, prompt_logprobs};
use super::tools::call_json;
use super::{ApiError, ChatCompletionRequest, CompletionRequest, Prompt, ToolChoice};
use crate::engine::{RequestAccounting, TokenId};
use crate::llm::{Completion, Finish, FinishCause, RequestOutput};
use crate::sampling::TokenLogprobs;
use crate::text::Tokenizer;

/// What an answer says besides what was generated.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// Unique among the answers: `cmpl-...` or `chatcmpl-...`.
    pub id: &'a str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's name.
    pub model: &'a str,
    /// For the text of prompts and single tokens.
    pub tokenizer: Option<&'a Tokenizer>,
}

/// The answer to a [`CompletionRequest`]: `outputs` are those of its prompts, in order, all of them done.
///
/// # Errors
/// When a sequence ended by an error of ours.
pub fn completion_response(
    request: &CompletionRequest,
    outputs: &[RequestOutput],
    reply: Reply<'_>,
) -> Result<Value, ApiError> {
    check(outputs)?;
    let mut choices = Vec::new();
    for (output, prompt) in outputs.iter().zip(&request.prompts) {
        for completion in &output.completions {
            choices.push(completion_choice(request, prompt, output, completion, choices.len(), reply.tokenizer)?);
        }
    }
    Ok(json!({
        "id": reply.id,
        "object": "text_completion",
        "created": reply.created,
        "model": reply.model,
        "choices": choices,
        "usage": usage(outputs, request.prompt_only),
        "kv": kv(outputs.iter()),
    }))
}

fn completion_choice(
    request: &CompletionRequest,
    sent: &Prompt,
    output: &RequestOutput,
    completion: &Completion,
    index: usize,
    tokenizer: Option<&Tokenizer>,
) -> Result<Value, ApiError> {
    let params = &request.common.params;
    let prompt = &output.prompt_token_ids;
    let (mut text, mut tokens, mut logprobs) =
        (String::new(), Vec::<TokenId>::new(), Vec::<Option<&TokenLogprobs>>::new());
    if request.echo {
        text = echoed_text(request, sent, prompt, tokenizer)?;
        tokens.extend(prompt);
        logprobs.push(None);
        logprobs.extend(output.prompt_logprobs.iter().map(Some));
    }
    if !request.prompt_only {
        text.push_str(&completion.text);
        tokens.extend(&completion.token_ids);
        logprobs.extend(completion.logprobs.iter().map(Some));
    }
    let (finish_reason, stop_reason) =
        if request.prompt_only { (json!("length"), Value::Null) } else { ended(completion) };
    let mut choice = json!({
        "index": index,
        "text": text,
        "logprobs": params.logprobs.map(|_| completion_logprobs(tokenizer, &tokens, &logprobs, &mut 0)),
        "finish_reason": finish_reason,
        "stop_reason": stop_reason,
    });
    if params.prompt_logprobs.is_some() {
        choice["prompt_logprobs"] = prompt_logprobs(tokenizer, &output.prompt_logprobs);
    }
    if request.common.return_token_ids {
        choice["token_ids"] = if request.prompt_only { json!([]) } else { json!(completion.token_ids) };
        choice["prompt_token_ids"] = json!(prompt);
    }
    Ok(choice)
}

/// The prompt's text, as `echo` gives it back.
pub(super) fn echoed_text(
    request: &CompletionRequest,
    sent: &Prompt,
    prompt: &[TokenId],
    tokenizer: Option<&Tokenizer>,
) -> Result<String, ApiError> {
    Ok(match (sent, tokenizer) {
        (Prompt::Text(sent), _) if request.common.truncate_prompt_tokens.is_none() => sent.clone(),
        (_, Some(tokenizer)) => tokenizer.decode(prompt, request.common.params.skip_special_tokens)?,
        (_, None) => String::new(),
    })
}

/// The answer to a [`ChatCompletionRequest`], whose prompt gave `output`.
///
/// # Errors
/// When a sequence ended by an error of ours.
pub fn chat_response(
    request: &ChatCompletionRequest,
    output: &RequestOutput,
    reply: Reply<'_>,
) -> Result<Value, ApiError> {
    let outputs = std::slice::from_ref(output);
    check(outputs)?;
    let params = &request.common.params;
    let choice = |(index, completion): (usize, &Completion)| {
        let (finish_reason, stop_reason) = ended(completion);
        let (message, calls) = message(request, &completion.text, reply.id, index);
        let mut choice = json!({
            "index": index,
            "message": message,
            "logprobs": params.logprobs.map(|_| chat_logprobs(reply.tokenizer, &completion.logprobs)),
            "finish_reason": with_calls(request, finish_reason, calls),
            "stop_reason": stop_reason,
        });
        if request.common.return_token_ids {
            choice["token_ids"] = json!(completion.token_ids);
        }
        choice
    };
    let mut body = json!({
        "id": reply.id,
        "object": "chat.completion",
        "created": reply.created,
        "model": reply.model,
        "choices": output.completions.iter().enumerate().map(choice).collect::<Vec<_>>(),
        "usage": usage(outputs, false),
        "kv": kv(outputs.iter()),
    });
    if params.prompt_logprobs.is_some() {
        body["prompt_logprobs"] = prompt_logprobs(reply.tokenizer, &output.prompt_logprobs);
    }
    if request.common.return_token_ids {
        body["prompt_token_ids"] = json!(output.prompt_token_ids);
    }
    Ok(body)
}

/// The assistant's message, and how many calls are in it.
fn message(request: &ChatCompletionRequest, text: &str, reply: &str, choice: usize) -> (Value, usize) {
    if request.tools.choice == ToolChoice::None {
        return (json!({"role": "assistant", "content": text}), 0);
    }
    let (mut finder, mut parts) = (CallFinder::new(&request.tools), Vec::new());
    finder.push(text, &mut parts);
    finder.finish(&mut parts);
    let (mut content, mut calls) = (String::new(), Vec::<(String, String)>::new());
    for part in parts {
        match part {
            Part::Text(text) => content += &text,
            Part::Call { name, arguments } => calls.push((name, arguments)),
            Part::Arguments(more) => calls.last_mut().expect("arguments are a call's").1 += &more,
        }
    }
    let count = calls.len();
    let call =
        |(at, (name, arguments)): (usize, &(String, String))| call_json(&call_id(reply, choice, at), name, arguments);
    let content = if content.is_empty() && count > 0 { Value::Null } else { Value::String(content) };
    let mut message = json!({"role": "assistant", "content": content});
    if count > 0 {
        message["tool_calls"] = calls.iter().enumerate().map(call).collect();
    }
    (message, count)
}

/// An id that no other call of the server's has.
pub(super) fn call_id(reply: &str, choice: usize, call: usize) -> String {
    format!("call_{}_{choice}_{call}", reply.trim_start_matches("chatcmpl-"))
}

/// The reason why a choice ended, once it is known how many calls it made.
pub(super) fn with_calls(request: &ChatCompletionRequest, reason: Value, calls: usize) -> Value {
    if reason != "stop" {
        return reason;
    }
    request.tools.finish_reason(calls).map_or(reason, Value::from)
}

/// A sequence that ended by an error makes the whole answer one.
fn check(outputs: &[RequestOutput]) -> Result<(), ApiError> {
    let finishes = outputs.iter().flat_map(|output| &output.completions).filter_map(|c| c.finish.as_ref());
    finishes.map(failure).find(Option::is_some).flatten().map_or(Ok(()), Err)
}

/// The error that a sequence ended by, if it was one.
pub(super) fn failure(finish: &Finish) -> Option<ApiError> {
    match &finish.cause {
        FinishCause::Error(error) => Some(ApiError::internal(error.clone())),
        FinishCause::Refused(error) => Some(ApiError::bad_request(error.clone())),
        FinishCause::Eos | FinishCause::StopToken(_) | FinishCause::StopString(_) | FinishCause::Length => None,
    }
}

fn ended(completion: &Completion) -> (Value, Value) {
    finish_fields(completion.finish.as_ref())
}

/// `finish_reason` and vLLM's `stop_reason`: the stop string or token that ended it, null otherwise.
pub(super) fn finish_fields(finish: Option<&Finish>) -> (Value, Value) {
    let reason = finish.map(Finish::reason);
    let stop = match finish.map(|finish| &finish.cause) {
        Some(FinishCause::StopString(text)) => json!(text),
        Some(FinishCause::StopToken(token)) => json!(token),
        _ => Value::Null,
    };
    (json!(reason), stop)
}

fn usage(outputs: &[RequestOutput], prompt_only: bool) -> Value {
    let prompt_tokens: usize = outputs.iter().map(|output| output.prompt_token_ids.len()).sum();
    let completion_tokens: usize =
        if prompt_only { 0 } else { outputs.iter().map(RequestOutput::completion_tokens).sum() };
    let cached_tokens = outputs.iter().filter_map(|output| Some(output.accounting.as_ref()?.cached_tokens)).sum();
    usage_fields(prompt_tokens, completion_tokens, cached_tokens)
}

/// `usage`.
pub(super) fn usage_fields(prompt_tokens: usize, completion_tokens: usize, cached_tokens: u64) -> Value {
    json!({
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    })
}

/// What the request has cost in KV blocks.
pub(super) fn kv<'a>(outputs: impl Iterator<Item = &'a RequestOutput> + Clone) -> Value {
    let sum = |part: fn(&RequestAccounting) -> u64| {
        outputs.clone().filter_map(|output| output.accounting.as_ref()).map(part).sum::<u64>()
    };
    json!({
        "blocks_allocated": sum(|a| a.blocks_allocated),
        "blocks_shared": sum(|a| a.blocks_shared),
        "blocks_copied": sum(|a| a.blocks_copied),
        "cached_tokens": sum(|a| a.cached_tokens),
        "unused_slots": sum(|a| a.unused_slots),
        "computed_tokens": sum(|a| a.computed_tokens),
        "blocks_swapped": sum(|a| a.blocks_swapped),
        "preemptions": sum(|a| a.preemptions),
    })
}
