//! How the model's authors recommend to sample.

use crate::sampling::SamplingParams;
use serde::Deserialize;

/// Sampling parameters for requests that leave them out, from `generation_config.json` or GGUF's `general.sampling.*`;
/// `None` where nothing is recommended. The names are Hugging Face's, and their ranges those of
/// [`SamplingParams`], which checks them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerationConfig {
    /// 0 for the likeliest token.
    pub temperature: Option<f32>,
    /// Nucleus sampling.
    pub top_p: Option<f32>,
    /// Only so many likeliest tokens; 0 for all.
    pub top_k: Option<i64>,
    /// Only tokens at least so likely, relative to the likeliest.
    pub min_p: Option<f32>,
    /// Divides the logits of tokens that were seen.
    pub repetition_penalty: Option<f32>,
}

impl GenerationConfig {
    /// These, and where they say nothing, `others`.
    pub fn or(self, others: Self) -> Self {
        Self {
            temperature: self.temperature.or(others.temperature),
            top_p: self.top_p.or(others.top_p),
            top_k: self.top_k.or(others.top_k),
            min_p: self.min_p.or(others.min_p),
            repetition_penalty: self.repetition_penalty.or(others.repetition_penalty),
        }
    }

    /// Sampling parameters with these, and OpenAI's defaults where they say nothing; not checked.
    pub fn params(self) -> SamplingParams {
        let default = SamplingParams::default();
        SamplingParams {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_p: self.top_p.unwrap_or(default.top_p),
            top_k: self.top_k.unwrap_or(default.top_k),
            min_p: self.min_p.unwrap_or(default.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            ..default
        }
    }
}
