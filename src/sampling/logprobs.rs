//! Log probabilities of raw logits: of a sampled token, or of a prompt token given the row before it.

use std::cmp::Ordering;

use super::SampleError;
use crate::backend::TokenScore;
use crate::engine::TokenId;

/// One token's log probability (natural logarithm) and its rank in the row, 1 for the likeliest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: TokenId,
    /// Natural logarithm of its probability; -inf for a logit of -inf.
    pub logprob: f32,
    /// 1 + the number of tokens that are strictly likelier (vLLM's rank).
    pub rank: u32,
}

/// What a request with `logprobs` or `prompt_logprobs` gets for one position.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// The token that was sampled, or that stands next in the prompt.
    pub chosen: TokenLogprob,
    /// The likeliest tokens, likeliest first, ties by the lower id.
    pub top: Vec<TokenLogprob>,
}

/// Likelier first, then the lower id.
pub(super) fn likelier_first(a: (f32, TokenId), b: (f32, TokenId)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// `ln(sum(exp(logits)))`, in f64; -inf if every logit is -inf.
pub(super) fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    if max == f64::NEG_INFINITY {
        return max;
    }
    max + logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum::<f64>().ln()
}

/// The log probability of `token` under `logits`, one f32 per token id, and those of the `k` likeliest tokens.
///
/// For prompt logprobs: `logits` is the row computed at a prompt position, `token` the prompt token that follows it.
/// Linear in the vocabulary: the `k` likeliest are selected, not sorted out of a full sort.
///
/// # Panics
/// If `token` is not an index into `logits`.
pub fn token_logprobs(logits: &[f32], token: TokenId, k: u32) -> TokenLogprobs {
    let total = log_sum_exp(logits);
    let logprob = |logit: f32| (f64::from(logit) - total) as f32;
    let chosen = logits[token as usize];
    let rank = 1 + logits.iter().filter(|&&logit| logit > chosen).count() as u32;

    let k = (k as usize).min(logits.len());
    let mut pairs: Vec<(f32, TokenId)> = Vec::new();
    if k > 0 {
        pairs = logits.iter().copied().zip(0..).collect();
        if k < pairs.len() {
            pairs.select_nth_unstable_by(k - 1, |a, b| likelier_first(*a, *b));
            pairs.truncate(k);
        }
        pairs.sort_unstable_by(|a, b| likelier_first(*a, *b));
    }
    let mut top: Vec<TokenLogprob> = Vec::with_capacity(k);
    let mut rank_of_run = 1;
    for (i, &(logit, token)) in pairs.iter().enumerate() {
        if i > 0 && logit < pairs[i - 1].0 {
            rank_of_run = i as u32 + 1;
        }
        top.push(TokenLogprob { token, logprob: logprob(logit), rank: rank_of_run });
    }
    TokenLogprobs { chosen: TokenLogprob { token, logprob: logprob(chosen), rank }, top }
}

/// The device's likeliest tokens of a row with their ranks: equally likely ones have the same.
///
/// # Errors
/// [`SampleError::NonFiniteLogprobs`]
pub fn ranked(scores: &[TokenScore]) -> Result<Vec<TokenLogprob>, SampleError> {
    let mut rank = 1;
    let with_rank = |(i, &TokenScore { token, logprob }): (usize, &TokenScore)| {
        if i > 0 && logprob < scores[i - 1].logprob {
            rank = i as u32 + 1;
        }
        logprob.is_finite().then_some(TokenLogprob { token, logprob, rank }).ok_or(SampleError::NonFiniteLogprobs)
    };
    scores.iter().enumerate().map(with_rank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_ranks_and_ties() {
        // Probabilities 1/10, 4/10, 4/10, 1/10.
        let logits = [1.0f32, 4.0, 4.0, 1.0].map(|p| p.ln() + 50.0);
        let got = token_logprobs(&logits, 3, 3);
        assert_eq!((got.chosen.token, got.chosen.rank), (3, 3));
        assert!((got.chosen.logprob - 0.1f32.ln()).abs() < 1e-5);
        assert_eq!(got.top.iter().map(|t| (t.token, t.rank)).collect::<Vec<_>>(), [(1, 1), (2, 1), (0, 3)]);
        assert!((got.top[0].logprob - 0.4f32.ln()).abs() < 1e-5);
    }

    #[test]
    fn masked_tokens_and_large_k() {
        let got = token_logprobs(&[f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY], 0, 9);
        assert_eq!(got.chosen.logprob, f32::NEG_INFINITY);
        assert_eq!(got.top.len(), 3);
        assert_eq!((got.top[0].token, got.top[0].logprob), (1, 0.0));
        assert!(token_logprobs(&[0.0, 1.0], 1, 0).top.is_empty());
    }

    #[test]
    fn probabilities_sum_to_one() {
        let logits: Vec<f32> = (0..1000).map(|i| ((i * 37) % 101) as f32 / 9.0).collect();
        let all = token_logprobs(&logits, 0, 1000);
        let sum: f64 = all.top.iter().map(|t| f64::from(t.logprob).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    }
}
