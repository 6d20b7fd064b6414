//! What the device is to draw in a step.

use super::sampler::uniform_of;
use super::{Draw, History, SamplingParams};
use crate::backend::{LogitAdjustment, TokenDraw};
use crate::engine::TokenId;

/// The draws of a step: requests' parameters and histories in, numbers for the device out.
///
/// They mean what [`Sampler`](super::Sampler) does on the host, so a token is the same wherever it is sampled, apart from
/// rounding where two tokens meet.
#[derive(Debug)]
pub struct DrawList {
    eos: Vec<TokenId>,
    vocab_size: u32,
    most_adjustments: u32,
    draws: Vec<TokenDraw>,
    adjustments: Vec<LogitAdjustment>,
    marks: Vec<u32>,
    marked: Vec<TokenId>,
}

/// Bits of a mark above the number of occurrences in the output.
const SEEN: u32 = 1 << 31;
const EXCLUDED: u32 = 1 << 30;
const BIASED: u32 = 1 << 29;
const COUNT: u32 = BIASED - 1;

impl DrawList {
    /// No draws, for a model whose sequences end at `eos`; a draw has at most `most_adjustments`.
    pub fn new(eos: Vec<TokenId>, vocab_size: u32, most_adjustments: u32) -> Self {
        let (draws, adjustments, marked) = (Vec::new(), Vec::new(), Vec::new());
        Self { eos, vocab_size, most_adjustments, draws, adjustments, marks: Vec::new(), marked }
    }

    /// Forgets the draws.
    pub fn clear(&mut self) {
        self.draws.clear();
        self.adjustments.clear();
    }

    /// The draws, in the order in which they were added.
    pub fn draws(&self) -> &[TokenDraw] {
        &self.draws
    }

    /// What they adjust.
    pub fn adjustments(&self) -> &[LogitAdjustment] {
        &self.adjustments
    }

    /// Adds the draw of a token from a logits row. `false`, and nothing is added, if it would adjust too many tokens.
    ///
    /// `params` do not [need logits](SamplingParams::needs_logits).
    pub fn push(&mut self, row: u32, params: &SamplingParams, history: History<'_>, draw: Draw) -> bool {
        let first_adjustment = self.adjustments.len() as u32;
        self.adjust(params, history);
        let num_adjustments = self.adjustments.len() as u32 - first_adjustment;
        if num_adjustments > self.most_adjustments {
            self.adjustments.truncate(first_adjustment as usize);
            return false;
        }
        let adjusted = TokenDraw {
            first_adjustment,
            num_adjustments,
            repetition_penalty: params.repetition_penalty,
            frequency_penalty: params.frequency_penalty,
            presence_penalty: params.presence_penalty,
            ..TokenDraw::unfiltered(row)
        };
        // Greedy: the likeliest one, whatever the number.
        self.draws.push(match params.is_greedy() {
            true => TokenDraw { top_k: 1, ..adjusted },
            false => TokenDraw {
                top_k: u32::try_from(params.top_k).unwrap_or(0),
                top_p: params.top_p,
                min_p: params.min_p,
                temperature: params.temperature,
                uniform: uniform_of(draw) as f32,
                ..adjusted
            },
        });
        true
    }

    fn adjust(&mut self, params: &SamplingParams, history: History<'_>) {
        self.marks.resize(self.vocab_size as usize, 0);
        if params.has_penalties() {
            history.prompt.iter().for_each(|&token| self.mark(token, SEEN, 0));
            history.output.iter().for_each(|&token| self.mark(token, SEEN, 1));
        }
        if history.output.len() < params.min_tokens as usize {
            for at in 0..if params.ignore_eos { 0 } else { self.eos.len() } {
                self.mark(self.eos[at], EXCLUDED, 0);
            }
            params.stop_token_ids.iter().for_each(|&token| self.mark(token, EXCLUDED, 0));
        }
        params.logit_bias.keys().for_each(|&token| self.mark(token, BIASED, 0));

        self.marked.sort_unstable();
        for token in self.marked.drain(..) {
            let mark = std::mem::take(&mut self.marks[token as usize]);
            let bias = match mark {
                mark if mark & EXCLUDED != 0 => f32::NEG_INFINITY,
                mark if mark & BIASED != 0 => params.logit_bias[&token],
                _ => 0.0,
            };
            self.adjustments.push(LogitAdjustment { token, seen: mark >> 31, count: mark & COUNT, bias });
        }
    }

    fn mark(&mut self, token: TokenId, bit: u32, count: u32) {
        let Some(mark) = self.marks.get_mut(token as usize) else { return };
        if *mark == 0 {
            self.marked.push(token);
        }
        *mark = (*mark | bit) + count;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Sampler, uniform};
    use super::*;
    use crate::backend::cpu::draw::{Kept, draw};
    use crate::backend::kernel_cases::SplitMix64;

    const VOCAB: u32 = 500;

    fn list() -> DrawList {
        DrawList::new(vec![2], VOCAB, 64)
    }

    #[test]
    fn adjustments_are_ascending_and_marks_are_left_clean() {
        let params = SamplingParams {
            presence_penalty: 0.5,
            min_tokens: 5,
            stop_token_ids: vec![9, 3, 9000],
            logit_bias: [(3, 4.0), (7, -1.0)].into(),
            ..SamplingParams::default()
        };
        let history = History { prompt: &[9, 400, 9], output: &[7, 9, 7] };
        let draw = Draw { seed: 1, sample_index: 0, position: 6 };
        let mut list = list();
        for round in 0..2 {
            assert!(list.push(4, &params, history, draw));
            assert!(list.marks.iter().all(|&mark| mark == 0));
            assert_eq!(
                (list.draws()[round].first_adjustment, list.draws()[round].num_adjustments),
                (5 * round as u32, 5)
            );
        }
        let out = f32::NEG_INFINITY;
        let adjustment = |token, seen, count, bias| LogitAdjustment { token, seen, count, bias };
        let want = [
            adjustment(2, 0, 0, out),
            adjustment(3, 0, 0, out),
            adjustment(7, 1, 2, -1.0),
            adjustment(9, 1, 1, out),
            adjustment(400, 1, 0, 0.0),
        ];
        assert_eq!(list.adjustments()[..5], want);
        assert_eq!(list.adjustments()[5..], want);
    }

    #[test]
    fn too_many_adjustments_add_nothing() {
        let params = SamplingParams { repetition_penalty: 1.1, ..SamplingParams::default() };
        let prompt: Vec<u32> = (0..65).collect();
        let draw = Draw { seed: 1, sample_index: 0, position: 65 };
        let mut list = list();
        assert!(!list.push(0, &params, History { prompt: &prompt, output: &[] }, draw));
        assert!(list.draws().is_empty() && list.adjustments().is_empty());
        assert!(list.push(0, &params, History { prompt: &prompt[1..], output: &[] }, draw));
    }

    /// The host's sampler and the reference of the device's draws were written apart.
    #[test]
    fn draws_are_what_the_host_samples() {
        let mut rng = SplitMix64::new(5);
        let mut sampler = Sampler::new(vec![2]);
        let mut choose = |values: &[f32]| values[rng.below(values.len() as u32) as usize];
        for round in 0..2000u32 {
            let params = SamplingParams {
                temperature: choose(&[0.0, 0.02, 0.7, 1.0, 3.0, 1e6]),
                top_k: choose(&[-1.0, 0.0, 1.0, 5.0, 40.0, 500.0]) as i64,
                top_p: choose(&[1.0, 0.95, 0.5, 1e-6]),
                min_p: choose(&[0.0, 0.0, 0.1, 1.0]),
                repetition_penalty: choose(&[1.0, 1.3, 0.8]),
                frequency_penalty: choose(&[0.0, 0.5]),
                presence_penalty: choose(&[0.0, -0.5]),
                min_tokens: choose(&[0.0, 9.0]) as u32,
                logit_bias: if choose(&[0.0, 1.0]) > 0.0 { [(3, 2.5), (40, -100.0)].into() } else { [].into() },
                ..SamplingParams::default()
            };
            // Values on a grid, so that there are ties.
            let logits: Vec<f32> =
                (0..VOCAB).map(|token| (uniform(u64::from(round), 0, token) * 40.0).round() as f32 / 4.0).collect();
            let history = History { prompt: &[1, 2, 3, 2], output: &[4, 4, 40, 499] };
            let number = Draw { seed: u64::from(round), sample_index: 1, position: 8 };
            let mut list = list();
            assert!(list.push(0, &params, history, number));
            let token = &list.draws()[0];
            let host = sampler.sample(&mut logits.clone(), &params, None, history, number).unwrap().token;
            if host != draw(&logits, token, list.adjustments()) {
                let kept = Kept::of(&logits, token, list.adjustments()).unwrap();
                let distance = kept.distance(uniform_of(number), host);
                assert!(distance < 1e-7, "{distance}: {host} for {params:?}");
            }
        }
    }
}
