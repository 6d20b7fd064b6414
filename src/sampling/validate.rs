//! The border for sampling parameters: what is not refused here must be safe everywhere below.

use super::SamplingParams;
use crate::engine::TokenId;

/// Upper bounds that keep one request from exhausting the server. The defaults are vLLM's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamCaps {
    /// Largest `n` and `best_of` (sequences).
    pub max_n: u32,
    /// Largest `beam_width` (sequences).
    pub max_beam_width: u32,
    /// Most stop strings.
    pub max_stop_strings: usize,
    /// Longest stop string, in bytes.
    pub max_stop_bytes: usize,
    /// Most entries in each of `stop_token_ids` and `logit_bias`.
    pub max_token_list: usize,
    /// Largest `logprobs` and `prompt_logprobs`.
    pub max_logprobs: u32,
}

impl Default for ParamCaps {
    fn default() -> Self {
        Self {
            max_n: 16384,
            max_beam_width: 32,
            max_stop_strings: 4,
            max_stop_bytes: 1024,
            max_token_list: 1024,
            max_logprobs: 20,
        }
    }
}

/// A sampling parameter that cannot be served: the client's fault, and what to send instead.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ParamError {
    /// A number outside its range, NaN or infinite.
    #[error("`{field}` is {value}; it must be {allowed}")]
    Range {
        /// The parameter.
        field: &'static str,
        /// What was sent.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// A list with too many entries.
    #[error("`{field}` has {len} entries; at most {max} are allowed")]
    TooMany {
        /// The parameter.
        field: &'static str,
        /// Entries sent.
        len: usize,
        /// Entries allowed.
        max: usize,
    },
    /// A token id outside the vocabulary.
    #[error("`{field}` holds token id {token}; this model's ids are 0 to {}", vocab_size.saturating_sub(1))]
    UnknownToken {
        /// The parameter.
        field: &'static str,
        /// The id sent.
        token: TokenId,
        /// Tokens in the vocabulary.
        vocab_size: usize,
    },
    /// Two parameters that exclude each other.
    #[error("{0}")]
    Conflict(&'static str),
}

impl ParamError {
    /// The offending request field, as OpenAI's error body names it in `param`.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Range { field, .. } | Self::TooMany { field, .. } | Self::UnknownToken { field, .. } => Some(field),
            Self::Conflict(_) => None,
        }
    }
}

pub(super) fn check(
    ok: bool,
    field: &'static str,
    value: impl ToString,
    allowed: impl Into<String>,
) -> Result<(), ParamError> {
    if ok { Ok(()) } else { Err(ParamError::Range { field, value: value.to_string(), allowed: allowed.into() }) }
}

impl SamplingParams {
    /// Checks every field; `vocab_size` is the number of token ids of the model.
    ///
    /// # Errors
    /// The first parameter found wrong, with what would be allowed.
    pub fn validate(&self, vocab_size: usize, caps: &ParamCaps) -> Result<(), ParamError> {
        self.validate_counts(vocab_size, caps)?;
        self.validate_floats()?;
        self.validate_lists(vocab_size, caps)?;
        self.validate_beams(vocab_size, caps)?;
        if !self.detokenize && !self.stop.is_empty() {
            return Err(ParamError::Conflict("`stop` needs text: set `detokenize` to true or send `stop_token_ids`"));
        }
        if self.is_greedy() && self.num_sequences() > 1 && !self.use_beam_search {
            return Err(ParamError::Conflict(
                "`n` and `best_of` must be 1 at temperature 0: all sequences would be the same",
            ));
        }
        if self.structured_outputs.is_some() && (self.use_beam_search || self.ignore_eos || self.min_tokens > 0) {
            return Err(ParamError::Conflict(
                "structured output ends where its grammar does: leave out `use_beam_search`, `ignore_eos` and `min_tokens`",
            ));
        }
        Ok(())
    }

    fn validate_counts(&self, vocab_size: usize, caps: &ParamCaps) -> Result<(), ParamError> {
        check((1..=caps.max_n).contains(&self.n), "n", self.n, format!("1 to {}", caps.max_n))?;
        if let Some(best_of) = self.best_of {
            let allowed = format!("at least `n` ({}) and at most {}", self.n, caps.max_n);
            check((self.n..=caps.max_n).contains(&best_of), "best_of", best_of, allowed)?;
        }
        let most = i64::try_from(vocab_size).unwrap_or(i64::MAX);
        let allowed = "0 or -1 (off), or 1 to the size of the vocabulary";
        check((-1..=most).contains(&self.top_k), "top_k", self.top_k, allowed)?;
        if let Some(max_tokens) = self.max_tokens {
            check(max_tokens >= 1, "max_tokens", max_tokens, "at least 1")?;
            let allowed = format!("at most `max_tokens` ({max_tokens})");
            check(self.min_tokens <= max_tokens, "min_tokens", self.min_tokens, allowed)?;
        }
        for (field, value) in [("logprobs", self.logprobs), ("prompt_logprobs", self.prompt_logprobs)] {
            let value = value.unwrap_or(0);
            check(value <= caps.max_logprobs, field, value, format!("at most {}", caps.max_logprobs))?;
        }
        Ok(())
    }

    fn validate_floats(&self) -> Result<(), ParamError> {
        let temperature = self.temperature;
        check(
            temperature.is_finite() && temperature >= 0.0,
            "temperature",
            temperature,
            "a finite number of at least 0",
        )?;
        check(self.top_p > 0.0 && self.top_p <= 1.0, "top_p", self.top_p, "above 0 and at most 1")?;
        check((0.0..=1.0).contains(&self.min_p), "min_p", self.min_p, "0 to 1")?;
        for (field, value) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            check((-2.0..=2.0).contains(&value), field, value, "-2 to 2")?;
        }
        let repetition = self.repetition_penalty;
        check(
            repetition.is_finite() && repetition > 0.0,
            "repetition_penalty",
            repetition,
            "a finite number above 0 (1 is off)",
        )?;
        for value in self.logit_bias.values() {
            check((-100.0..=100.0).contains(value), "logit_bias", value, "-100 to 100")?;
        }
        Ok(())
    }

    fn validate_lists(&self, vocab_size: usize, caps: &ParamCaps) -> Result<(), ParamError> {
        let lists = [
            ("stop", self.stop.len(), caps.max_stop_strings),
            ("stop_token_ids", self.stop_token_ids.len(), caps.max_token_list),
            ("logit_bias", self.logit_bias.len(), caps.max_token_list),
            ("allowed_token_ids", self.allowed_token_ids.as_ref().map_or(0, Vec::len), vocab_size),
        ];
        for (field, len, max) in lists {
            if len > max {
                return Err(ParamError::TooMany { field, len, max });
            }
        }
        for stop in &self.stop {
            let allowed = format!("1 to {} bytes each", caps.max_stop_bytes);
            check((1..=caps.max_stop_bytes).contains(&stop.len()), "stop", format!("{} bytes", stop.len()), allowed)?;
        }
        let none_allowed = self.allowed_token_ids.as_ref().is_some_and(Vec::is_empty);
        check(!none_allowed, "allowed_token_ids", "empty", "null, or at least one token id")?;
        let known = |field, mut ids: Box<dyn Iterator<Item = TokenId> + '_>| {
            let unknown = ids.find(|&token| token as usize >= vocab_size);
            unknown.map_or(Ok(()), |token| Err(ParamError::UnknownToken { field, token, vocab_size }))
        };
        known("stop_token_ids", Box::new(self.stop_token_ids.iter().copied()))?;
        known("allowed_token_ids", Box::new(self.allowed_token_ids.iter().flatten().copied()))?;
        known("logit_bias", Box::new(self.logit_bias.keys().copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Edit = fn(&mut SamplingParams);

    #[test]
    fn refused_with_the_field_named() {
        let table: &[(&str, Edit)] = &[
            ("n", |p| p.n = 0),
            ("n", |p| p.n = 16385),
            ("best_of", |p| (p.n, p.best_of) = (3, Some(2))),
            ("best_of", |p| p.best_of = Some(u32::MAX)),
            ("temperature", |p| p.temperature = f32::NAN),
            ("temperature", |p| p.temperature = f32::INFINITY),
            ("temperature", |p| p.temperature = -0.1),
            ("top_p", |p| p.top_p = 0.0),
            ("top_p", |p| p.top_p = 1.01),
            ("top_p", |p| p.top_p = f32::NAN),
            ("top_k", |p| p.top_k = -2),
            ("top_k", |p| p.top_k = 101),
            ("top_k", |p| p.top_k = i64::MAX),
            ("min_p", |p| p.min_p = -0.01),
            ("min_p", |p| p.min_p = f32::NAN),
            ("presence_penalty", |p| p.presence_penalty = 2.1),
            ("presence_penalty", |p| p.presence_penalty = f32::NEG_INFINITY),
            ("frequency_penalty", |p| p.frequency_penalty = f32::NAN),
            ("repetition_penalty", |p| p.repetition_penalty = 0.0),
            ("repetition_penalty", |p| p.repetition_penalty = f32::INFINITY),
            ("logit_bias", |p| p.logit_bias = [(1, f32::NAN)].into()),
            ("logit_bias", |p| p.logit_bias = [(1, 101.0)].into()),
            ("logit_bias", |p| p.logit_bias = [(100, 1.0)].into()),
            ("max_tokens", |p| p.max_tokens = Some(0)),
            ("min_tokens", |p| (p.max_tokens, p.min_tokens) = (Some(3), 4)),
            ("logprobs", |p| p.logprobs = Some(21)),
            ("prompt_logprobs", |p| p.prompt_logprobs = Some(21)),
            ("stop", |p| p.stop = vec!["x".into(); 5]),
            ("stop", |p| p.stop = vec![String::new()]),
            ("stop", |p| p.stop = vec!["x".repeat(1025)]),
            ("stop_token_ids", |p| p.stop_token_ids = vec![100]),
            ("stop_token_ids", |p| p.stop_token_ids = vec![1; 1025]),
            ("allowed_token_ids", |p| p.allowed_token_ids = Some(vec![])),
            ("allowed_token_ids", |p| p.allowed_token_ids = Some(vec![99, 100])),
        ];
        for (i, (field, edit)) in table.iter().enumerate() {
            let mut params = SamplingParams::default();
            edit(&mut params);
            let error = params.validate(100, &ParamCaps::default()).expect_err(&format!("row {i}: {field}"));
            assert_eq!(error.field(), Some(*field), "row {i}: {error}");
            assert!(error.to_string().contains(field), "row {i}: {error}");
        }
    }

    #[test]
    fn accepted_at_the_edges() {
        let table: &[Edit] = &[
            |_| (),
            |p| p.temperature = 0.0,
            |p| (p.n, p.best_of) = (2, Some(4)),
            |p| p.n = 16384,
            |p| p.top_k = -1,
            |p| p.top_k = 100,
            |p| (p.min_p, p.top_p) = (1.0, 1e-6),
            |p| (p.presence_penalty, p.frequency_penalty) = (-2.0, 2.0),
            |p| p.logit_bias = [(0, -100.0), (99, 100.0)].into(),
            |p| p.stop = vec!["x".into(); 4],
            |p| (p.max_tokens, p.min_tokens) = (Some(3), 3),
            |p| p.allowed_token_ids = Some(vec![99]),
            |p| p.logprobs = Some(20),
        ];
        for (i, edit) in table.iter().enumerate() {
            let mut params = SamplingParams::default();
            edit(&mut params);
            params.validate(100, &ParamCaps::default()).unwrap_or_else(|error| panic!("row {i}: {error}"));
        }
    }

    #[test]
    fn conflicts_and_messages() {
        let greedy = SamplingParams { n: 2, temperature: 0.0, ..SamplingParams::default() };
        assert!(matches!(greedy.validate(9, &ParamCaps::default()), Err(ParamError::Conflict(_))));
        let blind = SamplingParams { detokenize: false, stop: vec!["a".into()], ..SamplingParams::default() };
        assert!(matches!(blind.validate(9, &ParamCaps::default()), Err(ParamError::Conflict(_))));
        let hot = SamplingParams { top_p: 1.5, ..SamplingParams::default() };
        let message = hot.validate(9, &ParamCaps::default()).unwrap_err().to_string();
        assert_eq!(message, "`top_p` is 1.5; it must be above 0 and at most 1");
    }
}
