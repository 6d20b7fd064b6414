//! ggml's tensor types: how many bytes they take, and which ones can be loaded.

use super::super::Encoding;
use super::GgmlQuant;
use crate::backend::WeightFormat;

/// Types that can be loaded, for messages.
pub(crate) const SUPPORTED_GGML_TYPES: &str = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and Q2_K to Q6_K";

/// A tensor type of ggml (`enum ggml_type` of ggml.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GgmlType {
    /// Its number in the file.
    pub id: u32,
    /// Its name in ggml.
    pub name: &'static str,
    /// Elements in one block.
    pub block_len: u64,
    /// Bytes of one block.
    pub block_bytes: u64,
}

/// Every type that ggml still reads: `(id, name, block_len, block_bytes)`.
const TYPES: [(u32, &str, u64, u64); 33] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
];

impl GgmlType {
    /// The type numbered `id`, if ggml has one.
    pub fn from_id(id: u32) -> Option<Self> {
        let &(id, name, block_len, block_bytes) = TYPES.iter().find(|entry| entry.0 == id)?;
        Some(Self { id, name, block_len, block_bytes })
    }

    /// How its elements are loaded, if they can be.
    pub fn encoding(self) -> Option<Encoding> {
        let format = match self.name {
            "F32" => WeightFormat::F32,
            "F16" => WeightFormat::F16,
            "BF16" => WeightFormat::Bf16,
            "Q8_0" => WeightFormat::Q8_0,
            "Q4_0" => WeightFormat::Q4_0,
            "Q4_1" => WeightFormat::Q4_1,
            name => return GgmlQuant::ALL.into_iter().find(|quant| quant.name() == name).map(Encoding::Repacked),
        };
        Some(Encoding::Device(format))
    }

    /// Bytes of `rows` rows of `cols` elements; `None` when `cols` is not whole blocks or the size overflows.
    pub(super) fn tensor_bytes(self, cols: u64, rows: u64) -> Option<u64> {
        if !cols.is_multiple_of(self.block_len) {
            return None;
        }
        (cols / self.block_len).checked_mul(self.block_bytes)?.checked_mul(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_agree_with_the_encodings() {
        let mut loaded = Vec::new();
        for (id, ..) in TYPES {
            let ggml_type = GgmlType::from_id(id).unwrap();
            let (block_len, block_bytes) = match ggml_type.encoding() {
                Some(Encoding::Device(format)) => (format.block_len(), format.block_bytes()),
                Some(Encoding::Repacked(quant)) => (quant.block_len(), quant.block_bytes()),
                None => continue,
            };
            assert_eq!(ggml_type.block_len, block_len as u64, "{}", ggml_type.name);
            assert_eq!(ggml_type.block_bytes, block_bytes as u64, "{}", ggml_type.name);
            loaded.push(ggml_type.name);
        }
        assert_eq!(loaded.len(), WeightFormat::ALL.len() + GgmlQuant::ALL.len(), "{loaded:?}");
    }
}
