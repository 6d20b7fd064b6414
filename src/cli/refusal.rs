//! A request that does not fit, with the flag that would make room for it.

use anyhow::anyhow;
use bindery::engine::RequestError;
use bindery::llm::{Llm, LlmError};

/// The error of [`Llm::add`], for whoever has set the flags.
pub(super) fn with_flag(error: LlmError, llm: &Llm) -> anyhow::Error {
    let flag = match &error {
        LlmError::Request(RequestError::PromptTooLong { max_model_len, .. })
            if *max_model_len < llm.model_config().max_position_embeddings =>
        {
            "--max-model-len"
        }
        LlmError::Request(RequestError::TooManyBlocks { .. }) => llm.kv_memory().sized_by,
        _ => return error.into(),
    };
    anyhow!("{error}, or raise {flag}")
}
