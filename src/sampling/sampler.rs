//! One row of logits to one token, on the host.

use super::logprobs::{TokenLogprobs, likelier_first, token_logprobs};
use super::processors::{TokenCounts, keep_only, mask_and_bias, penalise};
use super::{SamplingParams, uniform};
use crate::engine::TokenId;

/// The tokens before the one to be sampled; the penalties look at them.
#[derive(Debug, Clone, Copy, Default)]
pub struct History<'a> {
    /// Prompt tokens.
    pub prompt: &'a [TokenId],
    /// Tokens sampled so far.
    pub output: &'a [TokenId],
}

/// Everything a random number is a function of (invariant I12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// The request's seed.
    pub seed: u64,
    /// The sequence's index within its request.
    pub sample_index: u32,
    /// Position in the sequence of the token to be sampled.
    pub position: u32,
}

/// A sampled token.
#[derive(Debug, Clone, PartialEq)]
pub struct SampledToken {
    /// The token.
    pub token: TokenId,
    /// Log probabilities under the raw logits, if the request asks for them or ranks its sequences (`best_of`).
    pub logprobs: Option<TokenLogprobs>,
}

/// A row of logits that no token can be sampled from.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// A logit is NaN or +inf.
    #[error(
        "the logit of token {token} is {value}: the model's output is broken; if it happens with other prompts too, \
         check the weights and report the device"
    )]
    NonFinite {
        /// The first token concerned.
        token: TokenId,
        /// Its logit.
        value: f32,
    },
    /// The row has a logit that is NaN or infinite.
    #[error(
        "the log probabilities of the next tokens are not finite: the model's output is broken; if it happens with other \
         prompts too, check the weights and report the device"
    )]
    NonFiniteLogprobs,
    /// The grammar of the request cannot go on.
    #[error("structured output: {0}")]
    Grammar(String),
    /// Every token is excluded.
    #[error("no token can be sampled: every one is excluded; allow more in `allowed_token_ids`, or lower `min_tokens`")]
    NothingLeft,
}

impl SampleError {
    /// Whether it is what the request asks for that leaves no token, and not what the model says.
    pub fn is_request_error(&self) -> bool {
        matches!(self, Self::Grammar(_) | Self::NothingLeft)
    }
}

/// A token that may still be drawn.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    logit: f32,
    token: TokenId,
    /// Unnormalised probability: exp((logit - max) / temperature).
    weight: f64,
}

/// The host sampler. It keeps scratch memory between calls, never anything a result depends on.
///
/// Order of processing (vLLM v1): the grammar's tokens, allowed tokens, `min_tokens`, `logit_bias`, repetition, frequency and presence
/// penalties; greedy if the temperature is below 1e-5; otherwise temperature, `min_p`, `top_k`, `top_p`, and a draw by
/// inverse CDF over the remaining tokens in the order of their ids. Ties go to the lower id, so `top_k` keeps exactly
/// k tokens.
#[derive(Debug, Default)]
pub struct Sampler {
    eos: Vec<TokenId>,
    counts: TokenCounts,
    candidates: Vec<Candidate>,
    raw: Vec<f32>,
}

impl Sampler {
    /// A sampler for a model whose sequences end at `eos`; these are what `min_tokens` excludes.
    pub fn new(eos: Vec<TokenId>) -> Self {
        Self { eos, ..Self::default() }
    }

    /// Samples one token from `logits` (one f32 per token id; left in an unspecified state). With `grammar`, only those
    /// whose bits are set in it, the lowest id in the lowest bit.
    ///
    /// # Errors
    /// [`SampleError`] if a logit is NaN or +inf, or every token is excluded.
    pub fn sample(
        &mut self,
        logits: &mut [f32],
        params: &SamplingParams,
        grammar: Option<&[u32]>,
        history: History<'_>,
        draw: Draw,
    ) -> Result<SampledToken, SampleError> {
        if let Some(token) = logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            return Err(SampleError::NonFinite { token: token as TokenId, value: logits[token] });
        }
        let wanted_logprobs = params.sampled_logprobs();
        if wanted_logprobs.is_some() {
            self.raw.clear();
            self.raw.extend_from_slice(logits);
        }
        if let Some(grammar) = grammar {
            keep_only(logits, grammar);
        }
        mask_and_bias(logits, params, history.output.len(), &self.eos);
        penalise(logits, params, history, &mut self.counts);
        let token = if params.is_greedy() { argmax(logits)? } else { self.draw(logits, params, uniform_of(draw))? };
        let logprobs = wanted_logprobs.map(|top| token_logprobs(&self.raw, token, top));
        Ok(SampledToken { token, logprobs })
    }

    fn draw(&mut self, logits: &[f32], params: &SamplingParams, uniform: f64) -> Result<TokenId, SampleError> {
        let max = f64::from(logits[argmax(logits)? as usize]);
        let temperature = f64::from(params.temperature);
        // In f64, relative to the maximum: no overflow for any finite logit, penalty or temperature.
        let below = |logit: f32| f64::from(logit) - max;
        let weight = |logit: f32| (below(logit) / temperature).exp();
        // The weight against `min_p`, but for the exponential, which rounds.
        let least = temperature * f64::from(params.min_p).ln();
        self.candidates.clear();
        self.candidates.extend(
            logits
                .iter()
                .zip(0..)
                .filter(|(logit, _)| **logit > f32::NEG_INFINITY && below(**logit) >= least)
                .map(|(&logit, token)| Candidate { logit, token, weight: weight(logit) }),
        );
        let cuts_k = params.top_k > 0 && (params.top_k as u64) < self.candidates.len() as u64;
        if cuts_k {
            let k = params.top_k as usize;
            self.candidates.select_nth_unstable_by(k - 1, by_likelihood);
            self.candidates.truncate(k);
        }
        if params.top_p < 1.0 {
            keep_nucleus(&mut self.candidates, f64::from(params.top_p));
        }
        if cuts_k || params.top_p < 1.0 {
            // Either of them leaves another order, even if it keeps all.
            self.candidates.sort_unstable_by_key(|candidate| candidate.token);
        }
        Ok(pick(&self.candidates, uniform))
    }
}

/// The number that a draw is made by.
pub(super) fn uniform_of(draw: Draw) -> f64 {
    uniform(draw.seed, draw.sample_index, draw.position)
}

fn by_likelihood(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    likelier_first((a.logit, a.token), (b.logit, b.token))
}

/// The token of the largest logit, the lower id of equals.
fn argmax(logits: &[f32]) -> Result<TokenId, SampleError> {
    let mut best = (f32::NEG_INFINITY, None);
    for (&logit, token) in logits.iter().zip(0..) {
        if logit > best.0 {
            best = (logit, Some(token));
        }
    }
    best.1.ok_or(SampleError::NothingLeft)
}

/// Keeps the likeliest candidates until their share reaches `top_p` (at least one). Sorts no further than it must: in
/// chunks that double, since nearly always a few dozen tokens suffice.
fn keep_nucleus(candidates: &mut Vec<Candidate>, top_p: f64) {
    let total = candidates.iter().map(|candidate| candidate.weight).sum::<f64>();
    let target = top_p * total;
    // Tokens this unlikely hold less than 1 - top_p together: the nucleus is complete without them. (Half of the bound,
    // to be on the safe side of rounding.)
    let negligible = 0.5 * (1.0 - top_p) * total / candidates.len() as f64;
    candidates.retain(|candidate| candidate.weight >= negligible);
    let (mut sorted, mut chunk, mut sum) = (0, 64, 0.0);
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let len = chunk.min(rest.len());
        if len < rest.len() {
            rest.select_nth_unstable_by(len - 1, by_likelihood);
        }
        rest[..len].sort_unstable_by(by_likelihood);
        for (i, candidate) in rest[..len].iter().enumerate() {
            sum += candidate.weight;
            if sum >= target {
                candidates.truncate(sorted + i + 1);
                return;
            }
        }
        sorted += len;
        chunk *= 2;
    }
}

/// Inverse CDF in the order given. `candidates` is not empty: the likeliest one, of weight 1, is always in it.
fn pick(candidates: &[Candidate], uniform: f64) -> TokenId {
    let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    let target = uniform * total;
    let mut sum = 0.0;
    let mut last = candidates[0].token;
    for candidate in candidates.iter().filter(|candidate| candidate.weight > 0.0) {
        sum += candidate.weight;
        last = candidate.token;
        if sum > target {
            break;
        }
    }
    last
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;
