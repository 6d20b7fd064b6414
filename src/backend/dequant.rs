//! The reference codecs of the weight formats, after ggml's `ggml-quants.c` (`quantize_row_*_ref`, `dequantize_row_*`).
//!
//! The same f32 operations in the same order as ggml's source, so the same bits. A ggml whose compiler contracts
//! `x * id + 8.5` to a fused multiply-add may round another way next to a tie.

use half::{bf16, f16};

use super::WeightFormat;

/// Elements in a quantised block.
const BLOCK: usize = 32;

/// Decodes one row: `bytes` is `format.row_bytes(out.len())` bytes, little-endian.
///
/// # Panics
/// If `out` is not a whole number of blocks, or `bytes` has not the length of such a row.
pub fn dequantize_row(format: WeightFormat, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(Some(bytes.len()), format.row_bytes(out.len()), "bytes of a {format:?} row of {} elements", out.len());
    let blocks = bytes.chunks_exact(format.block_bytes()).zip(out.chunks_exact_mut(format.block_len()));
    match format {
        WeightFormat::F32 => blocks.for_each(|(b, y)| y[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        WeightFormat::F16 => blocks.for_each(|(b, y)| y[0] = f16_at(b, 0)),
        WeightFormat::Bf16 => blocks.for_each(|(b, y)| y[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32()),
        WeightFormat::Q8_0 => blocks.for_each(|(b, y)| dequantize_q8_0(b, y)),
        WeightFormat::Q4_0 => blocks.for_each(|(b, y)| dequantize_q4_0(b, y)),
        WeightFormat::Q4_1 => blocks.for_each(|(b, y)| dequantize_q4_1(b, y)),
    }
}

/// Encodes one row and appends its `format.row_bytes(values.len())` bytes to `out`.
///
/// F16 and Bf16 round to nearest, ties to even; F16 overflows to infinity.
///
/// # Panics
/// If `values` is not a whole number of blocks.
pub fn quantize_row(format: WeightFormat, values: &[f32], out: &mut Vec<u8>) {
    assert!(format.row_bytes(values.len()).is_some(), "{} elements are no whole {format:?} blocks", values.len());
    let blocks = values.chunks_exact(format.block_len());
    match format {
        WeightFormat::F32 => blocks.for_each(|x| out.extend(x[0].to_le_bytes())),
        WeightFormat::F16 => blocks.for_each(|x| out.extend(f16::from_f32(x[0]).to_le_bytes())),
        WeightFormat::Bf16 => blocks.for_each(|x| out.extend(bf16::from_f32(x[0]).to_le_bytes())),
        WeightFormat::Q8_0 => blocks.for_each(|x| quantize_q8_0(x, out)),
        WeightFormat::Q4_0 => blocks.for_each(|x| quantize_q4_0(x, out)),
        WeightFormat::Q4_1 => blocks.for_each(|x| quantize_q4_1(x, out)),
    }
}

fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// `1 / d`, or 0 for a block of equal values.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

fn dequantize_q8_0(block: &[u8], y: &mut [f32]) {
    let d = f16_at(block, 0);
    for (y, &q) in y.iter_mut().zip(&block[2..]) {
        *y = f32::from(q as i8) * d;
    }
}

fn dequantize_q4_0(block: &[u8], y: &mut [f32]) {
    let d = f16_at(block, 0);
    for (j, &q) in block[2..].iter().enumerate() {
        y[j] = (f32::from(q & 15) - 8.0) * d;
        y[j + BLOCK / 2] = (f32::from(q >> 4) - 8.0) * d;
    }
}

fn dequantize_q4_1(block: &[u8], y: &mut [f32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    for (j, &q) in block[4..].iter().enumerate() {
        y[j] = f32::from(q & 15) * d + m;
        y[j + BLOCK / 2] = f32::from(q >> 4) * d + m;
    }
}

/// `d = max |x| / 127`; rounds half away from zero.
fn quantize_q8_0(x: &[f32], out: &mut Vec<u8>) {
    let d = x.iter().fold(0.0f32, |max, x| max.max(x.abs())) / 127.0;
    let id = inverse(d);
    out.extend(f16::from_f32(d).to_le_bytes());
    out.extend(x.iter().map(|x| (x * id).round() as i8 as u8));
}

/// `d = (the element of largest magnitude) / -8`, so that this element is exactly representable as `q = 0`.
fn quantize_q4_0(x: &[f32], out: &mut Vec<u8>) {
    let extreme = x.iter().fold(0.0f32, |max, &x| if max.abs() < x.abs() { x } else { max });
    let d = extreme / -8.0;
    let id = inverse(d);
    out.extend(f16::from_f32(d).to_le_bytes());
    push_nibbles(x, out, |x| x * id + 8.5);
}

/// `d = (max - min) / 15`, `m = min`.
fn quantize_q4_1(x: &[f32], out: &mut Vec<u8>) {
    let min = x.iter().copied().fold(f32::MAX, f32::min);
    let max = x.iter().copied().fold(f32::MIN, f32::max);
    let d = (max - min) / 15.0;
    let id = inverse(d);
    out.extend(f16::from_f32(d).to_le_bytes());
    out.extend(f16::from_f32(min).to_le_bytes());
    push_nibbles(x, out, |x| (x - min) * id + 0.5);
}

/// Truncates `scaled` of each element to 0..=15; element `j` in the low nibble, `j + 16` in the high one.
fn push_nibbles(x: &[f32], out: &mut Vec<u8>, scaled: impl Fn(f32) -> f32) {
    let nibble = |x: f32| (scaled(x) as i8 as u8).min(15);
    let (low, high) = x.split_at(BLOCK / 2);
    out.extend(low.iter().zip(high).map(|(&low, &high)| nibble(low) | nibble(high) << 4));
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [WeightFormat; 6] = [
        WeightFormat::F32,
        WeightFormat::F16,
        WeightFormat::Bf16,
        WeightFormat::Q8_0,
        WeightFormat::Q4_0,
        WeightFormat::Q4_1,
    ];

    fn round_trip(format: WeightFormat, values: &[f32]) -> Vec<f32> {
        let mut bytes = Vec::new();
        quantize_row(format, values, &mut bytes);
        let mut out = vec![f32::NAN; values.len()];
        dequantize_row(format, &bytes, &mut out);
        out
    }

    /// A ramp with both signs, two blocks.
    fn ramp() -> Vec<f32> {
        (0..64).map(|i| (i as f32 - 40.0) * 0.37).collect()
    }

    #[test]
    fn every_format_comes_back_within_half_a_quantisation_step() {
        let values = ramp();
        for format in ALL {
            // Steps: 24 / 127 for Q8_0; 14.8 / 8 for Q4_0, a whole step where 8 is cut to 7; 11.5 / 15 for Q4_1.
            let bound = match format {
                WeightFormat::F32 => 0.0,
                WeightFormat::F16 => 8e-3,
                WeightFormat::Bf16 => 6e-2,
                WeightFormat::Q8_0 => 0.07,
                WeightFormat::Q4_0 => 1.9,
                WeightFormat::Q4_1 => 0.4,
            };
            for (want, got) in values.iter().zip(round_trip(format, &values)) {
                assert!((want - got).abs() <= bound, "{format:?}: {want} came back as {got}");
            }
        }
    }

    #[test]
    fn decoding_then_encoding_keeps_the_values() {
        for format in ALL {
            let once = round_trip(format, &ramp());
            let twice = round_trip(format, &once);
            for (once, twice) in once.iter().zip(&twice) {
                assert!((once - twice).abs() <= 2e-3 * once.abs().max(1.0), "{format:?}: {once} became {twice}");
            }
        }
    }

    #[test]
    fn zero_blocks_are_zero() {
        for format in ALL {
            assert_eq!(round_trip(format, &[0.0; 32]), [0.0; 32], "{format:?}");
        }
    }

    #[test]
    fn q8_0_by_hand() {
        let mut x = [0.0f32; 32];
        (x[0], x[1], x[2], x[31]) = (-127.0, 2.5, -2.5, 63.4);
        let mut bytes = Vec::new();
        quantize_row(WeightFormat::Q8_0, &x, &mut bytes);
        assert_eq!(bytes[..5], [0x00, 0x3c, (-127i8) as u8, 3, (-3i8) as u8], "d = 1, halves away from zero");
        assert_eq!(bytes[33], 63);
    }

    #[test]
    fn q4_0_by_hand() {
        let mut x = [0.0f32; 32];
        (x[0], x[1], x[16], x[17]) = (-8.0, 8.0, 1.4, -1.6);
        let mut bytes = Vec::new();
        quantize_row(WeightFormat::Q4_0, &x, &mut bytes);
        // d = -8 / -8 = 1; +8 does not fit and is cut to 7.
        assert_eq!(bytes[..4], [0x00, 0x3c, 9 << 4, 15 | 6 << 4]);
        let mut out = [f32::NAN; 32];
        dequantize_row(WeightFormat::Q4_0, &bytes, &mut out);
        assert_eq!([out[0], out[1], out[2], out[16], out[17]], [-8.0, 7.0, 0.0, 1.0, -2.0]);
    }

    #[test]
    fn q4_1_by_hand() {
        let x: Vec<f32> = (0..32).map(|i| 2.0 + (i % 16) as f32).collect();
        let mut bytes = Vec::new();
        quantize_row(WeightFormat::Q4_1, &x, &mut bytes);
        assert_eq!(bytes[..6], [0x00, 0x3c, 0x00, 0x40, 0x00, 0x11], "d = 1, m = 2");
        assert_eq!(round_trip(WeightFormat::Q4_1, &x), x);
    }

    #[test]
    #[should_panic(expected = "bytes of a Q8_0 row")]
    fn a_short_row_is_refused() {
        dequantize_row(WeightFormat::Q8_0, &[0; 33], &mut [0.0; 32]);
    }
}
