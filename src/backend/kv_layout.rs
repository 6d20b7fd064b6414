//! Shape and element type of the KV pool, and its bytes.
//!
//! A **page** is what one head has in one block of one layer's K (or V) pool: `block_size` rows of `head_dim` elements,
//! and for [`KvDtype::Int8`] the scales of its rows behind them. Backends may hold pages as they like; these bytes are
//! those of [`Backend::read_blocks`](super::Backend::read_blocks), and define how values are rounded.

use half::f16;

/// Element type of the KV pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvDtype {
    /// 32-bit float.
    F32,
    /// IEEE half, values beyond its range clamped to ±65504.
    F16,
    /// Signed bytes with a scale for each row, that is for each token and head: `x = scale * q`, where `scale` is
    /// `max |x| / 127` as IEEE half (at most 65504), and `q` is `x / scale` rounded to the nearest integer, ties to
    /// even, within ±127. A row of zeros has scale 0. A row with a NaN is NaN throughout in the reference, and
    /// unspecified elsewhere.
    Int8,
}

/// Largest magnitude of an element of [`KvDtype::Int8`].
const INT8_MAX: f32 = 127.0;

impl KvDtype {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Int8];

    /// The name on the command line, and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }

    /// Bytes of one element.
    pub const fn element_bytes(self) -> u32 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Int8 => 1,
        }
    }

    /// Bytes of one row with its scale.
    pub const fn row_bytes(self, head_dim: u32) -> u64 {
        let scale_bytes = match self {
            Self::F32 | Self::F16 => 0,
            Self::Int8 => 2,
        };
        self.element_bytes() as u64 * head_dim as u64 + scale_bytes
    }

    /// Rounds one row to what the pool holds, and returns its scale; 1 where rows have none.
    ///
    /// # Panics
    /// If the rows differ in length.
    pub fn round_row(self, from: &[f32], to: &mut [f32]) -> f32 {
        assert_eq!(from.len(), to.len(), "elements of a row");
        match self {
            Self::F32 => to.copy_from_slice(from),
            Self::F16 => {
                for (to, from) in to.iter_mut().zip(from) {
                    // clamp() keeps NaN, which tests use as poison.
                    *to = f16::from_f32(from.clamp(-65504.0, 65504.0)).to_f32();
                }
            }
            Self::Int8 => return round_row_to_int8(from, to),
        }
        1.0
    }

    /// Appends one page: `values` `[block_size][head_dim]` and `scales` `[block_size]` are from
    /// [`KvDtype::round_row`].
    pub fn encode_page(self, values: &[f32], scales: &[f32], bytes: &mut Vec<u8>) {
        match self {
            Self::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::F16 => bytes.extend(values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes())),
            Self::Int8 => {
                let rows = values.chunks_exact(values.len() / scales.len());
                for (row, &scale) in rows.zip(scales) {
                    // Exact, as values are small multiples of the scale. 0 / 0 and NaN become 0.
                    bytes.extend(row.iter().map(|value| (value / scale).round() as i8 as u8));
                }
                bytes.extend(scales.iter().flat_map(|&scale| f16::from_f32(scale).to_le_bytes()));
            }
        }
    }

    /// Reads one page, the reverse of [`KvDtype::encode_page`].
    pub fn decode_page(self, bytes: &[u8], values: &mut [f32], scales: &mut [f32]) {
        let halves = |bytes: &[u8]| bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
        let (elements, rest) = bytes.split_at(values.len() * self.element_bytes() as usize);
        let read: Vec<f32> = match self {
            Self::F32 => bytemuck::pod_collect_to_vec(elements),
            Self::F16 => halves(elements),
            Self::Int8 => {
                let read: Vec<f32> = halves(rest);
                scales.copy_from_slice(&read);
                let head_dim = values.len() / scales.len();
                elements.iter().enumerate().map(|(i, &q)| f32::from(q as i8) * scales[i / head_dim]).collect()
            }
        };
        values.copy_from_slice(&read);
    }
}

fn round_row_to_int8(from: &[f32], to: &mut [f32]) -> f32 {
    if from.iter().any(|value| value.is_nan()) {
        to.fill(f32::NAN);
        return f32::NAN;
    }
    let max = from.iter().fold(0.0f32, |max, value| max.max(value.abs()));
    let scale = f16::from_f32((max / INT8_MAX).min(65504.0)).to_f32();
    for (to, from) in to.iter_mut().zip(from) {
        let steps = if scale > 0.0 { (from / scale).round_ties_even().clamp(-INT8_MAX, INT8_MAX) } else { 0.0 };
        *to = steps * scale;
    }
    scale
}

/// Shape of the KV pool: K and V, for each layer `[num_blocks][num_kv_heads]` pages of `[block_size][head_dim]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvLayout {
    /// Layers of the model.
    pub num_layers: u32,
    /// Blocks in the pool.
    pub num_blocks: u32,
    /// Tokens in a block.
    pub block_size: u32,
    /// Key and value heads.
    pub num_kv_heads: u32,
    /// Elements of one head.
    pub head_dim: u32,
    /// Element type.
    pub dtype: KvDtype,
}

impl KvLayout {
    /// Elements of one page.
    pub const fn page_elements(&self) -> usize {
        self.block_size as usize * self.head_dim as usize
    }

    /// Bytes of one page.
    pub const fn page_bytes(&self) -> u64 {
        self.block_size as u64 * self.dtype.row_bytes(self.head_dim)
    }

    /// Elements of one layer's K (or V) pool.
    pub const fn layer_elements(&self) -> usize {
        self.num_blocks as usize * self.num_kv_heads as usize * self.page_elements()
    }

    /// Bytes of one layer's K (or V) in one block.
    pub const fn layer_block_bytes(&self) -> u64 {
        self.num_kv_heads as u64 * self.page_bytes()
    }

    /// Bytes of one layer's K (or V) pool.
    pub const fn layer_bytes(&self) -> u64 {
        self.num_blocks as u64 * self.layer_block_bytes()
    }

    /// Bytes of one block: K and V of every layer.
    pub const fn block_bytes(&self) -> u64 {
        2 * self.num_layers as u64 * self.layer_block_bytes()
    }

    /// Bytes of the whole pool.
    pub const fn total_bytes(&self) -> u64 {
        2 * self.num_layers as u64 * self.layer_bytes()
    }

    /// Rounds one layer's K (or V) pool, `[num_blocks][num_kv_heads][block_size][head_dim]`, to its bytes.
    pub fn encode_layer(&self, values: &[f32]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(values.len() / self.page_elements() * self.page_bytes() as usize);
        let (mut rounded, mut scales) = (vec![0.0; self.page_elements()], vec![0.0; self.block_size as usize]);
        let head_dim = self.head_dim as usize;
        for page in values.chunks_exact(self.page_elements()) {
            let rows = page.chunks_exact(head_dim).zip(rounded.chunks_exact_mut(head_dim));
            for ((from, to), scale) in rows.zip(&mut scales) {
                *scale = self.dtype.round_row(from, to);
            }
            self.dtype.encode_page(&rounded, &scales, &mut bytes);
        }
        bytes
    }

    /// One layer's K (or V) pool from its bytes.
    pub fn decode_layer(&self, bytes: &[u8]) -> Vec<f32> {
        let mut values = vec![0.0; bytes.len() / self.page_bytes() as usize * self.page_elements()];
        let mut scales = vec![0.0; self.block_size as usize];
        let pages = bytes.chunks_exact(self.page_bytes() as usize).zip(values.chunks_exact_mut(self.page_elements()));
        pages.for_each(|(bytes, values)| self.dtype.decode_page(bytes, values, &mut scales));
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(dtype: KvDtype, from: &[f32]) -> (Vec<f32>, f32) {
        let mut to = vec![0.0; from.len()];
        let scale = dtype.round_row(from, &mut to);
        (to, scale)
    }

    #[test]
    fn f16_rounds_and_clamps() {
        let (row, _) = rounded(KvDtype::F16, &[1e6, -1e6, 1.0 + 1.0 / 4096.0, f32::NAN]);
        assert_eq!(row[..3], [65504.0, -65504.0, 1.0]);
        assert!(row[3].is_nan());
    }

    #[test]
    fn int8_rows_are_multiples_of_their_scale() {
        // The scale is 0.5 exactly; 0.25 and 0.75 are halfway between two steps.
        let (row, scale) = rounded(KvDtype::Int8, &[63.5, -63.5, 0.25, 0.75, -0.74, 0.0]);
        assert_eq!(scale, 0.5);
        assert_eq!(row, [63.5, -63.5, 0.0, 1.0, -0.5, 0.0]);
        assert_eq!(rounded(KvDtype::Int8, &[0.0; 4]), (vec![0.0; 4], 0.0));
        let (row, scale) = rounded(KvDtype::Int8, &[f32::INFINITY, 1e9, -1.0]);
        assert_eq!((row, scale), (vec![127.0 * 65504.0, 127.0 * 65504.0, 0.0], 65504.0));
        assert!(rounded(KvDtype::Int8, &[1.0, f32::NAN]).0.iter().all(|x| x.is_nan()));
    }

    #[test]
    fn int8_errors_are_at_most_half_a_step() {
        let from: Vec<f32> = (0..4096).map(|i| ((i * 2_654_435_761u64 % 9973) as f32 / 9973.0 - 0.5) * 7.3).collect();
        for row in from.chunks(64) {
            let (got, scale) = rounded(KvDtype::Int8, row);
            // The half step, and what the scale lost as a half: at most 127 * 2^-11 of a step, at the largest value.
            let bound = 0.5 * scale + 127.0 * scale / 2048.0;
            assert!(got.iter().zip(row).all(|(got, want)| (got - want).abs() <= bound));
        }
    }

    #[test]
    fn bytes_of_a_block() {
        let layout = |head_dim, dtype| KvLayout {
            num_layers: 30,
            num_blocks: 7,
            block_size: 16,
            num_kv_heads: 3,
            head_dim,
            dtype,
        };
        let of = |dtype| layout(64, dtype).block_bytes();
        assert_eq!(of(KvDtype::F16), 2 * 30 * 3 * 16 * 64 * 2);
        assert_eq!(of(KvDtype::Int8), 2 * 30 * 3 * 16 * (64 + 2));
        assert_eq!(of(KvDtype::F32), 2 * of(KvDtype::F16));
        assert_eq!(layout(64, KvDtype::Int8).total_bytes(), 7 * of(KvDtype::Int8));
    }

    #[test]
    fn bytes_give_the_rounded_values_back() {
        for dtype in KvDtype::ALL {
            let layout = KvLayout { num_layers: 1, num_blocks: 2, block_size: 2, num_kv_heads: 2, head_dim: 8, dtype };
            let mut values: Vec<f32> = (0..layout.layer_elements()).map(|i| (i as f32 - 20.0).powi(3) * 1e-3).collect();
            values[8..16].fill(0.0);
            // Below the least scale that a half has, and at the edge of the subnormal ones.
            values[16..24].fill(1e-7);
            values[24..32].fill(9e-6);
            values[32..40].fill(f32::NAN);
            let bytes = layout.encode_layer(&values);
            assert_eq!(bytes.len() as u64, layout.layer_bytes());
            let decoded = layout.decode_layer(&bytes);
            for (row, (from, got)) in values.chunks(8).zip(decoded.chunks(8)).enumerate() {
                let (want, _) = rounded(dtype, from);
                assert!(got.iter().zip(&want).all(|(a, b)| a == b || a.is_nan() && b.is_nan()), "{dtype:?}, row {row}");
            }
        }
    }
}
