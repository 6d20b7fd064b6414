//! The chunks of a streamed answer.

use super::call_finder::{CallFinder, Part};
use super::logprobs::{chat_logprobs, completion_logprobs};
use super::response::{call_id, echoed_text, failure, finish_fields, kv, usage_fields, with_calls};
use super::tools::call_json;
use super::{ApiError, CompletionRequest, GenerateRequest, ToolChoice};
use crate::engine::TokenId;
use crate::llm::{Completion, Event, RequestOutput, TokenUpdate};
use crate::sampling::TokenLogprobs;
use crate::text::Tokenizer;
use serde_json::{Value, json};
use std::sync::Arc;

/// What a streamed answer says besides what was generated: see [`super::Reply`].
#[derive(Debug, Clone)]
pub struct StreamReply {
    /// Unique among the answers: `cmpl-...` or `chatcmpl-...`.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's name.
    pub model: String,
    /// For the text of prompts and single tokens.
    pub tokenizer: Option<Arc<Tokenizer>>,
}

/// An answer on its way: engine events in, chunks out, as OpenAI and vLLM cut them. The texts of a choice's chunks,
/// joined, are the text of the same choice in one piece.
pub struct StreamedResponse {
    request: GenerateRequest,
    reply: StreamReply,
    prompts: Vec<PromptState>,
}

struct PromptState {
    output: RequestOutput,
    choices: Vec<ChoiceState>,
    is_held_back: bool,
}

#[derive(Default)]
struct ChoiceState {
    has_begun: bool,
    /// Characters so far, as `text_offset` counts them.
    text_offset: usize,
    /// Of a chat that offers tools.
    calls: Option<CallFinder>,
}

/// A part of a choice.
#[derive(Default)]
struct Piece<'a> {
    text: &'a str,
    tokens: &'a [TokenId],
    logprobs: &'a [TokenLogprobs],
    finish: Option<(Value, Value)>,
}

impl StreamedResponse {
    /// With nothing generated yet: `outputs` are those of the prompts, in order, empty.
    pub fn new(request: GenerateRequest, outputs: Vec<RequestOutput>, reply: StreamReply) -> Self {
        let params = &request.common().params;
        // Which of `best_of` completions are the best is known when all have ended.
        let is_held_back = params.num_sequences() > params.n;
        let calls = || match &request {
            GenerateRequest::Chat(request) if request.tools.choice != ToolChoice::None => {
                Some(CallFinder::new(&request.tools))
            }
            _ => None,
        };
        let choices = || (0..params.n).map(|_| ChoiceState { calls: calls(), ..ChoiceState::default() }).collect();
        let state = |output| PromptState { output, choices: choices(), is_held_back };
        Self { prompts: outputs.into_iter().map(state).collect(), request, reply }
    }

    /// Whether all prompts are answered.
    pub fn is_done(&self) -> bool {
        self.prompts.iter().all(|prompt| prompt.output.is_done())
    }

    /// The results so far.
    pub fn outputs(&self) -> impl Iterator<Item = &RequestOutput> + Clone {
        self.prompts.iter().map(|prompt| &prompt.output)
    }

    /// Adds an event of the prompt of this index; the chunks that are due go to `chunks`.
    ///
    /// # Errors
    /// When a sequence ended by an error of ours, or its text cannot be made.
    pub fn push(&mut self, prompt: usize, event: Event, chunks: &mut Vec<Value>) -> Result<(), ApiError> {
        let update = match &event {
            Event::Token(update) => Some(update.clone()),
            Event::PromptLogprobs { .. } | Event::Done { .. } => None,
        };
        let finish = update.as_ref().and_then(|update| update.finish.as_ref());
        if let Some(error) = finish.and_then(failure) {
            return Err(error);
        }
        let state = &mut self.prompts[prompt];
        state.output.push(event);
        if !state.is_held_back {
            return update.map_or(Ok(()), |update| self.token(prompt, &update, chunks));
        }
        if state.output.is_done() {
            for (index, completion) in std::mem::take(&mut state.output.completions).iter().enumerate() {
                self.whole(prompt, index, completion, chunks)?;
                self.prompts[prompt].output.completions.push(completion.clone());
            }
        }
        Ok(())
    }

    /// The chunk after the last choice's end, if the request wants one: no choices, but the usage and what was taken of
    /// the KV pool.
    pub fn usage_chunk(&self) -> Option<Value> {
        self.request.common().stream_options.include_usage.then(|| {
            let mut chunk = self.chunk(json!([]));
            chunk["usage"] = self.usage();
            chunk["kv"] = kv(self.outputs());
            chunk
        })
    }

    fn token(&mut self, prompt: usize, update: &TokenUpdate, chunks: &mut Vec<Value>) -> Result<(), ApiError> {
        let piece = Piece {
            text: &update.text,
            tokens: update.token.as_slice(),
            logprobs: update.logprobs.as_slice(),
            finish: update.finish.as_ref().map(|finish| finish_fields(Some(finish))),
        };
        self.piece(prompt, update.index as usize, piece, chunks)
    }

    fn whole(
        &mut self,
        prompt: usize,
        index: usize,
        completion: &Completion,
        chunks: &mut Vec<Value>,
    ) -> Result<(), ApiError> {
        let piece = Piece {
            text: &completion.text,
            tokens: &completion.token_ids,
            logprobs: &completion.logprobs,
            finish: Some(finish_fields(completion.finish.as_ref())),
        };
        self.piece(prompt, index, piece, chunks)
    }

    fn piece(
        &mut self,
        prompt: usize,
        index: usize,
        piece: Piece<'_>,
        chunks: &mut Vec<Value>,
    ) -> Result<(), ApiError> {
        let choice = match &self.request {
            GenerateRequest::Completion(request) => {
                completion_choice(request, prompt, index, &mut self.prompts[prompt], piece, &self.reply)?
            }
            GenerateRequest::Chat(_) => {
                let begins = !std::mem::replace(&mut self.prompts[prompt].choices[index].has_begun, true);
                if begins {
                    let delta = json!({"role": "assistant", "content": ""});
                    let choice = json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null});
                    chunks.push(self.chunk(json!([choice])));
                }
                self.chat_choices(prompt, index, piece, chunks);
                return Ok(());
            }
        };
        chunks.extend(choice.map(|choice| self.chunk(json!([choice]))));
        Ok(())
    }

    /// The chunks of a piece of a chat: one for each call in it, and one for its text, its tokens and its end.
    fn chat_choices(&mut self, prompt: usize, index: usize, mut piece: Piece<'_>, chunks: &mut Vec<Value>) {
        let GenerateRequest::Chat(request) = &self.request else { return };
        let Some(finder) = &mut self.prompts[prompt].choices[index].calls else {
            let text = piece.text.to_owned();
            chunks.extend(self.chat_choice(index, &text, piece).map(|choice| self.chunk(json!([choice]))));
            return;
        };
        let calls_before = finder.calls();
        let mut parts = Vec::new();
        finder.push(piece.text, &mut parts);
        if piece.finish.is_some() {
            finder.finish(&mut parts);
        }
        if let Some((reason, _)) = &mut piece.finish {
            *reason = with_calls(request, std::mem::take(reason), finder.calls());
        }
        let (text, deltas) = call_deltas(parts, &self.reply.id, index, calls_before);
        for delta in deltas {
            let choice = json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null});
            chunks.push(self.chunk(json!([choice])));
        }
        chunks.extend(self.chat_choice(index, &text, piece).map(|choice| self.chunk(json!([choice]))));
    }

    fn chat_choice(&self, index: usize, text: &str, piece: Piece<'_>) -> Option<Value> {
        let common = self.request.common();
        let tells_tokens = common.return_token_ids || common.params.logprobs.is_some();
        if text.is_empty() && piece.finish.is_none() && !tells_tokens {
            return None;
        }
        let logprobs = common.params.logprobs.map(|_| chat_logprobs(self.reply.tokenizer.as_deref(), piece.logprobs));
        let (finish_reason, stop_reason) = piece.finish.unwrap_or_default();
        let delta = if text.is_empty() { json!({}) } else { json!({"content": text}) };
        let mut choice = json!({
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
            "stop_reason": stop_reason,
        });
        if common.return_token_ids {
            choice["token_ids"] = json!(piece.tokens);
        }
        Some(choice)
    }

    fn chunk(&self, choices: Value) -> Value {
        let object = match self.request {
            GenerateRequest::Completion(_) => "text_completion",
            GenerateRequest::Chat(_) => "chat.completion.chunk",
        };
        let reply = &self.reply;
        let mut chunk = json!({
            "id": reply.id,
            "object": object,
            "created": reply.created,
            "model": reply.model,
            "choices": choices,
        });
        let options = self.request.common().stream_options;
        if options.include_usage {
            chunk["usage"] = if options.continuous_usage_stats { self.usage() } else { Value::Null };
        }
        chunk
    }

    fn usage(&self) -> Value {
        let prompt_only = matches!(&self.request, GenerateRequest::Completion(request) if request.prompt_only);
        let prompt = self.outputs().map(|output| output.prompt_token_ids.len()).sum();
        let completion = self.outputs().map(RequestOutput::completion_tokens).sum();
        let cached = self.outputs().filter_map(|output| Some(output.accounting.as_ref()?.cached_tokens)).sum();
        usage_fields(prompt, if prompt_only { 0 } else { completion }, cached)
    }
}

/// The text among `parts`, and a delta for each part of a call; `calls_before` were begun earlier.
fn call_deltas(parts: Vec<Part>, reply: &str, choice: usize, calls_before: usize) -> (String, Vec<Value>) {
    let (mut text, mut deltas, mut calls) = (String::new(), Vec::new(), calls_before);
    for part in parts {
        let call = match part {
            Part::Text(more) => {
                text += &more;
                continue;
            }
            Part::Call { name, arguments } => {
                calls += 1;
                let mut call = call_json(&call_id(reply, choice, calls - 1), &name, &arguments);
                call["index"] = json!(calls - 1);
                call
            }
            Part::Arguments(more) => json!({"index": calls - 1, "function": {"arguments": more}}),
        };
        deltas.push(json!({"tool_calls": [call]}));
    }
    (text, deltas)
}

/// A completion's choice; the first one of an echoed prompt begins with it.
fn completion_choice(
    request: &CompletionRequest,
    prompt: usize,
    index: usize,
    state: &mut PromptState,
    piece: Piece<'_>,
    reply: &StreamReply,
) -> Result<Option<Value>, ApiError> {
    let common = &request.common;
    let tokenizer = reply.tokenizer.as_deref();
    let choice = &mut state.choices[index];
    let prompt_token_ids = &state.output.prompt_token_ids;
    let (mut text, mut tokens, mut logprobs) = (String::new(), Vec::new(), Vec::new());
    let begins = !std::mem::replace(&mut choice.has_begun, true);
    if begins && request.echo {
        text = echoed_text(request, &request.prompts[prompt], prompt_token_ids, tokenizer)?;
        tokens.extend(prompt_token_ids);
        logprobs.push(None);
        logprobs.extend(state.output.prompt_logprobs.iter().map(Some));
    }
    if !request.prompt_only {
        text.push_str(piece.text);
        tokens.extend(piece.tokens);
        logprobs.extend(piece.logprobs.iter().map(Some));
    }
    let tells_tokens = common.return_token_ids || common.params.logprobs.is_some();
    if text.is_empty() && piece.finish.is_none() && !tells_tokens {
        return Ok(None);
    }
    let (mut finish_reason, mut stop_reason) = piece.finish.unwrap_or_default();
    if request.prompt_only {
        (finish_reason, stop_reason) = (json!("length"), Value::Null);
    }
    let logprobs =
        common.params.logprobs.map(|_| completion_logprobs(tokenizer, &tokens, &logprobs, &mut choice.text_offset));
    let mut value = json!({
        "index": prompt * common.params.n as usize + index,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": finish_reason,
        "stop_reason": stop_reason,
    });
    if common.return_token_ids {
        value["token_ids"] = if request.prompt_only { json!([]) } else { json!(piece.tokens) };
        value["prompt_token_ids"] = if begins { json!(prompt_token_ids) } else { Value::Null };
    }
    Ok(Some(value))
}
