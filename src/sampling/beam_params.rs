//! What a request may ask of a beam search.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::validate::check;
use super::{ParamCaps, ParamError, SamplingParams};

/// When a beam search ends before `max_tokens`; the meanings are those of Hugging Face's `early_stopping`. In each case
/// there are as many finished hypotheses as the search is wide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// `false`: once the best live beam, were it to end now, would not beat the worst finished hypothesis.
    #[default]
    Heuristic,
    /// `true`: at once.
    Immediate,
    /// `"never"`: once no live beam could beat the worst finished hypothesis at any length that `length_penalty` favours.
    Never,
}

impl Serialize for EarlyStopping {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Heuristic => serializer.serialize_bool(false),
            Self::Immediate => serializer.serialize_bool(true),
            Self::Never => serializer.serialize_str("never"),
        }
    }
}

impl<'de> Deserialize<'de> for EarlyStopping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "`early_stopping` must be false, true or \"never\"")]
        enum Spelling {
            Bool(bool),
            Never(Never),
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Never {
            Never,
        }
        Ok(match Spelling::deserialize(deserializer)? {
            Spelling::Bool(false) => Self::Heuristic,
            Spelling::Bool(true) => Self::Immediate,
            Spelling::Never(Never::Never) => Self::Never,
        })
    }
}

impl SamplingParams {
    /// Beams that stay alive from step to step: `beam_width`, or `n` without it. `None` without beam search.
    pub fn beam_width(&self) -> Option<u32> {
        self.use_beam_search.then(|| self.beam_width.unwrap_or(self.n))
    }

    /// Candidates that a beam search needs of each beam, of which `stop_tokens` may end one.
    ///
    /// Of `width` live beams each may take all `width` places of the next step, after its stop tokens are set aside.
    /// Hugging Face takes the best `2 * width` of all beams together (more with several stop tokens); these hold no
    /// hypothesis and no beam that this choice lacks.
    pub fn beam_candidates(&self, stop_tokens: usize) -> Option<u32> {
        Some((self.beam_width()? + stop_tokens as u32).max(self.logprobs.unwrap_or(0)))
    }

    pub(super) fn validate_beams(&self, vocab_size: usize, caps: &ParamCaps) -> Result<(), ParamError> {
        let Some(width) = self.beam_width() else {
            return match self.beam_width {
                Some(_) => Err(ParamError::Conflict("`beam_width` is for beam search: set `use_beam_search` to true")),
                None => Ok(()),
            };
        };
        let max = (caps.max_beam_width as usize).min(vocab_size / 2);
        let field = if self.beam_width.is_some() { "beam_width" } else { "n" };
        check((1..=max).contains(&(width as usize)), field, width, format!("1 to {max} with beam search"))?;
        check(self.n <= width, "n", self.n, format!("at most `beam_width` ({width})"))?;
        let penalty = self.length_penalty;
        check((-10.0..=10.0).contains(&penalty), "length_penalty", penalty, "-10 to 10 (1 is off, 0 no length)")?;
        if self.best_of.is_some() {
            return Err(ParamError::Conflict(
                "`best_of` is for sampling: with `use_beam_search`, `beam_width` is how many beams are kept",
            ));
        }
        // The default temperature of 1 is nobody's wish, and 0 asks for what a beam search does.
        let samples = !self.is_greedy() && self.temperature != 1.0;
        if samples || self.top_p != 1.0 || self.top_k > 0 || self.min_p != 0.0 {
            return Err(ParamError::Conflict(
                "a beam search does not sample: leave out `temperature`, `top_p`, `top_k` and `min_p`",
            ));
        }
        if self.has_penalties() || !self.logit_bias.is_empty() || self.allowed_token_ids.is_some() {
            return Err(ParamError::Conflict(
                "a beam search takes the model's own probabilities: leave out penalties, `logit_bias` and \
                 `allowed_token_ids`",
            ));
        }
        if !self.stop.is_empty() {
            return Err(ParamError::Conflict("`stop` does not end beams: send `stop_token_ids`"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beams(width: u32) -> SamplingParams {
        SamplingParams { use_beam_search: true, beam_width: Some(width), ..SamplingParams::default() }
    }

    #[test]
    fn hugging_face_spellings_deserialize() {
        let parse = |text: &str| serde_json::from_str::<SamplingParams>(text);
        let body =
            r#"{"use_beam_search": true, "beam_width": 4, "n": 2, "length_penalty": 0.5, "early_stopping": "never"}"#;
        let params = parse(body).unwrap();
        assert_eq!((params.beam_width(), params.length_penalty), (Some(4), 0.5));
        assert_eq!((params.early_stopping, params.num_sequences()), (EarlyStopping::Never, 2));
        assert_eq!(parse(r#"{"early_stopping": true}"#).unwrap().early_stopping, EarlyStopping::Immediate);
        assert_eq!(parse("{}").unwrap().early_stopping, EarlyStopping::Heuristic);
        assert!(parse(r#"{"early_stopping": "always"}"#).unwrap_err().to_string().contains("never"));
        for early_stopping in [EarlyStopping::Heuristic, EarlyStopping::Immediate, EarlyStopping::Never] {
            let params = SamplingParams { early_stopping, ..beams(3) };
            assert_eq!(parse(&serde_json::to_string(&params).unwrap()).unwrap(), params);
        }
    }

    #[test]
    fn hostile_values_are_refused_with_the_field_named() {
        let table: &[(&str, SamplingParams)] = &[
            ("beam_width", beams(0)),
            ("beam_width", beams(1_000_000_000)),
            ("beam_width", beams(u32::MAX)),
            ("beam_width", beams(33)),
            ("n", SamplingParams { n: 5, ..beams(4) }),
            ("n", SamplingParams { n: 1_000_000_000, ..beams(4) }),
            ("n", SamplingParams { n: 33, beam_width: None, ..beams(0) }),
            ("length_penalty", SamplingParams { length_penalty: f64::NAN, ..beams(4) }),
            ("length_penalty", SamplingParams { length_penalty: f64::INFINITY, ..beams(4) }),
            ("length_penalty", SamplingParams { length_penalty: -1e9, ..beams(4) }),
        ];
        for (i, (field, params)) in table.iter().enumerate() {
            let error = params.validate(1000, &ParamCaps::default()).expect_err(&format!("row {i}: {field}"));
            assert_eq!(error.field(), Some(*field), "row {i}: {error}");
        }
        // A vocabulary with too few tokens to choose among.
        assert!(beams(3).validate(5, &ParamCaps::default()).is_err());
        assert!(beams(3).validate(6, &ParamCaps::default()).is_ok());
    }

    #[test]
    fn what_does_not_go_with_beams_is_a_conflict() {
        let table: &[SamplingParams] = &[
            SamplingParams { use_beam_search: false, ..beams(4) },
            SamplingParams { best_of: Some(4), ..beams(4) },
            SamplingParams { temperature: 0.7, ..beams(4) },
            SamplingParams { top_k: 3, ..beams(4) },
            SamplingParams { top_p: 0.9, ..beams(4) },
            SamplingParams { min_p: 0.1, ..beams(4) },
            SamplingParams { repetition_penalty: 1.2, ..beams(4) },
            SamplingParams { logit_bias: [(1, 1.0)].into(), ..beams(4) },
            SamplingParams { allowed_token_ids: Some(vec![1]), ..beams(4) },
            SamplingParams { stop: vec!["x".into()], ..beams(4) },
        ];
        for (i, params) in table.iter().enumerate() {
            let error = params.validate(1000, &ParamCaps::default()).expect_err(&format!("row {i}"));
            assert!(matches!(error, ParamError::Conflict(_)), "row {i}: {error}");
        }
        for temperature in [0.0, 1.0] {
            let params = SamplingParams { temperature, n: 4, ..beams(4) };
            params.validate(1000, &ParamCaps::default()).expect("a plain beam search");
        }
    }
}
