//! What the weight formats mean: plain conversion to and from f32.
//!
//! Written from ggml's definition of its blocks (`ggml-common.h`, and the reference functions of `ggml-quants.c`);
//! held bit for bit against the `gguf` Python package by `tests/dequant_golden.rs`.

use half::{bf16, f16};

use crate::backend::WeightFormat;

/// Converts one row to f32.
///
/// # Panics
/// If `bytes` is not exactly the size of a row of `out.len()` elements.
pub fn dequantize_row(format: WeightFormat, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(Some(bytes.len()), format.row_bytes(out.len()), "{format:?} row of {} elements", out.len());
    let blocks = bytes.chunks_exact(format.block_bytes()).zip(out.chunks_exact_mut(format.block_len()));
    match format {
        WeightFormat::F32 => blocks.for_each(|(x, y)| y[0] = f32::from_le_bytes([x[0], x[1], x[2], x[3]])),
        WeightFormat::F16 => blocks.for_each(|(x, y)| y[0] = half_at(x, 0)),
        WeightFormat::Bf16 => blocks.for_each(|(x, y)| y[0] = bf16::from_le_bytes([x[0], x[1]]).to_f32()),
        WeightFormat::Q8_0 => blocks.for_each(|(x, y)| {
            let d = half_at(x, 0);
            for (w, &q) in y.iter_mut().zip(&x[2..]) {
                *w = d * f32::from(q as i8);
            }
        }),
        WeightFormat::Q4_0 => blocks.for_each(|(x, y)| {
            let d = half_at(x, 0);
            for (i, &pair) in x[2..].iter().enumerate() {
                y[i] = d * (f32::from(pair & 15) - 8.0);
                y[i + 16] = d * (f32::from(pair >> 4) - 8.0);
            }
        }),
        WeightFormat::Q4_1 => blocks.for_each(|(x, y)| {
            let (d, m) = (half_at(x, 0), half_at(x, 2));
            for (i, &pair) in x[4..].iter().enumerate() {
                y[i] = d * f32::from(pair & 15) + m;
                y[i + 16] = d * f32::from(pair >> 4) + m;
            }
        }),
    }
}

/// Appends one row, converted from f32 (for tests, and for weights that are not stored as needed).
///
/// # Panics
/// If `row` is not a whole number of blocks.
pub fn quantize_row(format: WeightFormat, row: &[f32], out: &mut Vec<u8>) {
    assert!(format.row_bytes(row.len()).is_some(), "{} elements are not whole {format:?} blocks", row.len());
    for block in row.chunks_exact(format.block_len()) {
        match format {
            WeightFormat::F32 => out.extend(block[0].to_le_bytes()),
            WeightFormat::F16 => out.extend(f16::from_f32(block[0]).to_le_bytes()),
            WeightFormat::Bf16 => out.extend(bf16::from_f32(block[0]).to_le_bytes()),
            WeightFormat::Q8_0 => quantize_q8_0(block, out),
            WeightFormat::Q4_0 => quantize_q4_0(block, out),
            WeightFormat::Q4_1 => quantize_q4_1(block, out),
        }
    }
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

fn reciprocal(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

fn quantize_q8_0(block: &[f32], out: &mut Vec<u8>) {
    let largest = block.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    let d = largest / 127.0;
    let scale = reciprocal(d);
    out.extend(f16::from_f32(d).to_le_bytes());
    out.extend(block.iter().map(|x| (x * scale).round() as i8 as u8));
}

fn quantize_q4_0(block: &[f32], out: &mut Vec<u8>) {
    let largest = block.iter().fold(0f32, |largest, &x| if x.abs() > largest.abs() { x } else { largest });
    let d = largest / -8.0;
    let scale = reciprocal(d);
    let nibble = |x: f32| ((x * scale + 8.5) as u8).min(15);
    out.extend(f16::from_f32(d).to_le_bytes());
    out.extend((0..16).map(|i| nibble(block[i]) | nibble(block[i + 16]) << 4));
}

fn quantize_q4_1(block: &[f32], out: &mut Vec<u8>) {
    let min = block.iter().copied().fold(f32::INFINITY, f32::min);
    let max = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let d = (max - min) / 15.0;
    let scale = reciprocal(d);
    let nibble = |x: f32| (((x - min) * scale + 0.5) as u8).min(15);
    out.extend(f16::from_f32(d).to_le_bytes());
    out.extend(f16::from_f32(min).to_le_bytes());
    out.extend((0..16).map(|i| nibble(block[i]) | nibble(block[i + 16]) << 4));
}
