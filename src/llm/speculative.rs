//! Speculative decoding, as vLLM's `--speculative-config` asks for it.

use super::LlmError;
use crate::engine::{DEFAULT_BLOCK_SIZE, DraftConfig};
use serde::Deserialize;

/// Where drafts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpeculativeMethod {
    /// Prompt lookup: what followed a sequence's last tokens when they stood in it before. And where a grammar leaves no choice,
    /// what must follow.
    Ngram,
}

/// Whether tokens are drafted, so that several of a sequence are found in one step; by vLLM's names. The tokens are those
/// that come without it, as far as steps of several rows round as those of one do. While a sequence may have drafts, found or
/// not, no step begins before the one in front of it has ended. Requests with penalties or beams have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeculativeConfig {
    /// Where drafts come from.
    pub method: SpeculativeMethod,
    /// Drafts of one sequence in a step, at most: 1 to 15, as they stay within its last block. With 7 a step of one
    /// sequence has 8 rows, and a block is filled in two; with more, attention on GPUs works as for a prompt, which is slow over
    /// long contexts.
    #[serde(default = "default_num_tokens")]
    pub num_speculative_tokens: u32,
    /// Tokens at the end of a sequence that must have stood in it before, at least; 3, or `prompt_lookup_max` if that is less.
    #[serde(default)]
    pub prompt_lookup_min: Option<u32>,
    /// How many of them are compared, at most; 5, or `prompt_lookup_min` if that is more. At most 64.
    #[serde(default)]
    pub prompt_lookup_max: Option<u32>,
    /// Sequences that run while tokens are drafted, at most: with more of them the device has enough to do.
    #[serde(default = "default_batch_size")]
    pub disable_by_batch_size: u32,
}

/// Tokens that are compared at each place, at most: a prompt may be one token, again and again.
const MAX_LOOKUP: u32 = 64;

fn default_num_tokens() -> u32 {
    7
}

fn default_batch_size() -> u32 {
    8
}

impl SpeculativeConfig {
    /// Prompt lookup with the defaults.
    pub fn ngram() -> Self {
        Self {
            method: SpeculativeMethod::Ngram,
            num_speculative_tokens: default_num_tokens(),
            prompt_lookup_min: None,
            prompt_lookup_max: None,
            disable_by_batch_size: default_batch_size(),
        }
    }

    /// The same for the scheduler, of which `max_num_seqs` sequences run at most.
    ///
    /// # Errors
    /// When a number is out of its range.
    pub(super) fn drafts(&self, max_num_seqs: u32) -> Result<DraftConfig, LlmError> {
        let refuse = |field: &str, value: u32, allowed: String| {
            Err(LlmError::Option { option: "--speculative-config", value: format!("with {field} {value}"), allowed })
        };
        let most = DEFAULT_BLOCK_SIZE - 1;
        if !(1..=most).contains(&self.num_speculative_tokens) {
            return refuse("num_speculative_tokens", self.num_speculative_tokens, format!("must be 1 to {most}"));
        }
        if self.disable_by_batch_size == 0 {
            return refuse("disable_by_batch_size", 0, "must be at least 1".into());
        }
        let lookup_max = self.prompt_lookup_max.unwrap_or(5.max(self.prompt_lookup_min.unwrap_or(0)));
        let lookup_min = self.prompt_lookup_min.unwrap_or(3.min(lookup_max));
        if !(1..=MAX_LOOKUP).contains(&lookup_max) {
            return refuse("prompt_lookup_max", lookup_max, format!("must be 1 to {MAX_LOOKUP}"));
        }
        if !(1..=lookup_max).contains(&lookup_min) {
            return refuse("prompt_lookup_min", lookup_min, format!("must be 1 to prompt_lookup_max, {lookup_max}"));
        }
        Ok(DraftConfig {
            num_tokens: self.num_speculative_tokens,
            max_num_seqs: self.disable_by_batch_size.min(max_num_seqs),
            lookup_min,
            lookup_max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drafts(json: &str) -> Result<DraftConfig, String> {
        let config: SpeculativeConfig = serde_json::from_str(json).map_err(|error| error.to_string())?;
        config.drafts(64).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_has_defaults() {
        let lookups = |json| drafts(json).map(|drafts| (drafts.lookup_min, drafts.lookup_max));
        let ngram = DraftConfig { num_tokens: 7, max_num_seqs: 8, lookup_min: 3, lookup_max: 5 };
        assert_eq!(drafts(r#"{"method": "ngram"}"#), Ok(ngram));
        assert_eq!(lookups(r#"{"method": "ngram", "prompt_lookup_max": 2}"#), Ok((2, 2)));
        assert_eq!(lookups(r#"{"method": "ngram", "prompt_lookup_min": 9}"#), Ok((9, 9)));
        let all = r#"{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 2, "prompt_lookup_max": 4,
                      "disable_by_batch_size": 1000}"#;
        assert_eq!(drafts(all), Ok(DraftConfig { num_tokens: 4, max_num_seqs: 64, lookup_min: 2, lookup_max: 4 }));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (json, error) in [
            (r#"{}"#, "missing field `method`"),
            (r#"{"method": "eagle"}"#, "unknown variant `eagle`, expected `ngram`"),
            (r#"{"method": "ngram", "model": "x"}"#, "unknown field `model`"),
            (r#"{"method": "ngram", "num_speculative_tokens": 16}"#, "num_speculative_tokens 16: must be 1 to 15"),
            (r#"{"method": "ngram", "num_speculative_tokens": 0}"#, "num_speculative_tokens 0: must be 1 to 15"),
            (r#"{"method": "ngram", "prompt_lookup_max": 0}"#, "prompt_lookup_max 0: must be 1 to 64"),
            (r#"{"method": "ngram", "prompt_lookup_min": 0}"#, "prompt_lookup_min 0: must be 1 to"),
            (
                r#"{"method": "ngram", "prompt_lookup_min": 5, "prompt_lookup_max": 4}"#,
                "prompt_lookup_min 5: must be 1 to prompt_lookup_max, 4",
            ),
            (r#"{"method": "ngram", "disable_by_batch_size": 0}"#, "disable_by_batch_size 0: must be at least 1"),
        ] {
            let found = drafts(json).expect_err(json);
            assert!(found.contains(error), "{found}");
        }
    }
}
