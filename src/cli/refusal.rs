//! A request that does not fit, with the flag that would make room for it, or that is wrong.

use anyhow::anyhow;
use bindery::engine::RequestError;
use bindery::llm::{Llm, LlmError};
use bindery::sampling::ParamError;

/// The error of [`Llm::add`], for whoever has set the flags.
pub(super) fn with_flag(error: LlmError, llm: &Llm) -> anyhow::Error {
    let flag = match error {
        LlmError::Param(error) => return of_flag(error),
        LlmError::Request(RequestError::PromptTooLong { max_model_len, .. })
            if max_model_len < llm.model_config().max_position_embeddings =>
        {
            "--max-model-len"
        }
        LlmError::Request(RequestError::TooManyBlocks { .. }) => llm.kv_memory().sized_by,
        error => return error.into(),
    };
    anyhow!("{error}, or raise {flag}")
}

/// The error of a sampling parameter, for whoever has set the flag of its name.
pub(super) fn of_flag(error: ParamError) -> anyhow::Error {
    match error {
        ParamError::Range { field: "n", value, allowed } => anyhow!("-n {value}: must be {allowed}"),
        ParamError::Range { field, value, allowed } => {
            anyhow!("--{} {value}: must be {allowed}", field.replace('_', "-"))
        }
        ParamError::TooMany { field, len, max } => {
            anyhow!("--{}: given {len} times; at most {max} are allowed", field.replace('_', "-"))
        }
        error => error.into(),
    }
}
