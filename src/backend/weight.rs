//! Weights as they come from a file: row-major matrices, possibly quantised, possibly made of several tensors.

use std::borrow::Cow;

/// Element format of a weight, in the file and on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// ggml Q8_0: blocks of 32, `f16 d`, 32 x `i8 q`; `w = d * q`.
    Q8_0,
    /// ggml Q4_0: blocks of 32, `f16 d`, 16 bytes of nibbles (low nibbles first); `w = d * (q - 8)`.
    Q4_0,
    /// ggml Q4_1: blocks of 32, `f16 d`, `f16 m`, 16 bytes of nibbles (low nibbles first); `w = d * q + m`.
    Q4_1,
}

impl WeightFormat {
    /// Every format.
    pub const ALL: [Self; 6] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0, Self::Q4_1];

    /// Name as on the command line and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
        }
    }

    /// Whether elements are small integers with a scale for each block.
    pub const fn is_quantised(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0 | Self::Q4_1)
    }

    /// Elements in one block.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 => 32,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
        }
    }

    /// Bytes of one row of `cols` elements, or `None` when `cols` is not a whole number of blocks.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())
    }
}

/// Rows of a weight that come from one tensor.
#[derive(Debug, Clone)]
pub struct WeightPart<'a> {
    /// Element format of these rows.
    pub format: WeightFormat,
    /// How many rows.
    pub rows: usize,
    /// `rows * format.row_bytes(cols)` bytes, row-major, little-endian; usually borrowed from a memory map.
    pub data: Cow<'a, [u8]>,
}

/// A weight on the host: `[rows][cols]`, its parts stacked by rows (a fused q, k, v matrix has three).
///
/// A vector (norm weight, bias) has `rows == 1` and one [`WeightFormat::F32`] part.
#[derive(Debug, Clone)]
pub struct HostWeight<'a> {
    /// Name for messages.
    pub name: String,
    /// Input features.
    pub cols: usize,
    /// The rows, part after part.
    pub parts: Vec<WeightPart<'a>>,
}

impl HostWeight<'_> {
    /// Output features: the rows of all parts.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows).sum()
    }
}

/// A weight on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WeightId(pub u32);
