//! The sampling parameters of a body: what completions and chat have in common.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

use super::ApiError;
use super::fields::Fields;
use super::structured;
use crate::engine::TokenId;
use crate::sampling::SamplingParams;

/// What both kinds of request ask for besides the prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct CommonFields {
    /// The model, as the client calls it.
    pub model: Option<String>,
    /// How to sample. `max_tokens` and the logprobs are left to each kind of request.
    pub params: SamplingParams,
    /// Whether the answer is to come in pieces.
    pub stream: bool,
    /// What else a streamed answer tells.
    pub stream_options: StreamOptions,
    /// Whether the answer is to hold the token ids of prompt and completion.
    pub return_token_ids: bool,
    /// Lower is served first, under [`crate::engine::Policy::Priority`].
    pub priority: i32,
    /// Prefixes are shared only among requests of one salt.
    pub cache_salt: Option<String>,
    /// The client's own id of the request.
    pub request_id: Option<String>,
    /// Longest prompt, in tokens: what is before it is cut off. -1 for the longest that the model takes.
    pub truncate_prompt_tokens: Option<i64>,
}

/// `stream_options`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct StreamOptions {
    /// Whether a last chunk, without choices, tells the usage.
    pub include_usage: bool,
    /// Whether every chunk tells the usage so far.
    pub continuous_usage_stats: bool,
}

/// Fields of OpenAI's, vLLM's or llama.cpp's that would change the answer.
const UNSUPPORTED: [&str; 14] = [
    "suffix",
    "bad_words",
    "logits_processors",
    "prompt_embeds",
    "functions",
    "documents",
    "audio",
    "chat_template",
    "continue_final_message",
    "kv_transfer_params",
    "mirostat",
    "dry_multiplier",
    "xtc_probability",
    "dynatemp_range",
];

/// Fields of llama.cpp's in whose place there is something here, and the number at which a field does nothing.
const OTHERS: [(&str, Option<f64>, &str); 5] = [
    ("repeat_penalty", Some(1.0), "`repetition_penalty`"),
    ("typical_p", Some(1.0), "`top_p` or `min_p`"),
    ("n_predict", Some(-1.0), "`max_tokens`"),
    ("grammar", None, "`structured_outputs` with a `grammar` in Lark's notation"),
    ("json_schema", None, "`response_format`"),
];

/// Bytes of a salt, at most: it is hashed for every request.
const MAX_SALT_BYTES: usize = 1024;

fn salt(salt: Option<String>) -> Result<Option<String>, ApiError> {
    match &salt {
        Some(text) if !(1..=MAX_SALT_BYTES).contains(&text.len()) => Err(ApiError::bad_field(
            "cache_salt",
            format!("`cache_salt` has {} bytes; it must have 1 to {MAX_SALT_BYTES}", text.len()),
        )),
        _ => Ok(salt),
    }
}

/// `stop`: a text or a list of texts.
fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        _ => Err(ApiError::bad_field("stop", "`stop` must be a text or a list of texts")),
    };
    match fields.take("stop")? {
        None => Ok(Vec::new()),
        Some(Value::Array(texts)) => texts.into_iter().map(text).collect(),
        Some(one) => Ok(vec![text(one)?]),
    }
}

impl CommonFields {
    /// `default` has what a request leaves out.
    pub(super) fn take(fields: &mut Fields, default: &SamplingParams) -> Result<Self, ApiError> {
        fields.refuse(&UNSUPPORTED)?;
        fields.refuse_others(&OTHERS)?;
        let params = SamplingParams {
            n: fields.or("n", default.n)?,
            best_of: fields.take("best_of")?,
            temperature: fields.or("temperature", default.temperature)?,
            top_p: fields.or("top_p", default.top_p)?,
            top_k: fields.or("top_k", default.top_k)?,
            min_p: fields.or("min_p", default.min_p)?,
            presence_penalty: fields.or("presence_penalty", default.presence_penalty)?,
            frequency_penalty: fields.or("frequency_penalty", default.frequency_penalty)?,
            repetition_penalty: fields.or("repetition_penalty", default.repetition_penalty)?,
            seed: fields.take::<i64>("seed")?.map(i64::cast_unsigned),
            stop: stop(fields)?,
            stop_token_ids: fields.or("stop_token_ids", Vec::new())?,
            structured_outputs: structured::take(fields)?,
            allowed_token_ids: fields.take("allowed_token_ids")?,
            logit_bias: fields.or::<BTreeMap<TokenId, f32>>("logit_bias", BTreeMap::new())?,
            max_tokens: None,
            min_tokens: fields.or("min_tokens", default.min_tokens)?,
            ignore_eos: fields.or("ignore_eos", default.ignore_eos)?,
            logprobs: None,
            prompt_logprobs: fields.take("prompt_logprobs")?,
            include_stop_str_in_output: fields.or("include_stop_str_in_output", default.include_stop_str_in_output)?,
            use_beam_search: fields.or("use_beam_search", default.use_beam_search)?,
            beam_width: fields.take("beam_width")?,
            length_penalty: fields.or("length_penalty", default.length_penalty)?,
            early_stopping: fields.or("early_stopping", default.early_stopping)?,
            skip_special_tokens: fields.or("skip_special_tokens", default.skip_special_tokens)?,
            detokenize: fields.or("detokenize", default.detokenize)?,
        };
        let stream = fields.or("stream", false)?;
        if stream && params.prompt_logprobs.is_some_and(|most| most > 0) {
            let message = "`prompt_logprobs` do not come with `stream`: leave one of them out";
            return Err(ApiError::bad_field("prompt_logprobs", message));
        }
        Ok(Self {
            model: fields.take("model")?,
            params,
            stream,
            stream_options: fields.or("stream_options", StreamOptions::default())?,
            return_token_ids: fields.or("return_token_ids", false)?,
            priority: fields.or("priority", 0)?,
            cache_salt: salt(fields.take("cache_salt")?)?,
            request_id: fields.take("request_id")?,
            truncate_prompt_tokens: fields.take("truncate_prompt_tokens")?,
        })
    }

    /// Cuts what is too long off the beginning of a prompt, if the request says so.
    ///
    /// # Errors
    /// When `truncate_prompt_tokens` is 0 or below -1.
    pub fn truncate(&self, prompt: &mut Vec<TokenId>, max_model_len: u32) -> Result<(), ApiError> {
        let field = "truncate_prompt_tokens";
        let wanted = self.params.max_tokens.unwrap_or(1).max(1);
        // The engine makes as many of them as fit; where none would be left of the prompt, all but one.
        let completion = if wanted < max_model_len { wanted } else { 1 };
        let keep = match self.truncate_prompt_tokens {
            None => return Ok(()),
            Some(-1) => max_model_len.saturating_sub(completion).max(1) as usize,
            Some(tokens) => usize::try_from(tokens).ok().filter(|tokens| *tokens > 0).ok_or_else(|| {
                ApiError::bad_field(field, format!("`{field}` is {tokens}; it must be -1 or above 0"))
            })?,
        };
        prompt.drain(..prompt.len().saturating_sub(keep));
        Ok(())
    }
}
