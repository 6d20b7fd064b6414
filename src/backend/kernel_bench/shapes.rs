//! The models whose shapes are measured.

use super::super::AttentionShape;

/// Sizes of a model that decide the shapes of its kernels.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelShape {
    /// Name for tables.
    pub name: String,
    /// Elements of the residual stream.
    pub hidden: u32,
    /// Elements between gate/up and down.
    pub intermediate: u32,
    /// Heads of the attention.
    pub attention: AttentionShape,
    /// Rows of the output head.
    pub vocab: u32,
}

impl ModelShape {
    /// `(hidden, intermediate)`, `(heads, KV heads, elements of a head)`, vocabulary.
    fn new(name: &str, (hidden, intermediate): (u32, u32), heads: (u32, u32, u32), vocab: u32) -> Self {
        let (num_heads, num_kv_heads, head_dim) = heads;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let attention = AttentionShape { num_heads, num_kv_heads, head_dim, scale };
        Self { name: name.to_owned(), hidden, intermediate, attention, vocab }
    }

    /// The models that benchmarks know, from small to large.
    pub fn known() -> Vec<Self> {
        vec![
            Self::new("SmolLM2-135M", (576, 1536), (9, 3, 64), 49_152),
            Self::new("Qwen3-0.6B", (1024, 3072), (16, 8, 128), 151_936),
            Self::new("Llama-3.2-1B", (2048, 8192), (32, 8, 64), 128_256),
            Self::new("Llama-3.1-8B", (4096, 14_336), (32, 8, 128), 128_256),
        ]
    }

    /// The matrices: name, output features, input features.
    pub fn matrices(&self) -> [(&'static str, u32, u32); 5] {
        let heads = &self.attention;
        let (q, kv) = (heads.num_heads * heads.head_dim, heads.num_kv_heads * heads.head_dim);
        [
            ("qkv", q + 2 * kv, self.hidden),
            ("attention output", self.hidden, q),
            ("gate and up", 2 * self.intermediate, self.hidden),
            ("down", self.hidden, self.intermediate),
            ("logits", self.vocab, self.hidden),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_have_as_many_elements_as_the_models() {
        // Without embeddings and norms: SmolLM2 30 layers of 3.54 M; Llama 3.1 32 layers of 218 M.
        let layer = |shape: &ModelShape| {
            shape.matrices()[..4].iter().map(|&(_, rows, cols)| u64::from(rows) * u64::from(cols)).sum::<u64>()
        };
        let known = ModelShape::known();
        assert_eq!([layer(&known[0]), layer(&known[3])], [3_538_944, 218_103_808]);
    }
}
