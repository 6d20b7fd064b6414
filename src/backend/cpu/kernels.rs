//! What every kernel computes, written from the maths: inputs and outputs f32, every sum in f64.
//!
//! Shapes are row-major slices; the row counts follow from the slices' lengths.

use crate::backend::{AttentionShape, RopePairing, TokenRank, TokenScore};
use std::cmp::Ordering;

/// `out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight`; `x`, `out` `[R][n]`, `weight` `[n]`.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let n = weight.len();
    for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
        let mean_square = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / n as f64;
        let inverse_rms = 1.0 / (mean_square + f64::from(eps)).sqrt();
        for ((out, &x), &weight) in out.iter_mut().zip(x).zip(weight) {
            *out = (f64::from(x) * inverse_rms * f64::from(weight)) as f32;
        }
    }
}

/// `sum_i a[i] * b[i]`, in four partial sums so that one addition need not wait for the last.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let mut sums = [0.0f64; 4];
    let (a_chunks, b_chunks) = (a.chunks_exact(4), b.chunks_exact(4));
    let tail: f64 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for i in 0..4 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f64>() + tail
}

/// `silu(gate) * up` with `silu(g) = g / (1 + exp(-g))`; `gate_up` `[R][2 n]`, `out` `[R][n]`.
pub fn silu_mul(gate_up: &[f32], n: usize, out: &mut [f32]) {
    for (row, out) in gate_up.chunks_exact(2 * n).zip(out.chunks_exact_mut(n)) {
        let (gate, up) = row.split_at(n);
        for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
            let gate = f64::from(gate);
            *out = (gate / (1.0 + (-gate).exp()) * f64::from(up)) as f32;
        }
    }
}

/// Rotates one head in place by its position's angles: for each `i < head_dim / 2` the pair `(a, b)` becomes
/// `(a cos_i - b sin_i, b cos_i + a sin_i)`; `head` `[head_dim]`, `cos`, `sin` `[head_dim / 2]`.
pub fn rope(head: &mut [f32], cos: &[f32], sin: &[f32], pairing: RopePairing) {
    let half = head.len() / 2;
    for i in 0..half {
        let (first, second) = match pairing {
            RopePairing::Halves => (i, i + half),
            RopePairing::Interleaved => (2 * i, 2 * i + 1),
        };
        let (a, b) = (f64::from(head[first]), f64::from(head[second]));
        let (cos, sin) = (f64::from(cos[i]), f64::from(sin[i]));
        head[first] = (a * cos - b * sin) as f32;
        head[second] = (b * cos + a * sin) as f32;
    }
}

/// One layer's K and V pool as the attention reads it: `[num_blocks][num_kv_heads][block_size][head_dim]` each.
#[derive(Clone, Copy)]
pub struct KvPool<'a> {
    /// Keys, rotated.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
    /// Tokens in a block.
    pub block_size: usize,
}

/// Attention of one query token over the first `num_keys` tokens of its sequence, softmax in two passes.
///
/// For each query head `h` with key head `g = h / (num_heads / num_kv_heads)`:
/// `out[h] = sum_j softmax_j(scale * q[h] . k[j][g]) v[j][g]`, where token `j` stands in block
/// `block_table[j / block_size]` at offset `j % block_size`. `q` and `out` are `[num_heads][head_dim]`.
pub fn paged_attention(
    q: &[f32],
    pool: KvPool<'_>,
    block_table: &[u32],
    num_keys: usize,
    shape: &AttentionShape,
    out: &mut [f32],
) {
    let head_dim = shape.head_dim as usize;
    let num_kv_heads = shape.num_kv_heads as usize;
    let group = shape.num_heads as usize / num_kv_heads;
    let mut weights = vec![0.0f64; num_keys];
    let mut sum = vec![0.0f64; head_dim];
    for (head, (q, out)) in q.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)).enumerate() {
        let start_of = |token: usize| {
            let block = block_table[token / pool.block_size] as usize;
            ((block * num_kv_heads + head / group) * pool.block_size + token % pool.block_size) * head_dim
        };
        let mut max = f64::NEG_INFINITY;
        for (token, weight) in weights.iter_mut().enumerate() {
            let k = &pool.k[start_of(token)..][..head_dim];
            let score: f64 = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
            *weight = score * f64::from(shape.scale);
            max = max.max(*weight);
        }
        let mut total = 0.0;
        sum.fill(0.0);
        for (token, weight) in weights.iter().enumerate() {
            let weight = (weight - max).exp();
            total += weight;
            let v = &pool.v[start_of(token)..][..head_dim];
            for (sum, &v) in sum.iter_mut().zip(v) {
                *sum += weight * f64::from(v);
            }
        }
        for (out, sum) in out.iter_mut().zip(&sum) {
            *out = (sum / total) as f32;
        }
    }
}

/// Index of the largest value, ties to the lowest index; NaN is never the largest; 0 where nothing is above -inf.
pub fn argmax(values: &[f32]) -> u32 {
    let (mut best, mut best_value) = (0, f32::NEG_INFINITY);
    for (index, &value) in values.iter().enumerate() {
        if value > best_value {
            (best, best_value) = (index as u32, value);
        }
    }
    best
}

/// The `k` likeliest tokens of a row of finite logits, likeliest first, ties to the lowest index, with
/// `logprob[i] = logits[i] - ln(sum_j exp(logits[j]))`.
pub fn top_k(logits: &[f32], k: u32) -> Vec<TokenScore> {
    let logprob = logprobs(logits);
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|&a, &b| {
        logits[b as usize].partial_cmp(&logits[a as usize]).unwrap_or(Ordering::Equal).then(a.cmp(&b))
    });
    order.truncate(k as usize);
    order.into_iter().map(|token| TokenScore { token, logprob: logprob(token) }).collect()
}

/// The log probability of each token. The largest logit is taken off first: beside it `ln(sum)` may be lost.
fn logprobs(logits: &[f32]) -> impl Fn(u32) -> f32 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let log_sum = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum::<f64>().ln();
    move |token| (f64::from(logits[token as usize]) - max - log_sum) as f32
}

/// How likely a token is in a row of logits without NaN and +inf: its `logit - ln(sum_j exp(logits[j]))`, and 1 + how many
/// logits are larger.
pub fn token_rank(logits: &[f32], token: u32) -> TokenRank {
    let above = logits.iter().filter(|&&logit| logit > logits[token as usize]).count();
    TokenRank { logprob: logprobs(logits)(token), rank: above as u32 + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-6, "{got} instead of {want}");
        }
    }

    #[test]
    fn rms_norm_by_hand() {
        let mut out = [0.0; 4];
        // Mean squares 12.5 and 1; with eps 3.5 the first root is 4.
        rms_norm(&[3.0, 4.0, 1.0, -1.0], &[1.0, 2.0], 0.0, &mut out);
        let root = 12.5f32.sqrt();
        assert_close(&out, &[3.0 / root, 8.0 / root, 1.0, -2.0]);
        rms_norm(&[3.0, 4.0, 0.0, 0.0], &[1.0, 1.0], 3.5, &mut out);
        assert_close(&out, &[0.75, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn dot_sums_whole_and_ragged_lengths() {
        for n in 0..11 {
            let a: Vec<f64> = (0..n).map(f64::from).collect();
            assert_eq!(dot(&a, &a), a.iter().map(|a| a * a).sum::<f64>());
        }
    }

    #[test]
    fn silu_mul_by_hand() {
        let mut out = [0.0; 3];
        silu_mul(&[0.0, 3.0f32.ln(), -200.0, 5.0, 4.0, 7.0], 3, &mut out);
        assert_close(&out, &[0.0, 0.75 * 3.0f32.ln() * 4.0, 0.0]);
    }

    #[test]
    fn rope_rotates_the_pairs_of_each_convention() {
        // A quarter turn of the first pair, a half turn of the second.
        let (cos, sin) = ([0.0, -1.0], [1.0, 0.0]);
        let mut head = [1.0, 2.0, 3.0, 4.0];
        rope(&mut head, &cos, &sin, RopePairing::Halves);
        assert_eq!(head, [-3.0, -2.0, 1.0, -4.0]);
        let mut head = [1.0, 2.0, 3.0, 4.0];
        rope(&mut head, &cos, &sin, RopePairing::Interleaved);
        assert_eq!(head, [-2.0, 1.0, -3.0, -4.0]);
    }

    #[test]
    fn argmax_takes_the_lowest_of_equals() {
        assert_eq!(argmax(&[1.0, 5.0, 5.0, 2.0]), 1);
        assert_eq!(argmax(&[f32::NEG_INFINITY, -1e30, f32::NAN, -1e30]), 1);
        assert_eq!(argmax(&[f32::NEG_INFINITY; 3]), 0);
        assert_eq!(argmax(&[f32::NAN, f32::INFINITY]), 1);
    }

    #[test]
    fn top_k_ranks_by_logit_then_index() {
        let top = top_k(&[1.0, 3.0, -2.0, 3.0, 0.0], 4);
        assert_eq!(top.iter().map(|score| score.token).collect::<Vec<_>>(), [1, 3, 0, 4]);
        let total: f64 = [1.0f64, 3.0, -2.0, 3.0, 0.0].iter().map(|x| x.exp()).sum();
        assert!((f64::from(top[2].logprob) - (1.0 - total.ln())).abs() < 1e-6);
        let all: f64 = top_k(&[5.0; 8], 8).iter().map(|score| f64::from(score.logprob).exp()).sum();
        assert!((all - 1.0).abs() < 1e-6);
    }

    #[test]
    fn attention_of_two_keys_by_hand() {
        // Block size 1, blocks 1 and 0 in this order, one key head under two query heads.
        let shape = AttentionShape { num_heads: 2, num_kv_heads: 1, head_dim: 2, scale: 0.5 };
        let pool = KvPool { k: &[1.0, 0.0, 0.0, 2.0], v: &[10.0, 20.0, 30.0, 40.0], block_size: 1 };
        let q = [2.0 * 3.0f32.ln(), 0.0, 0.0, 0.0];
        let mut out = [0.0; 4];
        paged_attention(&q, pool, &[1, 0], 2, &shape, &mut out);
        // Head 0 scores 0 and ln 3: weights 1/4 and 3/4. Head 1 scores 0 and 0.
        assert_close(&out, &[15.0, 25.0, 20.0, 30.0]);
        paged_attention(&q, pool, &[1, 0], 1, &shape, &mut out);
        assert_close(&out, &[30.0, 40.0, 30.0, 40.0]);
    }

    #[test]
    fn paged_attention_equals_attention_over_contiguous_keys() {
        let shape = AttentionShape { num_heads: 6, num_kv_heads: 2, head_dim: 8, scale: 0.35 };
        let (num_keys, block_size, table) = (11usize, 4usize, [5u32, 0, 3]);
        let value = |seed: usize| ((seed * 2_654_435_761) % 1000) as f32 / 250.0 - 2.0;
        let q: Vec<f32> = (0..48).map(|i| value(i + 7)).collect();
        // K and V of one sequence, [token][kv head][head_dim], scattered into a pool of NaN.
        let (k, v): (Vec<f32>, Vec<f32>) = (0..num_keys * 16).map(|i| (value(i + 1000), value(i + 5000))).unzip();
        let mut pool_k = vec![f32::NAN; 6 * 2 * block_size * 8];
        let mut pool_v = pool_k.clone();
        for token in 0..num_keys {
            for head in 0..2 {
                let block = table[token / block_size] as usize;
                let to = ((block * 2 + head) * block_size + token % block_size) * 8;
                let from = (token * 2 + head) * 8;
                pool_k[to..to + 8].copy_from_slice(&k[from..from + 8]);
                pool_v[to..to + 8].copy_from_slice(&v[from..from + 8]);
            }
        }
        let mut out = [0.0; 48];
        paged_attention(&q, KvPool { k: &pool_k, v: &pool_v, block_size }, &table, num_keys, &shape, &mut out);

        let mut want = [0.0; 48];
        for head in 0..6 {
            let kv = head / 3;
            let at = |m: &[f32], token: usize, i: usize| m[(token * 2 + kv) * 8 + i];
            let score = |token| (0..8).map(|i| q[head * 8 + i] * at(&k, token, i)).sum::<f32>() * 0.35;
            let weights: Vec<f32> = (0..num_keys).map(|token| score(token).exp()).collect();
            let total: f32 = weights.iter().sum();
            for i in 0..8 {
                want[head * 8 + i] = (0..num_keys).map(|t| weights[t] * at(&v, t, i)).sum::<f32>() / total;
            }
        }
        for (got, want) in out.iter().zip(&want) {
            assert!((got - want).abs() < 1e-5, "{got} instead of {want}");
        }
    }
}
