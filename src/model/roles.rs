//! The tensors of the Llama family: what each is for, what it is called in a file, and its shape.

use super::config::ModelConfig;

/// Which convention names the tensors of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// `blk.0.attn_q.weight`
    Gguf,
    /// `model.layers.0.self_attn.q_proj.weight`
    HuggingFace,
}

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorRole {
    /// `[vocab_size][hidden_size]`
    TokenEmbedding,
    /// `[hidden_size]`
    OutputNorm,
    /// `[vocab_size][hidden_size]`; absent when tied to the embedding.
    OutputHead,
    /// A tensor of the layer with this index.
    Layer(u32, LayerRole),
}

/// What a tensor of a layer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerRole {
    /// `[hidden_size]`
    AttentionNorm,
    /// A linear map.
    Weight(Linear),
    /// Its bias.
    Bias(Linear),
    /// `[hidden_size]`
    MlpNorm,
    /// `[head_dim]`, of each head of q.
    QNorm,
    /// `[head_dim]`, of each head of k.
    KNorm,
}

/// The linear maps of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Linear {
    /// `[num_heads * head_dim][hidden_size]`
    Q,
    /// `[num_kv_heads * head_dim][hidden_size]`
    K,
    /// `[num_kv_heads * head_dim][hidden_size]`
    V,
    /// `[hidden_size][num_heads * head_dim]`
    AttentionOutput,
    /// `[intermediate_size][hidden_size]`
    Gate,
    /// `[intermediate_size][hidden_size]`
    Up,
    /// `[hidden_size][intermediate_size]`
    Down,
}

impl Linear {
    pub(crate) const ALL: [Self; 7] =
        [Self::Q, Self::K, Self::V, Self::AttentionOutput, Self::Gate, Self::Up, Self::Down];

    fn name(self, naming: Naming) -> &'static str {
        match (naming, self) {
            (Naming::Gguf, Self::Q) => "attn_q",
            (Naming::Gguf, Self::K) => "attn_k",
            (Naming::Gguf, Self::V) => "attn_v",
            (Naming::Gguf, Self::AttentionOutput) => "attn_output",
            (Naming::Gguf, Self::Gate) => "ffn_gate",
            (Naming::Gguf, Self::Up) => "ffn_up",
            (Naming::Gguf, Self::Down) => "ffn_down",
            (Naming::HuggingFace, Self::Q) => "self_attn.q_proj",
            (Naming::HuggingFace, Self::K) => "self_attn.k_proj",
            (Naming::HuggingFace, Self::V) => "self_attn.v_proj",
            (Naming::HuggingFace, Self::AttentionOutput) => "self_attn.o_proj",
            (Naming::HuggingFace, Self::Gate) => "mlp.gate_proj",
            (Naming::HuggingFace, Self::Up) => "mlp.up_proj",
            (Naming::HuggingFace, Self::Down) => "mlp.down_proj",
        }
    }

    /// Rows and columns.
    fn shape(self, config: &ModelConfig) -> (usize, usize) {
        let (rows, cols) = match self {
            Self::Q => (config.q_size(), config.hidden_size),
            Self::K | Self::V => (config.kv_size(), config.hidden_size),
            Self::AttentionOutput => (config.hidden_size, config.q_size()),
            Self::Gate | Self::Up => (config.intermediate_size, config.hidden_size),
            Self::Down => (config.hidden_size, config.intermediate_size),
        };
        (rows as usize, cols as usize)
    }

    /// Whether this map has a bias in this model.
    pub(crate) fn has_bias(self, config: &ModelConfig) -> bool {
        match self {
            Self::Q | Self::K | Self::V => config.attention_bias,
            Self::AttentionOutput => config.attention_output_bias,
            Self::Gate | Self::Up | Self::Down => config.mlp_bias,
        }
    }
}

impl TensorRole {
    /// Every tensor that a model of this configuration needs.
    pub fn all(config: &ModelConfig) -> Vec<Self> {
        let mut roles = vec![Self::TokenEmbedding];
        for layer in 0..config.num_layers {
            roles.push(Self::Layer(layer, LayerRole::AttentionNorm));
            roles.push(Self::Layer(layer, LayerRole::MlpNorm));
            if config.has_head_norms() {
                roles.extend([LayerRole::QNorm, LayerRole::KNorm].map(|role| Self::Layer(layer, role)));
            }
            for linear in Linear::ALL {
                roles.push(Self::Layer(layer, LayerRole::Weight(linear)));
                if linear.has_bias(config) {
                    roles.push(Self::Layer(layer, LayerRole::Bias(linear)));
                }
            }
        }
        roles.push(Self::OutputNorm);
        if !config.tie_word_embeddings {
            roles.push(Self::OutputHead);
        }
        roles
    }

    /// Its name in a file.
    pub(crate) fn name(self, naming: Naming) -> String {
        let gguf = naming == Naming::Gguf;
        match self {
            Self::TokenEmbedding if gguf => "token_embd.weight".to_owned(),
            Self::TokenEmbedding => "model.embed_tokens.weight".to_owned(),
            Self::OutputNorm if gguf => "output_norm.weight".to_owned(),
            Self::OutputNorm => "model.norm.weight".to_owned(),
            Self::OutputHead if gguf => "output.weight".to_owned(),
            Self::OutputHead => "lm_head.weight".to_owned(),
            Self::Layer(layer, role) => {
                let layers = if gguf { "blk" } else { "model.layers" };
                let (stem, suffix) = match role {
                    LayerRole::AttentionNorm if gguf => ("attn_norm", "weight"),
                    LayerRole::AttentionNorm => ("input_layernorm", "weight"),
                    LayerRole::QNorm if gguf => ("attn_q_norm", "weight"),
                    LayerRole::QNorm => ("self_attn.q_norm", "weight"),
                    LayerRole::KNorm if gguf => ("attn_k_norm", "weight"),
                    LayerRole::KNorm => ("self_attn.k_norm", "weight"),
                    LayerRole::MlpNorm if gguf => ("ffn_norm", "weight"),
                    LayerRole::MlpNorm => ("post_attention_layernorm", "weight"),
                    LayerRole::Weight(linear) => (linear.name(naming), "weight"),
                    LayerRole::Bias(linear) => (linear.name(naming), "bias"),
                };
                format!("{layers}.{layer}.{stem}.{suffix}")
            }
        }
    }

    /// Rows and columns; a vector has one row.
    pub fn shape(self, config: &ModelConfig) -> (usize, usize) {
        match self {
            Self::TokenEmbedding | Self::OutputHead => (config.vocab_size as usize, config.hidden_size as usize),
            Self::OutputNorm | Self::Layer(_, LayerRole::AttentionNorm | LayerRole::MlpNorm) => {
                (1, config.hidden_size as usize)
            }
            Self::Layer(_, LayerRole::QNorm | LayerRole::KNorm) => (1, config.head_dim as usize),
            Self::Layer(_, LayerRole::Weight(linear)) => linear.shape(config),
            Self::Layer(_, LayerRole::Bias(linear)) => (1, linear.shape(config).0),
        }
    }

    /// Whether it is a norm weight or a bias, which go to the device as F32.
    pub fn is_vector(self) -> bool {
        match self {
            Self::TokenEmbedding | Self::OutputHead => false,
            Self::OutputNorm => true,
            Self::Layer(_, role) => !matches!(role, LayerRole::Weight(_)),
        }
    }

    /// Whether it is an RMSNorm weight.
    pub(crate) fn is_norm(self) -> bool {
        use LayerRole::{AttentionNorm, KNorm, MlpNorm, QNorm};
        matches!(self, Self::OutputNorm | Self::Layer(_, AttentionNorm | MlpNorm | QNorm | KNorm))
    }
}

/// Tensors of layers that may stand in a file and are rightly left unread.
pub(crate) fn is_derived(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".attn_rot_embd.weight")
}
