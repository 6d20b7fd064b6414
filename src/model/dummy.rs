//! Weights that are made up: for benchmarks and tests of a shape whose checkpoint is not at hand.
//!
//! The output is noise, but finite: each matrix maps vectors of unit mean square to about the same.

use half::{bf16, f16};

use super::config::ModelConfig;
use super::roles::TensorRole;
use crate::backend::WeightFormat;

/// How weights are made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DummyWeights {
    /// Format of every matrix; vectors are F32.
    pub format: WeightFormat,
    /// Equal seeds give equal weights.
    pub seed: u64,
}

impl Default for DummyWeights {
    fn default() -> Self {
        Self { format: WeightFormat::F16, seed: 0 }
    }
}

impl DummyWeights {
    /// Format of the tensor of a role.
    pub(crate) fn format_of(self, role: TensorRole) -> WeightFormat {
        if role.is_vector() { WeightFormat::F32 } else { self.format }
    }

    /// The bytes of one tensor: norm weights are 1, the rest is noise around 0.
    ///
    /// # Panics
    /// If a row is not a whole number of blocks (checked when the checkpoint is opened).
    pub(crate) fn generate(self, role: TensorRole, name: &str, config: &ModelConfig) -> Vec<u8> {
        let (rows, cols) = role.shape(config);
        let format = self.format_of(role);
        let bytes = format.row_bytes(cols).expect("checked at open") * rows;
        if role.is_norm() {
            return 1f32.to_le_bytes().repeat(cols);
        }
        let mut data = vec![0; bytes];
        noise(format, (cols as f32).sqrt().recip(), SplitMix64::named(self.seed, name), &mut data);
        data
    }
}

/// Fills `data` with blocks of weights around 0 whose root mean square is about `scale`.
fn noise(format: WeightFormat, scale: f32, mut random: SplitMix64, data: &mut [u8]) {
    // Floats: sign and mantissa stay random, the exponent is fixed, so magnitudes are within a factor of 2.
    let (keep, exponent) = match format {
        WeightFormat::F32 => (0x807f_ffff_807f_ffff, repeat_u32((scale / 1.5).to_bits() & 0x7f80_0000)),
        WeightFormat::F16 => (0x83ff_83ff_83ff_83ff, repeat_u16(f16::from_f32(scale / 1.5).to_bits() & 0x7c00)),
        WeightFormat::Bf16 => (0x807f_807f_807f_807f, repeat_u16(bf16::from_f32(scale / 1.5).to_bits() & 0x7f80)),
        WeightFormat::Q8_0 | WeightFormat::Q4_0 | WeightFormat::Q4_1 => (u64::MAX, 0),
    };
    for chunk in data.chunks_mut(8) {
        chunk.copy_from_slice(&(random.next() & keep | exponent).to_le_bytes()[..chunk.len()]);
    }
    // Quants stay random; each block gets its own d within a factor of 2. 74 and 4.6 are the root mean squares of a
    // uniform i8 and of a uniform nibble.
    let unit = match format {
        WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16 => return,
        WeightFormat::Q8_0 => scale / 74.0,
        WeightFormat::Q4_0 | WeightFormat::Q4_1 => scale / 4.6,
    };
    for block in data.chunks_exact_mut(format.block_bytes()) {
        let d = f16::from_f32(unit * (0.7 + f32::from(block[0]) / 400.0));
        block[..2].copy_from_slice(&d.to_le_bytes());
        if format == WeightFormat::Q4_1 {
            block[2..4].copy_from_slice(&f16::from_f32(d.to_f32() * -7.5).to_le_bytes());
        }
    }
}

fn repeat_u32(bits: u32) -> u64 {
    u64::from(bits) << 32 | u64::from(bits)
}

fn repeat_u16(bits: u16) -> u64 {
    repeat_u32(u32::from(bits) << 16 | u32::from(bits))
}

/// Steele et al. 2014, "Fast splittable pseudorandom number generators".
struct SplitMix64(u64);

impl SplitMix64 {
    /// A stream of its own for each name (FNV-1a).
    fn named(seed: u64, name: &str) -> Self {
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::dequantize_row;

    #[test]
    fn every_format_has_the_wanted_scale() {
        use WeightFormat::{Bf16, F16, F32, Q4_0, Q4_1, Q8_0};
        for format in [F32, F16, Bf16, Q8_0, Q4_0, Q4_1] {
            let mut bytes = vec![0; format.row_bytes(8192).unwrap()];
            noise(format, 0.02, SplitMix64::named(7, "w"), &mut bytes);
            let mut row = vec![0.0; 8192];
            dequantize_row(format, &bytes, &mut row);
            let rms = (row.iter().map(|w| w * w).sum::<f32>() / 8192.0).sqrt();
            assert!((0.01..0.04).contains(&rms), "{format:?}: {rms}");
            let mean = row.iter().sum::<f32>() / 8192.0;
            assert!(mean.abs() < 0.1 * rms + 0.6 * 0.02 / 4.6, "{format:?}: mean {mean}");
        }
    }
}
