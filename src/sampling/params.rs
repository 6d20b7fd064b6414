//! What a request may ask of the sampler.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::EarlyStopping;
use crate::backend::MAX_TOP_K;
use crate::engine::TokenId;
use crate::structured::GrammarSpec;

/// Below this temperature a request is greedy (vLLM's `_SAMPLING_EPS`).
pub(super) const GREEDY_TEMPERATURE: f32 = 1e-5;

/// Sampling parameters of one request, with vLLM's names, meanings and defaults.
///
/// Deserializes from the fields of an OpenAI or vLLM request body; fields that are absent take the default.
/// Nothing is checked until [`SamplingParams::validate`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplingParams {
    /// How many completions to return.
    pub n: u32,
    /// How many completions to make, of which the `n` likeliest are returned; at least `n`.
    pub best_of: Option<u32>,
    /// Logits are divided by this; 0 is greedy.
    pub temperature: f32,
    /// Keep the fewest likeliest tokens whose probabilities sum to at least this, in (0, 1]; 1 is off.
    pub top_p: f32,
    /// Keep this many likeliest tokens; 0 or -1 is off.
    pub top_k: i64,
    /// Keep tokens at least this fraction as likely as the likeliest, in [0, 1]; 0 is off.
    pub min_p: f32,
    /// Subtracted from the logit of every token that occurs in the output, in [-2, 2].
    pub presence_penalty: f32,
    /// Subtracted from a token's logit once for every time it occurs in the output, in [-2, 2].
    pub frequency_penalty: f32,
    /// Logits of tokens in prompt or output are divided (if positive) or multiplied by this; > 0, 1 is off.
    pub repetition_penalty: f32,
    /// Makes the tokens reproducible. Without it the engine draws a seed for the request.
    pub seed: Option<u64>,
    /// The completion ends before the first of these strings.
    #[serde(deserialize_with = "one_or_many")]
    pub stop: Vec<String>,
    /// The completion ends at any of these tokens.
    pub stop_token_ids: Vec<TokenId>,
    /// If given, only these tokens can be sampled.
    pub allowed_token_ids: Option<Vec<TokenId>>,
    /// What the completion must look like.
    #[serde(skip_deserializing)]
    pub structured_outputs: Option<GrammarSpec>,
    /// Added to the logits of single tokens, in [-100, 100].
    pub logit_bias: BTreeMap<TokenId, f32>,
    /// The longest completion in tokens; `None`: up to the model's context length.
    pub max_tokens: Option<u32>,
    /// End and stop tokens cannot be sampled, and stop strings do not end the completion, before this many tokens.
    pub min_tokens: u32,
    /// Go on after the end-of-sequence token.
    pub ignore_eos: bool,
    /// Return log probabilities of the sampled token and of this many likeliest tokens.
    pub logprobs: Option<u32>,
    /// The same for every prompt token but the first.
    pub prompt_logprobs: Option<u32>,
    /// Search for the likeliest completions instead of sampling; they come at the end, all at once.
    pub use_beam_search: bool,
    /// Beams kept from step to step, at least `n`; `n` if absent.
    pub beam_width: Option<u32>,
    /// A finished beam's score is the sum of its log probabilities / (its tokens ^ this); above 0 favours longer ones.
    pub length_penalty: f64,
    /// When a beam search ends.
    pub early_stopping: EarlyStopping,
    /// Keep the stop string at the end of the completion.
    pub include_stop_str_in_output: bool,
    /// Leave special tokens out of the text.
    pub skip_special_tokens: bool,
    /// Whether to make text at all; without it only token ids are returned and stop strings cannot work.
    pub detokenize: bool,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            n: 1,
            best_of: None,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            seed: None,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            allowed_token_ids: None,
            structured_outputs: None,
            logit_bias: BTreeMap::new(),
            max_tokens: None,
            min_tokens: 0,
            ignore_eos: false,
            logprobs: None,
            prompt_logprobs: None,
            use_beam_search: false,
            beam_width: None,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::default(),
            include_stop_str_in_output: false,
            skip_special_tokens: true,
            detokenize: true,
        }
    }
}

impl SamplingParams {
    /// Greedy decoding of at most `max_tokens` tokens, everything else at its default.
    pub fn greedy(max_tokens: u32) -> Self {
        Self { temperature: 0.0, max_tokens: Some(max_tokens), ..Self::default() }
    }

    /// Whether the likeliest token is always taken (temperature below 1e-5).
    pub fn is_greedy(&self) -> bool {
        self.temperature < GREEDY_TEMPERATURE
    }

    /// Whether any of the three penalties is on.
    pub fn has_penalties(&self) -> bool {
        self.presence_penalty != 0.0 || self.frequency_penalty != 0.0 || self.repetition_penalty != 1.0
    }

    /// Whether the host must see the logits: for what excludes most tokens, and for more log probabilities than the device
    /// gives.
    ///
    /// `min_tokens` counts only while it is not reached, but a request's answer never changes: the route is picked
    /// once. A beam search takes the device's candidates.
    pub fn needs_logits(&self) -> bool {
        !self.use_beam_search
            && (self.allowed_token_ids.is_some()
                || self.structured_outputs.is_some()
                || self.logprobs.is_some_and(|top| top > MAX_TOP_K))
    }

    /// How many likeliest tokens are told of each sampled token's position, beside its own log probability, which `best_of`
    /// ranks by; `None` if no log probability is.
    pub fn sampled_logprobs(&self) -> Option<u32> {
        self.logprobs.or((self.num_sequences() > self.n).then_some(0))
    }

    /// Whether the device must draw the tokens, or the host; if not, the argmax of the raw logits is the answer.
    pub fn needs_draw(&self) -> bool {
        !self.use_beam_search
            && (!self.is_greedy()
                || self.needs_logits()
                || self.has_penalties()
                || !self.logit_bias.is_empty()
                || self.min_tokens > 0)
    }

    /// How many sequences have events: `best_of`, or `n` without it. (The beams of a beam search have none.)
    pub fn num_sequences(&self) -> u32 {
        self.best_of.map_or(self.n, |best_of| best_of.max(self.n))
    }
}

/// OpenAI's `stop` is null, a string or a list of strings.
fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::<OneOrMany>::deserialize(deserializer)? {
        None => Vec::new(),
        Some(OneOrMany::One(one)) => vec![one],
        Some(OneOrMany::Many(many)) => many,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_fields_deserialize() {
        let body = r#"{"model": "m", "temperature": 0.5, "top_k": -1, "stop": "END", "seed": 3,
                       "logit_bias": {"15": -1.5}, "max_tokens": 7, "best_of": null}"#;
        let params: SamplingParams = serde_json::from_str(body).unwrap();
        assert_eq!(params.stop, ["END"]);
        assert_eq!(params.logit_bias, BTreeMap::from([(15, -1.5)]));
        assert_eq!((params.temperature, params.top_k, params.seed, params.max_tokens), (0.5, -1, Some(3), Some(7)));
        let many: SamplingParams = serde_json::from_str(r#"{"stop": ["a", "b"]}"#).unwrap();
        assert_eq!(many, SamplingParams { stop: vec!["a".into(), "b".into()], ..SamplingParams::default() });
        let null: SamplingParams = serde_json::from_str(r#"{"stop": null}"#).unwrap();
        assert_eq!(null, SamplingParams::default());
    }

    #[test]
    fn who_finds_the_token() {
        let greedy = SamplingParams::greedy(8);
        let by_argmax = [
            greedy.clone(),
            SamplingParams { use_beam_search: true, ..SamplingParams::default() },
            SamplingParams { top_p: 0.5, top_k: 3, min_p: 0.1, ..greedy.clone() },
        ];
        assert!(by_argmax.iter().all(|params| !params.needs_draw() && !params.needs_logits()));
        let by_draw = [
            SamplingParams::default(),
            SamplingParams { min_tokens: 1, ..greedy.clone() },
            SamplingParams { repetition_penalty: 1.1, ..greedy.clone() },
            SamplingParams { logit_bias: [(1, 1.0)].into(), ..greedy.clone() },
        ];
        assert!(by_draw.iter().all(|params| params.needs_draw() && !params.needs_logits()));
        let on_host = [
            SamplingParams { logprobs: Some(MAX_TOP_K + 1), ..greedy.clone() },
            SamplingParams { allowed_token_ids: Some(vec![1]), ..greedy.clone() },
        ];
        assert!(on_host.iter().all(|params| params.needs_draw() && params.needs_logits()));
        let best_of = SamplingParams { best_of: Some(2), ..SamplingParams::default() };
        assert_eq!((best_of.needs_logits(), best_of.sampled_logprobs()), (false, Some(0)));
        let with_logprobs = SamplingParams { logprobs: Some(MAX_TOP_K), ..greedy.clone() };
        assert_eq!((with_logprobs.needs_logits(), with_logprobs.sampled_logprobs()), (false, Some(MAX_TOP_K)));
        assert_eq!(greedy.sampled_logprobs(), None);
    }
}
