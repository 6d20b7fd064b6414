//! Made-up weights: finite, of a given size, and quick to make.

use super::WeightFormat;
use super::kernel_cases::SplitMix64;
use half::{bf16, f16};

/// Fills `data` with whole blocks of weights around 0 whose root mean square is about `scale`.
pub fn fill_with_noise(format: WeightFormat, scale: f32, random: &mut SplitMix64, data: &mut [u8]) {
    // Floats: sign and mantissa stay random, the exponent is fixed, so magnitudes are within a factor of 2.
    let (keep, exponent) = match format {
        WeightFormat::F32 => (0x807f_ffff_807f_ffff, repeat_u32((scale / 1.5).to_bits() & 0x7f80_0000)),
        WeightFormat::F16 => (0x83ff_83ff_83ff_83ff, repeat_u16(f16::from_f32(scale / 1.5).to_bits() & 0x7c00)),
        WeightFormat::Bf16 => (0x807f_807f_807f_807f, repeat_u16(bf16::from_f32(scale / 1.5).to_bits() & 0x7f80)),
        WeightFormat::Q8_0 | WeightFormat::Q4_0 | WeightFormat::Q4_1 => (u64::MAX, 0),
    };
    for chunk in data.chunks_mut(8) {
        chunk.copy_from_slice(&(random.next_u64() & keep | exponent).to_le_bytes()[..chunk.len()]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::dequantize_row;

    #[test]
    fn every_format_has_the_wanted_scale() {
        use WeightFormat::{Bf16, F16, F32, Q4_0, Q4_1, Q8_0};
        for format in [F32, F16, Bf16, Q8_0, Q4_0, Q4_1] {
            let mut bytes = vec![0; format.row_bytes(8192).unwrap()];
            fill_with_noise(format, 0.02, &mut SplitMix64::new(7), &mut bytes);
            let mut row = vec![0.0; 8192];
            dequantize_row(format, &bytes, &mut row);
            let rms = (row.iter().map(|w| w * w).sum::<f32>() / 8192.0).sqrt();
            assert!((0.01..0.04).contains(&rms), "{format:?}: {rms}");
            let mean = row.iter().sum::<f32>() / 8192.0;
            assert!(mean.abs() < 0.1 * rms + 0.6 * 0.02 / 4.6, "{format:?}: mean {mean}");
        }
    }
}
