//! ggml's quantisations that the kernels do not read, and how they are brought into one that they do, after ggml's
//! `ggml-quants.c` (`dequantize_row_*`).
//!
//! Q4_K is Q4_1 but for its scales: eight blocks of 32 share two halves, which six bits each multiply. Its quants stay as
//! they are, the products are rounded to halves. All others have more than 16 levels or blocks of 16: they are dequantised
//! and rounded to Q8_0, which adds at most 1/254 of a block's largest element to an error that is several times that.

use half::f16;

use crate::backend::{WeightFormat, quantize_row};

/// Elements of a block of the "K" quantisations.
const SUPER_BLOCK: usize = 256;
/// Elements of a block of the others.
const BLOCK: usize = 32;

/// A quantisation that goes to the device in another format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GgmlQuant {
    /// Blocks of 32: `f16 d`, a fifth bit of each element, nibbles; `w = d * (q - 16)`.
    Q5_0,
    /// Blocks of 32: `f16 d`, `f16 m`, a fifth bit of each element, nibbles; `w = d * q + m`.
    Q5_1,
    /// Blocks of 16 in 256: 4 bits of scale and of minimum, 2-bit quants, `f16 d`, `f16 dmin`.
    Q2K,
    /// Blocks of 16 in 256: a third bit of each element, 2-bit quants, 6-bit signed scales, `f16 d`.
    Q3K,
    /// Blocks of 32 in 256: `f16 d`, `f16 dmin`, 6 bits of scale and of minimum, nibbles.
    Q4K,
    /// Blocks of 32 in 256: `f16 d`, `f16 dmin`, 6 bits of scale and of minimum, a fifth bit of each element, nibbles.
    Q5K,
    /// Blocks of 16 in 256: nibbles, two more bits of each element, 8-bit signed scales, `f16 d`.
    Q6K,
}

impl GgmlQuant {
    /// Every one.
    pub const ALL: [Self; 7] = [Self::Q5_0, Self::Q5_1, Self::Q2K, Self::Q3K, Self::Q4K, Self::Q5K, Self::Q6K];

    /// Name as in ggml.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Elements in one block.
    pub const fn block_len(self) -> usize {
        match self {
            Self::Q5_0 | Self::Q5_1 => BLOCK,
            _ => SUPER_BLOCK,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// The format in which it goes to the device.
    pub const fn device_format(self) -> WeightFormat {
        match self {
            Self::Q4K => WeightFormat::Q4_1,
            _ => WeightFormat::Q8_0,
        }
    }

    /// Decodes whole blocks.
    ///
    /// # Panics
    /// If `out` is not a whole number of blocks, or `bytes` has not the length of these.
    pub fn dequantize(self, bytes: &[u8], out: &mut [f32]) {
        let blocks = out.len() / self.block_len();
        assert_eq!(out.len() % self.block_len(), 0, "{} elements are no whole {} blocks", out.len(), self.name());
        assert_eq!(bytes.len(), blocks * self.block_bytes(), "bytes of {blocks} {} blocks", self.name());
        let decode = match self {
            Self::Q5_0 => decode_q5_0,
            Self::Q5_1 => decode_q5_1,
            Self::Q2K => decode_q2_k,
            Self::Q3K => decode_q3_k,
            Self::Q4K => decode_q4_k,
            Self::Q5K => decode_q5_k,
            Self::Q6K => decode_q6_k,
        };
        for (block, y) in bytes.chunks_exact(self.block_bytes()).zip(out.chunks_exact_mut(self.block_len())) {
            decode(block, y);
        }
    }

    /// Whole blocks in their [`Self::device_format`].
    ///
    /// # Panics
    /// If `bytes` is not a whole number of blocks.
    pub fn repack(self, bytes: &[u8]) -> Vec<u8> {
        assert_eq!(bytes.len() % self.block_bytes(), 0, "{} bytes are no whole {} blocks", bytes.len(), self.name());
        let format = self.device_format();
        let blocks = bytes.len() / self.block_bytes();
        let mut out = Vec::with_capacity(blocks * self.block_len() / format.block_len() * format.block_bytes());
        let mut values = vec![0.0; self.block_len()];
        for block in bytes.chunks_exact(self.block_bytes()) {
            if self == Self::Q4K {
                push_q4_1(block, &mut out);
            } else {
                self.dequantize(block, &mut values);
                quantize_row(format, &values, &mut out);
            }
        }
        out
    }
}

fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The five-bit quants of a block of 32: four bits from nibbles, the low ones first, the fifth from a bit field.
fn five_bits(high: &[u8], nibbles: &[u8]) -> [f32; BLOCK] {
    std::array::from_fn(|i| {
        let byte = nibbles[i % (BLOCK / 2)];
        let low = if i < BLOCK / 2 { byte & 15 } else { byte >> 4 };
        f32::from(low | (high[i / 8] >> (i % 8) & 1) << 4)
    })
}

fn decode_q5_0(block: &[u8], y: &mut [f32]) {
    let d = f16_at(block, 0);
    for (y, q) in y.iter_mut().zip(five_bits(&block[2..6], &block[6..])) {
        *y = d * (q - 16.0);
    }
}

fn decode_q5_1(block: &[u8], y: &mut [f32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    for (y, q) in y.iter_mut().zip(five_bits(&block[4..8], &block[8..])) {
        *y = d * q + m;
    }
}

/// The low two bits of element `i` of 256: each run of 128 has them in 32 bytes, in four planes of 32 elements.
fn two_bits(quants: &[u8], i: usize) -> u8 {
    quants[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3
}

fn decode_q2_k(block: &[u8], y: &mut [f32]) {
    let (scales, quants) = (&block[..16], &block[16..80]);
    let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
    for (i, y) in y.iter_mut().enumerate() {
        let scale = scales[i / 16];
        *y = d * f32::from(scale & 15) * f32::from(two_bits(quants, i)) - dmin * f32::from(scale >> 4);
    }
}

fn decode_q3_k(block: &[u8], y: &mut [f32]) {
    let (high, quants, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = f16_at(block, 108);
    for (i, y) in y.iter_mut().enumerate() {
        let s = i / 16;
        let low = if s < 8 { scales[s] & 15 } else { scales[s - 8] >> 4 };
        let scale = i16::from(low | (scales[8 + s % 4] >> (2 * (s / 4)) & 3) << 4) - 32;
        let is_high = high[i % 32] >> (i / 32) & 1;
        let q = i16::from(two_bits(quants, i)) - if is_high == 1 { 0 } else { 4 };
        *y = d * f32::from(scale) * f32::from(q);
    }
}

/// Scales and minima of the eight blocks of 32 of Q4_K and Q5_K, multiplied out.
fn scales_and_minima(block: &[u8]) -> [(f32, f32); 8] {
    let (d, dmin, packed) = (f16_at(block, 0), f16_at(block, 2), &block[4..16]);
    std::array::from_fn(|j| {
        let (scale, min) = match j {
            0..4 => (packed[j] & 63, packed[j + 4] & 63),
            _ => ((packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4, (packed[j + 4] >> 4) | (packed[j] >> 6) << 4),
        };
        (d * f32::from(scale), dmin * f32::from(min))
    })
}

/// The nibble of element `i` of 256: each run of 64 has them in 32 bytes, the low ones first.
fn nibble(quants: &[u8], i: usize) -> u8 {
    quants[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15
}

fn decode_q4_k(block: &[u8], y: &mut [f32]) {
    let scales = scales_and_minima(block);
    for (i, y) in y.iter_mut().enumerate() {
        let (scale, min) = scales[i / BLOCK];
        *y = scale * f32::from(nibble(&block[16..], i)) - min;
    }
}

/// The eight Q4_1 blocks with the quants of one Q4_K block.
fn push_q4_1(block: &[u8], out: &mut Vec<u8>) {
    for (j, (scale, min)) in scales_and_minima(block).into_iter().enumerate() {
        out.extend(f16::from_f32(scale).to_le_bytes());
        out.extend(f16::from_f32(-min).to_le_bytes());
        let q = |i: usize| nibble(&block[16..], j * BLOCK + i);
        out.extend((0..BLOCK / 2).map(|i| q(i) | q(i + BLOCK / 2) << 4));
    }
}

fn decode_q5_k(block: &[u8], y: &mut [f32]) {
    let scales = scales_and_minima(block);
    let (high, quants) = (&block[16..48], &block[48..]);
    for (i, y) in y.iter_mut().enumerate() {
        let (scale, min) = scales[i / BLOCK];
        let q = nibble(quants, i) | (high[i % BLOCK] >> (i / BLOCK) & 1) << 4;
        *y = scale * f32::from(q) - min;
    }
}

fn decode_q6_k(block: &[u8], y: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = f16_at(block, 208);
    for (i, y) in y.iter_mut().enumerate() {
        // A run of 128 has its low nibbles in 64 bytes, elements i and i + 64 in one, and two high bits in 32 bytes.
        let nibble = low[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4) & 15;
        let q = i16::from(nibble | two_bits(high, i) << 4) - 32;
        *y = d * f32::from(scales[i / 16] as i8) * f32::from(q);
    }
}
