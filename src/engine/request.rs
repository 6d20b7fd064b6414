//! A request, checked against the limits before it comes near the scheduler.

use thiserror::Error;

use super::{BlockHash, ExtraKeys, Limits, RequestId, TokenId};

/// What a client asks for besides the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestParams {
    /// Completion tokens of each sequence, at most; `None` for as many as there is room for.
    pub max_tokens: Option<u32>,
    /// Completion tokens before stop tokens are honoured.
    pub min_tokens: u32,
    /// Tokens that end a sequence; the token itself is emitted.
    pub stop_token_ids: Vec<TokenId>,
    /// Parallel samples: the prompt is computed once, then so many sequences fork from it.
    pub num_samples: u32,
    /// Sequences alive at the same time, at most, for callers that fork by themselves (the width of a beam search);
    /// 0 for as many as `num_samples`.
    pub max_sequences: u32,
    /// Whether the logits of every prompt position are wanted. Such requests do not read the prefix cache.
    pub prompt_logits: bool,
    /// Whether its sequences may have drafts, if the scheduler makes any: not if the choice of a token depends on how often the
    /// ones before it came.
    pub drafts: bool,
    /// With [`super::Policy::Priority`]: lower is served first.
    pub priority: i32,
    /// Blocks are shared only with requests of the same salt.
    pub cache_salt: Option<Vec<u8>>,
    /// Identity of the adapter the request runs with, if any.
    pub adapter: Option<Vec<u8>>,
}

impl Default for RequestParams {
    fn default() -> Self {
        RequestParams {
            max_tokens: None,
            min_tokens: 0,
            stop_token_ids: Vec::new(),
            num_samples: 1,
            max_sequences: 0,
            prompt_logits: false,
            drafts: true,
            priority: 0,
            cache_salt: None,
            adapter: None,
        }
    }
}

/// Why a request is refused: it could never be served as it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestError {
    /// There is nothing to continue.
    #[error("the prompt is empty: send at least one token")]
    EmptyPrompt,
    /// The prompt leaves no room for a completion.
    #[error(
        "the prompt has {prompt_tokens} tokens, and with one more for the completion it exceeds the limit of \
         {max_model_len} tokens: shorten it"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens that a sequence may have.
        max_model_len: u32,
    },
    /// `max_tokens` is 0.
    #[error("max_tokens is 0: ask for at least one token")]
    ZeroMaxTokens,
    /// `min_tokens` is more than `max_tokens`.
    #[error("min_tokens is {min_tokens}, more than max_tokens, {max_tokens}")]
    MinTokensAboveMaxTokens {
        /// Tokens before a stop token counts.
        min_tokens: u32,
        /// Tokens at most.
        max_tokens: u32,
    },
    /// No sample is asked for.
    #[error("n is 0: ask for at least one sample")]
    ZeroSamples,
    /// More sequences than can run at the same time.
    #[error("{num_seqs} sequences are asked for, but at most {max_num_seqs} run at the same time: lower n")]
    TooManySequences {
        /// Sequences asked for.
        num_seqs: u32,
        /// Sequences that may run.
        max_num_seqs: u32,
    },
    /// The KV cache is too small, even with no other request in it.
    #[error(
        "{num_seqs} sequence(s) of {tokens} tokens need {needed_blocks} KV blocks, but there are {num_blocks}: \
         lower max_tokens or n, or shorten the prompt"
    )]
    TooManyBlocks {
        /// Sequences asked for.
        num_seqs: u32,
        /// Tokens of each, prompt and completion.
        tokens: u32,
        /// Blocks needed.
        needed_blocks: u64,
        /// Blocks in the pool.
        num_blocks: u32,
    },
}

/// A prompt and what to do with it. Every `Request` can be served once it has the pool to itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub(super) id: RequestId,
    pub(super) prompt_token_ids: Vec<TokenId>,
    pub(super) params: RequestParams,
    pub(super) max_tokens: u32,
    pub(super) limits: Limits,
}

impl Request {
    /// Checks what is asked for against `limits`; what can never fit is refused here, and nowhere later.
    pub fn new(
        id: RequestId,
        prompt_token_ids: Vec<TokenId>,
        mut params: RequestParams,
        limits: &Limits,
    ) -> Result<Self, RequestError> {
        if prompt_token_ids.is_empty() {
            return Err(RequestError::EmptyPrompt);
        }
        let prompt_tokens = prompt_token_ids.len();
        let max_model_len = limits.max_model_len;
        if prompt_tokens >= max_model_len as usize {
            return Err(RequestError::PromptTooLong { prompt_tokens, max_model_len });
        }
        let prompt_tokens = prompt_tokens as u32;
        if params.max_tokens == Some(0) {
            return Err(RequestError::ZeroMaxTokens);
        }
        if params.num_samples == 0 {
            return Err(RequestError::ZeroSamples);
        }
        let num_seqs = params.num_samples.max(params.max_sequences);
        params.max_sequences = num_seqs;
        if num_seqs > limits.max_num_seqs {
            return Err(RequestError::TooManySequences { num_seqs, max_num_seqs: limits.max_num_seqs });
        }
        // An unlimited completion takes what room there is; one with a stated length must fit as stated.
        let room = limits.max_tokens_per_seq(num_seqs);
        let tokens = match params.max_tokens {
            None => room.max(prompt_tokens + 1),
            Some(max_tokens) => prompt_tokens.saturating_add(max_tokens).min(max_model_len),
        };
        if tokens > room {
            let needed_blocks = u64::from((tokens - 1).div_ceil(limits.block_size)) * u64::from(num_seqs);
            let num_blocks = limits.num_blocks;
            return Err(RequestError::TooManyBlocks { num_seqs, tokens, needed_blocks, num_blocks });
        }
        let max_tokens = tokens - prompt_tokens;
        if params.min_tokens > max_tokens {
            return Err(RequestError::MinTokensAboveMaxTokens { min_tokens: params.min_tokens, max_tokens });
        }
        Ok(Request { id, prompt_token_ids, params, max_tokens, limits: *limits })
    }

    /// The request's number.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// The prompt.
    pub fn prompt_token_ids(&self) -> &[TokenId] {
        &self.prompt_token_ids
    }

    /// What is asked for.
    pub fn params(&self) -> &RequestParams {
        &self.params
    }

    /// Completion tokens of each sequence, at most: as asked for, or as there is room for.
    pub fn max_tokens(&self) -> u32 {
        self.max_tokens
    }

    /// The parent hash of the request's first block.
    pub(super) fn root_hash(&self, model: &[u8]) -> BlockHash {
        let salt = self.params.cache_salt.as_deref();
        let cache_salt = if super::planted::planted!(SaltIgnored) { None } else { salt };
        BlockHash::root(ExtraKeys { model, adapter: self.params.adapter.as_deref(), cache_salt })
    }
}
