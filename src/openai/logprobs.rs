//! Log probabilities in OpenAI's two forms and in vLLM's for prompts.

use serde_json::{Map, Value, json};

use crate::engine::TokenId;
use crate::sampling::{TokenLogprob, TokenLogprobs};
use crate::text::Tokenizer;

/// JSON has no infinity; vLLM writes this for it.
const LEAST: f32 = -9999.0;

/// A token as text: its bytes, with U+FFFD for what is no whole character; without a tokenizer, its id.
fn spelled(tokenizer: Option<&Tokenizer>, token: TokenId) -> String {
    match token_bytes(tokenizer, token) {
        Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        None => format!("token_id:{token}"),
    }
}

fn token_bytes(tokenizer: Option<&Tokenizer>, token: TokenId) -> Option<Vec<u8>> {
    tokenizer?.token_bytes(token)
}

fn value(logprob: &TokenLogprob) -> f32 {
    logprob.logprob.max(LEAST)
}

/// The chosen token and the likeliest ones, none of them twice.
fn chosen_and_top(logprobs: &TokenLogprobs) -> impl Iterator<Item = &TokenLogprob> {
    let others = logprobs.top.iter().filter(|top| top.token != logprobs.chosen.token);
    std::iter::once(&logprobs.chosen).chain(others)
}

/// `logprobs` of a completion's choice: a list per attribute. `tokens[i]` has no logprobs where `of[i]` is `None` (the
/// first token of an echoed prompt); the first `top` likeliest tokens are listed with each, and the chosen one.
/// Text offsets, in characters, go on from `offset`.
pub(super) fn completion_logprobs(
    tokenizer: Option<&Tokenizer>,
    tokens: &[TokenId],
    of: &[Option<&TokenLogprobs>],
    offset: &mut usize,
) -> Value {
    let (mut texts, mut values, mut tops, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (&token, logprobs) in tokens.iter().zip(of) {
        let text = spelled(tokenizer, token);
        offsets.push(*offset);
        *offset += text.chars().count();
        values.push(logprobs.map(|logprobs| value(&logprobs.chosen)));
        tops.push(logprobs.map(|logprobs| {
            let pair = |top: &TokenLogprob| (spelled(tokenizer, top.token), json!(value(top)));
            chosen_and_top(logprobs).map(pair).collect::<Map<_, _>>()
        }));
        texts.push(text);
    }
    json!({"text_offset": offsets, "token_logprobs": values, "tokens": texts, "top_logprobs": tops})
}

/// `logprobs` of a chat choice: an object per token.
pub(super) fn chat_logprobs(tokenizer: Option<&Tokenizer>, of: &[TokenLogprobs]) -> Value {
    let entry = |logprob: &TokenLogprob| {
        json!({
            "token": spelled(tokenizer, logprob.token),
            "logprob": value(logprob),
            "bytes": token_bytes(tokenizer, logprob.token),
        })
    };
    let content: Vec<Value> = of
        .iter()
        .map(|logprobs| {
            let mut token = entry(&logprobs.chosen);
            token["top_logprobs"] = logprobs.top.iter().map(entry).collect();
            token
        })
        .collect();
    json!({"content": content})
}

/// vLLM's `prompt_logprobs`: for each prompt token a map from token id; null for the first.
pub(super) fn prompt_logprobs(tokenizer: Option<&Tokenizer>, of: &[TokenLogprobs]) -> Value {
    let position = |logprobs: &TokenLogprobs| {
        let pair = |top: &TokenLogprob| {
            let decoded = spelled(tokenizer, top.token);
            (top.token.to_string(), json!({"logprob": value(top), "rank": top.rank, "decoded_token": decoded}))
        };
        Value::Object(chosen_and_top(logprobs).map(pair).collect())
    };
    std::iter::once(Value::Null).chain(of.iter().map(position)).collect()
}
