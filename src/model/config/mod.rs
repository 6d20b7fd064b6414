//! What a model is: sizes, RoPE, special tokens; from a Hugging Face `config.json` or from GGUF metadata.

mod from_gguf;
mod from_hf;
mod generation;

use std::path::Path;

pub use generation::GenerationConfig;

use super::LoadError;
use crate::backend::kernel_bench::ModelShape;
use crate::backend::{AttentionShape, KvDtype, KvLayout, RopePairing};

/// A family of models that the program builder knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Llama 1 to 3, SmolLM, Mistral without a sliding window, and everything else that calls itself llama.
    Llama,
    /// Qwen2 and Qwen2.5: Llama with a bias on q, k and v.
    Qwen2,
    /// Qwen3: Llama with a norm on each head of q and k.
    Qwen3,
}

impl Architecture {
    /// Names that are accepted, for messages.
    pub(crate) const SUPPORTED: &str = "llama (also SmolLM, Mistral without sliding window), qwen2 and qwen3";

    /// Name as in `general.architecture` and `model_type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// The architecture of this name, if it is supported.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "llama" => Some(Self::Llama),
            "qwen2" => Some(Self::Qwen2),
            "qwen3" => Some(Self::Qwen3),
            _ => None,
        }
    }
}

/// Rotary position embedding (Su et al. 2021, arXiv:2104.09864).
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies: `theta^(-2 i / head_dim)`.
    pub theta: f64,
    /// How the frequencies are changed for a longer context.
    pub scaling: RopeScaling,
}

/// How RoPE's frequencies are changed for a longer context.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All divided by `factor` (Chen et al. 2023, arXiv:2306.15595).
    Linear {
        /// At least 1.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, the band between blended.
    Llama3 {
        /// At least 1.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context length before the extension, in tokens.
        original_max_position_embeddings: u32,
    },
    /// Each frequency divided by its own factor, `[head_dim / 2]`: the `rope_freqs.weight` tensor, which is how GGUF
    /// files carry the Llama 3.1 scaling.
    PerFrequency(Vec<f32>),
}

/// Sizes and constants of a model. Every value was validated when it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Family.
    pub architecture: Architecture,
    /// Transformer layers.
    pub num_layers: u32,
    /// Elements of the residual stream.
    pub hidden_size: u32,
    /// Elements between gate/up and down.
    pub intermediate_size: u32,
    /// Query heads.
    pub num_heads: u32,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: u32,
    /// Elements of one head, a multiple of 8.
    pub head_dim: u32,
    /// Rows of the token embedding.
    pub vocab_size: u32,
    /// Longest sequence the model was trained for, in tokens.
    pub max_position_embeddings: u32,
    /// Added to the mean square in every RMSNorm.
    pub rms_norm_eps: f32,
    /// Rotary position embedding.
    pub rope: RopeConfig,
    /// Which elements RoPE rotates together: a property of the file, not of the architecture.
    pub rope_pairing: RopePairing,
    /// Whether the output head is the token embedding.
    pub tie_word_embeddings: bool,
    /// Whether q, k and v have a bias.
    pub attention_bias: bool,
    /// Whether the attention's output projection has a bias.
    pub attention_output_bias: bool,
    /// Whether gate, up and down have a bias.
    pub mlp_bias: bool,
    /// Begin-of-sequence token.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a generation, the main one first; may be empty.
    pub eos_token_ids: Vec<u32>,
    /// How its authors recommend to sample.
    pub generation: GenerationConfig,
}

impl ModelConfig {
    /// Whether each head of q and k is normalised before RoPE.
    pub fn has_head_norms(&self) -> bool {
        self.architecture == Architecture::Qwen3
    }

    /// Elements of all query heads.
    pub fn q_size(&self) -> u32 {
        self.num_heads * self.head_dim
    }

    /// Elements of all key (or value) heads.
    pub fn kv_size(&self) -> u32 {
        self.num_kv_heads * self.head_dim
    }

    /// The sizes that decide the shapes of its kernels.
    pub fn shape(&self) -> ModelShape {
        ModelShape {
            name: self.architecture.name().to_owned(),
            hidden: self.hidden_size,
            intermediate: self.intermediate_size,
            attention: self.attention_shape(),
            vocab: self.vocab_size,
        }
    }

    /// Shape of every attention of the model.
    pub fn attention_shape(&self) -> AttentionShape {
        AttentionShape {
            num_heads: self.num_heads,
            num_kv_heads: self.num_kv_heads,
            head_dim: self.head_dim,
            scale: (f64::from(self.head_dim).sqrt().recip()) as f32,
        }
    }

    /// Shape of a KV pool for this model.
    pub fn kv_layout(&self, num_blocks: u32, block_size: u32, dtype: KvDtype) -> KvLayout {
        let &Self { num_layers, num_kv_heads, head_dim, .. } = self;
        KvLayout { num_layers, num_blocks, block_size, num_kv_heads, head_dim, dtype }
    }

    /// Holds every number against its bounds, so that no later product overflows and nothing hostile is allocated.
    pub(crate) fn validate(&self, path: &Path) -> Result<(), LoadError> {
        let range = |key: &str, value: u32, min: u32, max: u32| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            Err(LoadError::bad_value(path, key, format!("from {min} to {max}"), value.to_string()))
        };
        range("num_layers", self.num_layers, 1, 1024)?;
        range("hidden_size", self.hidden_size, 8, 1 << 17)?;
        range("intermediate_size", self.intermediate_size, 8, 1 << 20)?;
        range("num_heads", self.num_heads, 1, 1024)?;
        range("num_kv_heads", self.num_kv_heads, 1, 1024)?;
        range("head_dim", self.head_dim, 8, 1024)?;
        range("vocab_size", self.vocab_size, 1, 1 << 22)?;
        range("max_position_embeddings", self.max_position_embeddings, 2, 1 << 26)?;
        if !self.head_dim.is_multiple_of(8) {
            return Err(LoadError::bad_value(path, "head_dim", "a multiple of 8", self.head_dim.to_string()));
        }
        if !self.num_heads.is_multiple_of(self.num_kv_heads) {
            let expected = format!("a divisor of num_heads ({})", self.num_heads);
            return Err(LoadError::bad_value(path, "num_kv_heads", expected, self.num_kv_heads.to_string()));
        }
        if !(self.rms_norm_eps >= 0.0 && self.rms_norm_eps < 1.0) {
            return Err(LoadError::bad_value(path, "rms_norm_eps", "from 0 to 1", self.rms_norm_eps.to_string()));
        }
        for &id in self.eos_token_ids.iter().chain(&self.bos_token_id) {
            range("bos_token_id/eos_token_id", id, 0, self.vocab_size - 1)?;
        }
        self.validate_rope(path)
    }

    fn validate_rope(&self, path: &Path) -> Result<(), LoadError> {
        let bad = |key: &str, expected: &str, found: f64| {
            Err(LoadError::bad_value(path, format!("rope {key}"), expected, found.to_string()))
        };
        if !(1.0..=1e12).contains(&self.rope.theta) {
            return bad("theta", "from 1 to 1e12", self.rope.theta);
        }
        match &self.rope.scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor } | RopeScaling::Llama3 { factor, .. } if !(1.0..=1e6).contains(factor) => {
                bad("scaling factor", "from 1 to 1e6", *factor)
            }
            RopeScaling::Linear { .. } => Ok(()),
            RopeScaling::Llama3 {
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
                ..
            } => {
                if !(*low > 0.0 && *low <= 1e6) {
                    return bad("scaling low_freq_factor", "above 0", *low);
                }
                if !(*high > *low && *high <= 1e6) {
                    return bad("scaling high_freq_factor", "above low_freq_factor", *high);
                }
                if *original == 0 {
                    return bad("scaling original_max_position_embeddings", "above 0", 0.0);
                }
                Ok(())
            }
            RopeScaling::PerFrequency(factors) => {
                if factors.len() != self.head_dim as usize / 2 {
                    return bad("rope_freqs.weight", "one factor for each half head", factors.len() as f64);
                }
                match factors.iter().find(|factor| !(**factor > 0.0 && **factor <= 1e6)) {
                    Some(&factor) => bad("rope_freqs.weight", "positive factors", f64::from(factor)),
                    None => Ok(()),
                }
            }
        }
    }
}
