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
        let mut random = SplitMix64::named(self.seed, name);
        let mut data = vec![0; bytes];
        random.fill(&mut data);
        let scale = (cols as f32).sqrt().recip();
        for block in data.chunks_exact_mut(format.block_bytes()) {
            shape_block(format, block, scale);
        }
        data
    }
}

/// Turns random bytes into one block of weights with a root mean square of about `scale`.
fn shape_block(format: WeightFormat, block: &mut [u8], scale: f32) {
    let bits = |block: &[u8]| u16::from_le_bytes([block[0], block[1]]);
    match format {
        WeightFormat::F32 => {
            let exponent = (scale / 1.5).to_bits() & 0x7f80_0000;
            let noise = u32::from_le_bytes([block[0], block[1], block[2], block[3]]);
            block.copy_from_slice(&(noise & 0x807f_ffff | exponent).to_le_bytes());
        }
        WeightFormat::F16 => {
            let exponent = f16::from_f32(scale / 1.5).to_bits() & 0x7c00;
            block.copy_from_slice(&(bits(block) & 0x83ff | exponent).to_le_bytes());
        }
        WeightFormat::Bf16 => {
            let exponent = bf16::from_f32(scale / 1.5).to_bits() & 0x7f80;
            block.copy_from_slice(&(bits(block) & 0x807f | exponent).to_le_bytes());
        }
        // The quants stay random; each block gets its own d within a factor of 2. 74 and 4.6 are the root mean squares
        // of a uniform i8 and nibble.
        WeightFormat::Q8_0 => {
            let d = scale / 74.0 * (0.7 + f32::from(block[0]) / 400.0);
            block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
        }
        WeightFormat::Q4_0 | WeightFormat::Q4_1 => {
            let d = f16::from_f32(scale / 4.6 * (0.7 + f32::from(block[0]) / 400.0));
            block[..2].copy_from_slice(&d.to_le_bytes());
            if format == WeightFormat::Q4_1 {
                block[2..4].copy_from_slice(&f16::from_f32(d.to_f32() * -7.5).to_le_bytes());
            }
        }
    }
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

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
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
            SplitMix64::named(7, "w").fill(&mut bytes);
            for block in bytes.chunks_exact_mut(format.block_bytes()) {
                shape_block(format, block, 0.02);
            }
            let mut row = vec![0.0; 8192];
            dequantize_row(format, &bytes, &mut row);
            let rms = (row.iter().map(|w| w * w).sum::<f32>() / 8192.0).sqrt();
            assert!((0.01..0.04).contains(&rms), "{format:?}: {rms}");
            let mean = row.iter().sum::<f32>() / 8192.0;
            assert!(mean.abs() < 0.1 * rms + 0.6 * 0.02 / 4.6, "{format:?}: mean {mean}");
        }
    }
}
