//! What happens to a row of logits before a token is drawn from it, in vLLM's order: allowed tokens, minimum length,
//! bias, penalties.

use super::{History, SamplingParams};
use crate::engine::TokenId;

/// Scratch for the penalties: counts per token id, all zero between calls.
#[derive(Debug, Default)]
pub(super) struct TokenCounts {
    /// Occurrences in the output; the high bit is set for tokens of the prompt.
    counts: Vec<u32>,
}

const IN_PROMPT: u32 = 1 << 31;

/// Excludes every token whose bit is not set in `allowed`, the lowest id in the lowest bit.
pub(super) fn keep_only(logits: &mut [f32], allowed: &[u32]) {
    for (token, logit) in logits.iter_mut().enumerate() {
        if allowed.get(token / 32).is_none_or(|word| word >> (token % 32) & 1 == 0) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Excludes tokens the request may not end on yet, or did not allow, and adds its biases.
pub(super) fn mask_and_bias(logits: &mut [f32], params: &SamplingParams, output_len: usize, eos: &[TokenId]) {
    if let Some(allowed) = &params.allowed_token_ids {
        let kept: Vec<(usize, f32)> =
            allowed.iter().filter_map(|&t| logits.get(t as usize).map(|&logit| (t as usize, logit))).collect();
        logits.fill(f32::NEG_INFINITY);
        for (token, logit) in kept {
            logits[token] = logit;
        }
    }
    if output_len < params.min_tokens as usize {
        let eos = if params.ignore_eos { &[] } else { eos };
        for &token in eos.iter().chain(&params.stop_token_ids) {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
    for (&token, &bias) in &params.logit_bias {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit += bias;
        }
    }
}

/// Repetition penalty over prompt and output (Keskar et al., arXiv 1909.05858), then frequency and presence penalties
/// over the output (OpenAI's definition). Linear in the history, not in the vocabulary.
pub(super) fn penalise(logits: &mut [f32], params: &SamplingParams, history: History<'_>, scratch: &mut TokenCounts) {
    if !params.has_penalties() {
        return;
    }
    let counts = &mut scratch.counts;
    counts.resize(logits.len().max(counts.len()), 0);
    let known = |token: &&TokenId| (**token as usize) < logits.len();
    for &token in history.prompt.iter().filter(known) {
        counts[token as usize] |= IN_PROMPT;
    }
    for &token in history.output.iter().filter(known) {
        counts[token as usize] += 1;
    }
    for &token in history.prompt.iter().chain(history.output) {
        let Some(logit) = logits.get_mut(token as usize) else { continue };
        let count = std::mem::take(&mut counts[token as usize]);
        if count == 0 {
            continue; // done already
        }
        let (in_output, before) = (count & !IN_PROMPT, *logit);
        if params.repetition_penalty != 1.0 {
            let penalty = params.repetition_penalty;
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
        if in_output > 0 {
            *logit -= params.frequency_penalty * in_output as f32;
            *logit -= params.presence_penalty;
        }
        if before.is_finite() {
            *logit = logit.clamp(f32::MIN, f32::MAX); // a huge penalty neither excludes nor forces a token
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn penalised(logits: &[f32], params: &SamplingParams, prompt: &[u32], output: &[u32]) -> Vec<f32> {
        let mut logits = logits.to_vec();
        let mut scratch = TokenCounts::default();
        penalise(&mut logits, params, History { prompt, output }, &mut scratch);
        assert!(scratch.counts.iter().all(|&count| count == 0), "scratch must be left clean");
        logits
    }

    #[test]
    fn penalties_by_hand() {
        let row = [2.0, -2.0, 1.0, 4.0, 0.5];
        let (prompt, output) = ([0, 1, 0, 9], [1, 3, 3, 3, 7]);
        let params = SamplingParams { repetition_penalty: 2.0, ..SamplingParams::default() };
        // Prompt and output; divided where positive, multiplied where negative, once however often they occur.
        assert_eq!(penalised(&row, &params, &prompt, &output), [1.0, -4.0, 1.0, 2.0, 0.5]);
        let params = SamplingParams { frequency_penalty: 0.5, ..SamplingParams::default() };
        assert_eq!(penalised(&row, &params, &prompt, &output), [2.0, -2.5, 1.0, 2.5, 0.5]);
        let params = SamplingParams { presence_penalty: -1.5, ..SamplingParams::default() };
        assert_eq!(penalised(&row, &params, &prompt, &output), [2.0, -0.5, 1.0, 5.5, 0.5]);
        let params = SamplingParams {
            repetition_penalty: 2.0,
            frequency_penalty: 0.5,
            presence_penalty: 1.0,
            ..SamplingParams::default()
        };
        assert_eq!(penalised(&row, &params, &prompt, &output), [1.0, -5.5, 1.0, -0.5, 0.5]);
        assert_eq!(penalised(&row, &SamplingParams::default(), &prompt, &output), row);
    }

    #[test]
    fn masks_and_bias() {
        const OUT: f32 = f32::NEG_INFINITY;
        let row = [1.0, 2.0, 3.0, 4.0];
        let masked = |params: &SamplingParams, output_len| {
            let mut logits = row.to_vec();
            mask_and_bias(&mut logits, params, output_len, &[3]);
            logits
        };
        let allowed = SamplingParams { allowed_token_ids: Some(vec![2, 0, 2, 77]), ..SamplingParams::default() };
        assert_eq!(masked(&allowed, 0), [1.0, OUT, 3.0, OUT]);
        let minimum = SamplingParams { min_tokens: 2, stop_token_ids: vec![1], ..SamplingParams::default() };
        assert_eq!(masked(&minimum, 1), [1.0, OUT, 3.0, OUT]);
        assert_eq!(masked(&minimum, 2), row);
        let endless = SamplingParams { ignore_eos: true, ..minimum.clone() };
        assert_eq!(masked(&endless, 0), [1.0, OUT, 3.0, 4.0]);
        // A bias cannot bring back what is excluded.
        let biased = SamplingParams { logit_bias: [(0, -0.5), (3, 100.0)].into(), ..minimum };
        assert_eq!(masked(&biased, 0), [0.5, OUT, 3.0, OUT]);
    }
}
