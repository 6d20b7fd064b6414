//! Perplexity of a text: how well a model predicts it, as it is loaded. What a number format costs in accuracy.

use super::{Llm, LlmError};
use crate::engine::TokenId;
use crate::sampling::SamplingParams;

/// How well a text was predicted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// Tokens that were predicted: all but the first.
    pub predicted_tokens: u64,
    /// Mean of `-ln(probability)` over them.
    pub mean_nll: f64,
}

impl Perplexity {
    /// `exp(mean_nll)`.
    pub fn value(&self) -> f64 {
        self.mean_nll.exp()
    }

    /// Predicts `tokens` in windows of `window` tokens that begin every `stride` tokens, each token once: in the first
    /// window that has a token before it. All but those of the first window are predicted from at least `window - stride`
    /// tokens.
    ///
    /// `on_window` gets the tokens done after each window.
    ///
    /// # Errors
    /// As [`Llm::generate`]; a window that is too long for the engine is refused there.
    ///
    /// # Panics
    /// If there are fewer than two tokens, or `stride` is 0 or not less than `window`.
    pub fn measure(
        llm: &mut Llm,
        tokens: &[TokenId],
        window: u32,
        stride: u32,
        on_window: &mut dyn FnMut(usize),
    ) -> Result<Self, LlmError> {
        assert!(tokens.len() > 1 && (1..window).contains(&stride), "{} tokens, stride {stride}", tokens.len());
        let params = SamplingParams { prompt_logprobs: Some(0), detokenize: false, ..SamplingParams::greedy(1) };
        let (mut sum, mut done) = (0.0, 1);
        for start in (0..tokens.len()).step_by(stride as usize) {
            let end = tokens.len().min(start + window as usize);
            let outputs = llm.generate(vec![(tokens[start..end].to_vec(), params.clone())])?;
            // The first of them is of token start + 1.
            let new = &outputs[0].prompt_logprobs[done - start - 1..];
            sum -= new.iter().map(|logprobs| f64::from(logprobs.chosen.logprob)).sum::<f64>();
            done = end;
            on_window(done);
            if done == tokens.len() {
                break;
            }
        }
        let predicted_tokens = tokens.len() as u64 - 1;
        Ok(Self { predicted_tokens, mean_nll: sum / predicted_tokens as f64 })
    }
}
