//! What is measured of a model.

use super::super::{KvDtype, WeightFormat};

/// What is measured of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Formats of the weights.
    pub formats: Vec<WeightFormat>,
    /// Element type of the KV pool.
    pub kv_dtype: KvDtype,
    /// Rows of the matrix products and of what is computed row by row; those of the output head at most
    /// [`Selection::MAX_LOGITS_ROWS`].
    pub rows: Vec<u32>,
    /// Decodes: sequences, and the length of each in tokens.
    pub decode: Vec<(u32, u32)>,
    /// Prefills of one sequence: tokens in the KV pool before, and new ones.
    pub prefill: Vec<(u32, u32)>,
    /// Decodes whose sequences begin with the same tokens: sequences, and how many tokens these are, in whole blocks.
    pub shared: Vec<(u32, u32)>,
    /// Whether products may round activations to int8.
    pub quantize_activations: bool,
    /// Bytes that ops with few rows move at least, so that what they read is in no cache.
    pub cache_bytes: u64,
}

impl Selection {
    /// Most rows of the output head: no step of a server has more logits.
    pub const MAX_LOGITS_ROWS: u32 = 64;
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            formats: vec![WeightFormat::F16, WeightFormat::Q8_0, WeightFormat::Q4_0],
            kv_dtype: KvDtype::F16,
            rows: vec![1, 8, 64, 512],
            decode: [1, 16, 64].into_iter().flat_map(|n| [128, 1024, 4096].map(|len| (n, len))).collect(),
            prefill: vec![(0, 512), (3584, 512)],
            shared: vec![(16, 2048)],
            quantize_activations: false,
            cache_bytes: 192 << 20,
        }
    }
}
