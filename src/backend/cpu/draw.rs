//! What a draw computes: see [`TokenDraw`], which is the definition; this spells it out in f64, with a full sort.

use crate::backend::{DRAWN_BROKEN, DRAWN_NOTHING, LogitAdjustment, TokenDraw};
use std::cmp::Ordering;

/// The tokens that a draw chooses among.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Token and weight, in the order of the ids.
    pub tokens: Vec<(u32, f64)>,
    /// Sum of the weights, at least 1.
    pub total: f64,
}

/// The token drawn from `logits`, `[vocab]`, or [`DRAWN_BROKEN`] or [`DRAWN_NOTHING`]; `adjustments` are the step's.
pub fn draw(logits: &[f32], draw: &TokenDraw, adjustments: &[LogitAdjustment]) -> u32 {
    match Kept::of(logits, draw, adjustments) {
        Ok(kept) => kept.pick(f64::from(draw.uniform)),
        Err(nothing) => nothing,
    }
}

impl Kept {
    /// Steps 1 to 3.
    ///
    /// # Errors
    /// [`DRAWN_BROKEN`] or [`DRAWN_NOTHING`].
    pub fn of(logits: &[f32], draw: &TokenDraw, adjustments: &[LogitAdjustment]) -> Result<Self, u32> {
        if logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            return Err(DRAWN_BROKEN);
        }
        let mut logits = logits.to_vec();
        let adjustments = &adjustments[draw.first_adjustment as usize..][..draw.num_adjustments as usize];
        adjustments.iter().for_each(|adjustment| adjust(&mut logits, draw, adjustment));

        let mut ranked: Vec<u32> =
            (0..logits.len() as u32).filter(|&t| logits[t as usize] > f32::NEG_INFINITY).collect();
        ranked.sort_by(|&a, &b| by_rank((logits[a as usize], a), (logits[b as usize], b)));
        let largest = f64::from(logits[*ranked.first().ok_or(DRAWN_NOTHING)? as usize]);
        let temperature = f64::from(draw.temperature);
        let below = |token: u32| f64::from(logits[token as usize]) - largest;
        let weight = |token: u32| (below(token) / temperature).exp();
        // The weight against `min_p`, but for the exponential, which rounds.
        let least = temperature * f64::from(draw.min_p).ln();
        ranked.truncate(ranked.partition_point(|&token| below(token) >= least));
        if draw.top_k > 0 {
            ranked.truncate(draw.top_k as usize);
        }
        let target = f64::from(draw.top_p) * ranked.iter().map(|&token| weight(token)).sum::<f64>();
        let mut sum = 0.0;
        let fewest = ranked.iter().position(|&token| {
            sum += weight(token);
            sum >= target
        });
        // Rounding may keep the sum of all below all of it.
        ranked.truncate(fewest.map_or(ranked.len(), |last| last + 1));

        ranked.sort_unstable();
        let tokens: Vec<(u32, f64)> = ranked.into_iter().map(|token| (token, weight(token))).collect();
        let total = tokens.iter().map(|(_, weight)| weight).sum();
        Ok(Self { tokens, total })
    }

    /// Step 4.
    pub fn pick(&self, uniform: f64) -> u32 {
        let target = uniform * self.total;
        let mut sum = 0.0;
        let drawn = self.tokens.iter().find(|(_, weight)| {
            sum += weight;
            sum > target
        });
        // Rounding may keep the sum of all at or below `target`.
        let last = || self.tokens.iter().rfind(|(_, weight)| *weight > 0.0);
        drawn.or_else(last).expect("the likeliest token is kept, with weight 1").0
    }

    /// How far `uniform` is from the numbers for which `token` is drawn, in [0, 1]; 0 if it is one of them. A token that
    /// is not kept has no such numbers, but a place among those that are.
    pub fn distance(&self, uniform: f64, token: u32) -> f64 {
        let before: f64 = self.tokens.iter().take_while(|(kept, _)| *kept < token).map(|(_, weight)| weight).sum();
        let own = self.tokens.binary_search_by_key(&token, |(kept, _)| *kept).map_or(0.0, |at| self.tokens[at].1);
        let (begin, end) = (before / self.total, (before + own) / self.total);
        (begin - uniform).max(uniform - end).max(0.0)
    }
}

/// The larger logit first, +0 before -0, then the lower id.
fn by_rank(a: (f32, u32), b: (f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

fn adjust(logits: &mut [f32], draw: &TokenDraw, adjustment: &LogitAdjustment) {
    let Some(logit) = logits.get_mut(adjustment.token as usize).filter(|logit| logit.is_finite()) else { return };
    *logit += adjustment.bias;
    if *logit == f32::NEG_INFINITY {
        return;
    }
    if adjustment.seen != 0 {
        *logit = if *logit > 0.0 { *logit / draw.repetition_penalty } else { *logit * draw.repetition_penalty };
    }
    if adjustment.count > 0 {
        *logit -= draw.frequency_penalty * adjustment.count as f32;
        *logit -= draw.presence_penalty;
    }
    *logit = logit.clamp(f32::MIN, f32::MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: TokenDraw = TokenDraw::unfiltered(0);

    /// Logits of these probabilities.
    fn logits() -> Vec<f32> {
        [0.05f32, 0.4, 0.2, 0.2, 0.1, 0.05].map(|p| p.ln() + 3.0).to_vec()
    }

    fn kept(draw: &TokenDraw) -> Vec<u32> {
        Kept::of(&logits(), draw, &[]).unwrap().tokens.into_iter().map(|(token, _)| token).collect()
    }

    #[test]
    fn what_stays() {
        assert_eq!(kept(&PLAIN), [0, 1, 2, 3, 4, 5]);
        // The tie of tokens 2 and 3 goes to the lower id.
        assert_eq!(kept(&TokenDraw { top_k: 2, ..PLAIN }), [1, 2]);
        assert_eq!(kept(&TokenDraw { top_p: 0.7, ..PLAIN }), [1, 2, 3]);
        assert_eq!(kept(&TokenDraw { top_p: 0.55, ..PLAIN }), [1, 2]);
        assert_eq!(kept(&TokenDraw { min_p: 0.2, ..PLAIN }), [1, 2, 3, 4]);
        assert_eq!(kept(&TokenDraw { top_p: 0.55, min_p: 0.4, top_k: 5, ..PLAIN }), [1, 2]);
    }

    #[test]
    fn the_first_token_beyond_the_uniform_number_in_the_order_of_ids() {
        let kept = Kept::of(&logits(), &TokenDraw { top_k: 3, ..PLAIN }, &[]).unwrap();
        // 0.4, 0.2, 0.2 of 0.8.
        let drawn = [0.0, 0.49, 0.51, 0.74, 0.76, 1.0].map(|uniform| kept.pick(uniform));
        assert_eq!(drawn, [1, 1, 2, 2, 3, 3]);
        assert_eq!(kept.distance(0.6, 2), 0.0);
        assert!((kept.distance(0.6, 1) - 0.1).abs() < 1e-6 && (kept.distance(0.6, 3) - 0.15).abs() < 1e-6);
        assert!((kept.distance(0.6, 4) - 0.4).abs() < 1e-6, "a token that is not kept, after those that are");
    }

    #[test]
    fn adjustments_by_hand() {
        let draw = TokenDraw { repetition_penalty: 2.0, frequency_penalty: 0.5, presence_penalty: 1.0, ..PLAIN };
        let adjustment = |token, seen, count, bias| LogitAdjustment { token, seen, count, bias };
        let mut row = [2.0, -2.0, 1.0, 4.0, f32::NEG_INFINITY, 1e38];
        let all = [
            adjustment(0, 1, 0, 0.0),
            adjustment(1, 1, 1, 0.0),
            adjustment(2, 0, 0, -3.0),
            adjustment(3, 1, 3, 1.0),
            adjustment(4, 1, 1, 100.0),
            adjustment(77, 1, 1, 1.0),
        ];
        all.iter().for_each(|one| adjust(&mut row, &draw, one));
        assert_eq!(row, [1.0, -5.5, -2.0, 0.0, f32::NEG_INFINITY, 1e38]);
        adjust(&mut row, &draw, &adjustment(0, 0, 0, f32::NEG_INFINITY));
        assert_eq!(row[0], f32::NEG_INFINITY);
        adjust(&mut row, &TokenDraw { repetition_penalty: 1e-30, ..PLAIN }, &adjustment(5, 1, 0, 0.0));
        assert_eq!(row[5], f32::MAX);
    }

    #[test]
    fn rows_without_a_token() {
        const OUT: f32 = f32::NEG_INFINITY;
        assert_eq!(draw(&[0.0, f32::NAN], &PLAIN, &[]), DRAWN_BROKEN);
        assert_eq!(draw(&[f32::INFINITY, 0.0], &PLAIN, &[]), DRAWN_BROKEN);
        assert_eq!(draw(&[OUT, OUT], &PLAIN, &[]), DRAWN_NOTHING);
        let ban = [LogitAdjustment { token: 1, seen: 0, count: 0, bias: OUT }];
        assert_eq!(draw(&[OUT, 5.0], &TokenDraw { num_adjustments: 1, ..PLAIN }, &ban), DRAWN_NOTHING);
        assert_eq!(draw(&[OUT, 5.0], &PLAIN, &ban), 1);
    }
}
