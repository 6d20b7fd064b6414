//! The body of `/v1/completions`.

use serde_json::Value;

use super::ApiError;
use super::fields::Fields;
use super::sampling::CommonFields;
use crate::engine::TokenId;
use crate::sampling::SamplingParams;
use crate::text::{TextError, Tokenizer};

/// Completion tokens when `max_tokens` is left out: OpenAI's and vLLM's default.
const DEFAULT_MAX_TOKENS: u32 = 16;
/// Prompts in one request, at most.
const MAX_PROMPTS: usize = 4096;

/// One prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// To be tokenised.
    Text(String),
    /// Tokenised already.
    TokenIds(Vec<TokenId>),
}

impl Prompt {
    /// Bytes of its text; 0 for token ids.
    pub(super) fn text_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::TokenIds(_) => 0,
        }
    }
}

/// A request to continue prompts as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionRequest {
    /// At least one.
    pub prompts: Vec<Prompt>,
    /// Whether the completion's text begins with the prompt's.
    pub echo: bool,
    /// Whether only the prompt is wanted (`echo` with `max_tokens` 0), for its logprobs: the one token that is
    /// generated all the same is not returned.
    pub prompt_only: bool,
    /// Whether the tokenizer adds its special tokens (a beginning of sequence) to text.
    pub add_special_tokens: bool,
    /// Everything else.
    pub common: CommonFields,
}

impl CompletionRequest {
    /// Reads a body; `default` has the sampling parameters that it leaves out.
    ///
    /// # Errors
    /// The first field that is wrong. Ranges are checked by [`crate::sampling::SamplingParams::validate`].
    pub fn from_body(body: Value, default: &SamplingParams) -> Result<Self, ApiError> {
        let mut fields = Fields::new(body)?;
        let prompts = prompts(fields.required("prompt")?)?;
        fields.refuse(&["tools"])?;
        let mut common = CommonFields::take(&mut fields, default)?;
        let echo = fields.or("echo", false)?;
        let params = &mut common.params;
        params.logprobs = fields.take("logprobs")?;
        let max_tokens = fields.or("max_tokens", DEFAULT_MAX_TOKENS)?;
        let prompt_only = echo && max_tokens == 0;
        params.max_tokens = Some(if prompt_only { 1 } else { max_tokens });
        if echo && params.prompt_logprobs.is_none() {
            params.prompt_logprobs = params.logprobs;
        }
        Ok(Self { prompts, echo, prompt_only, add_special_tokens: fields.or("add_special_tokens", true)?, common })
    }

    /// The token ids of each prompt. Special tokens in its text are honoured: whoever sends a plain prompt writes all
    /// of it.
    ///
    /// # Errors
    /// When there is text and no tokenizer, or the tokenizer fails.
    pub fn token_ids(&self, tokenizer: Option<&Tokenizer>) -> Result<Vec<Vec<TokenId>>, ApiError> {
        let encode = |prompt: &Prompt| match (prompt, tokenizer) {
            (Prompt::TokenIds(ids), _) => Ok(ids.clone()),
            (Prompt::Text(text), Some(tokenizer)) => {
                tokenizer.encode(text, self.add_special_tokens).map_err(|error: TextError| error.into())
            }
            (Prompt::Text(_), None) => {
                Err(ApiError::bad_field("prompt", "the model has no tokenizer: send the prompt as token ids"))
            }
        };
        self.prompts.iter().map(encode).collect()
    }
}

fn prompts(value: Value) -> Result<Vec<Prompt>, ApiError> {
    let refuse = |message: String| ApiError::bad_field("prompt", message);
    let form = || refuse("`prompt` must be a string, a list of strings, a list of token ids or a list of those".into());
    let items = match value {
        Value::String(text) => return Ok(vec![Prompt::Text(text)]),
        Value::Array(items) => items,
        _ => return Err(form()),
    };
    let token_id = |value: &Value| value.as_u64().and_then(|id| TokenId::try_from(id).ok()).ok_or_else(form);
    let token_ids = |items: &[Value]| items.iter().map(token_id).collect::<Result<_, _>>().map(Prompt::TokenIds);
    match items.first() {
        None => Err(refuse("`prompt` is an empty list: send at least one prompt".into())),
        Some(Value::Number(_)) => Ok(vec![token_ids(&items)?]),
        Some(_) if items.len() > MAX_PROMPTS => {
            Err(refuse(format!("`prompt` has {} prompts; at most {MAX_PROMPTS} go in one request", items.len())))
        }
        Some(Value::String(_)) => items
            .into_iter()
            .map(|item| if let Value::String(text) = item { Ok(Prompt::Text(text)) } else { Err(form()) })
            .collect(),
        Some(_) => items.iter().map(|item| token_ids(item.as_array().ok_or_else(form)?)).collect(),
    }
}
