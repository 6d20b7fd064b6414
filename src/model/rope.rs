//! RoPE's table of cosines and sines, computed on the host in f64.

use std::f64::consts::TAU;

use super::config::{RopeConfig, RopeScaling};
use crate::backend::RopeTable;

/// Cosines and sines for positions `0..max_positions`, `[max_positions][head_dim / 2]` each.
///
/// Angles are computed in f64 and rounded once: on some devices `sin` alone is off by 2e-4 at large arguments.
pub fn rope_table(rope: &RopeConfig, head_dim: u32, max_positions: u32) -> RopeTable {
    let frequencies = inverse_frequencies(rope, head_dim);
    let len = frequencies.len() * max_positions as usize;
    let mut table = RopeTable { cos: Vec::with_capacity(len), sin: Vec::with_capacity(len) };
    for position in 0..max_positions {
        for frequency in &frequencies {
            let (sin, cos) = (f64::from(position) * frequency).sin_cos();
            table.cos.push(cos as f32);
            table.sin.push(sin as f32);
        }
    }
    table
}

/// Bytes of such a table.
pub fn rope_table_bytes(head_dim: u32, max_positions: u32) -> u64 {
    u64::from(max_positions) * u64::from(head_dim) * size_of::<f32>() as u64
}

/// Angle per position of each rotated pair, in radians: `[head_dim / 2]`.
pub fn inverse_frequencies(rope: &RopeConfig, head_dim: u32) -> Vec<f64> {
    let half = head_dim / 2;
    let plain = (0..half).map(|i| rope.theta.powf(-2.0 * f64::from(i) / f64::from(head_dim)));
    match &rope.scaling {
        RopeScaling::None => plain.collect(),
        RopeScaling::Linear { factor } => plain.map(|frequency| frequency / factor).collect(),
        RopeScaling::PerFrequency(factors) => {
            assert_eq!(factors.len(), half as usize, "one factor for each rotated pair");
            plain.zip(factors).map(|(frequency, &factor)| frequency / f64::from(factor)).collect()
        }
        &RopeScaling::Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings: original,
        } => plain
            .map(|frequency| {
                // How many turns this pair makes within the original context.
                let turns = f64::from(original) * frequency / TAU;
                let keep = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                keep * frequency + (1.0 - keep) * frequency / factor
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_table() {
        let rope = RopeConfig { theta: 10_000.0, scaling: RopeScaling::None };
        let table = rope_table(&rope, 8, 3);
        assert_eq!(table.cos.len(), 3 * 4);
        assert_eq!(&table.cos[..4], &[1.0; 4]);
        assert_eq!(&table.sin[..4], &[0.0; 4]);
        assert_eq!(table.cos[8], 2f64.cos() as f32);
        assert_eq!(table.sin[9], 0.2f64.sin() as f32);
        assert_eq!(table.sin[11], 0.002f64.sin() as f32);
    }

    #[test]
    fn linear_scaling_stretches_positions() {
        let plain = rope_table(&RopeConfig { theta: 1e4, scaling: RopeScaling::None }, 64, 8);
        let scaled = rope_table(&RopeConfig { theta: 1e4, scaling: RopeScaling::Linear { factor: 4.0 } }, 64, 32);
        assert_eq!(plain.cos[32..64], scaled.cos[4 * 32..5 * 32]);
    }

    /// Llama 3.2 1B: the factors that its GGUF conversion stores in `rope_freqs.weight` are 1 for the high
    /// frequencies, 32 for the low ones, and rise in between.
    #[test]
    fn llama3_scaling() {
        let scaling = RopeScaling::Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let plain = inverse_frequencies(&RopeConfig { theta: 5e5, scaling: RopeScaling::None }, 64);
        let scaled = inverse_frequencies(&RopeConfig { theta: 5e5, scaling }, 64);
        let factors: Vec<f64> = plain.iter().zip(&scaled).map(|(plain, scaled)| plain / scaled).collect();
        assert!(factors.is_sorted());
        assert_eq!(factors[14], 1.0);
        assert!(factors[15] > 1.0 && factors[17] < 32.0, "{factors:?}");
        assert!((factors[18] - 32.0).abs() < 1e-12 && (factors[31] - 32.0).abs() < 1e-12);
        let stored: Vec<f32> = factors.iter().map(|&factor| factor as f32).collect();
        let per = RopeConfig { theta: 5e5, scaling: RopeScaling::PerFrequency(stored) };
        for (a, b) in inverse_frequencies(&per, 64).iter().zip(&scaled) {
            assert!((a / b - 1.0).abs() < 1e-6);
        }
    }
}
