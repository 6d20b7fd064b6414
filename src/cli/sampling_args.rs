//! Flags about how tokens are chosen.

use super::refusal;
use anyhow::{Result, bail};
use bindery::sampling::{ParamCaps, SamplingParams};
use clap::Args;

/// How tokens are chosen, and when the answer ends.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(super) struct SamplingArgs {
    /// 0 always takes the likeliest token, so that every run answers the same; 0.7 is lively, above 1 wild
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,

    /// Choose among the fewest likeliest tokens whose probabilities sum to P; 1 is off
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,

    /// Choose among the K likeliest tokens; 0 is off
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: i64,

    /// Leave out tokens less than P times as likely as the likeliest; 0 is off
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,

    /// Make tokens of prompt and answer less likely (above 1) or likelier (below); 1 is off
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    repetition_penalty: f32,

    /// Longest answer, in tokens
    #[arg(long, value_name = "TOKENS", default_value_t = 512)]
    max_tokens: u32,

    /// End the answer before this text; up to four times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,

    /// Go on after the end-of-sequence token, up to --max-tokens
    #[arg(long)]
    ignore_eos: bool,
}

impl SamplingArgs {
    /// The parameters of `n` answers, as far as they can be checked without a model.
    ///
    /// # Errors
    /// A value out of its range.
    pub(super) fn params(&self, n: u32) -> Result<SamplingParams> {
        let params = SamplingParams {
            n,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            max_tokens: Some(self.max_tokens),
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            ..SamplingParams::default()
        };
        if n > 1 && self.temperature == 0.0 {
            bail!(
                "-n {n}: at temperature 0 all answers would be the same; give a --temperature above 0 (how long an \
                 answer may be is --max-tokens)"
            );
        }
        params.validate(usize::MAX, &ParamCaps::default()).map_err(refusal::of_flag)?;
        Ok(params)
    }
}
