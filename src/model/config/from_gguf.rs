//! The configuration in a GGUF file's metadata and tensor table.

use std::path::Path;

use super::{Architecture, GenerationConfig, ModelConfig, RopeConfig, RopeScaling};
use crate::backend::RopePairing;
use crate::model::LoadError;
use crate::model::gguf::{GgufFile, Metadata};

/// Keys of one architecture: `llama.block_count` and so on.
struct Keys<'a> {
    path: &'a Path,
    metadata: &'a Metadata,
    architecture: &'static str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn find_u32(&self, name: &str) -> Result<Option<u32>, LoadError> {
        self.metadata.u32(&self.key(name))
    }

    fn u32(&self, name: &str) -> Result<u32, LoadError> {
        self.metadata.require(&self.key(name), self.find_u32(name)?)
    }

    fn find_f32(&self, name: &str) -> Result<Option<f32>, LoadError> {
        self.metadata.f32(&self.key(name))
    }

    fn f32(&self, name: &str) -> Result<f32, LoadError> {
        self.metadata.require(&self.key(name), self.find_f32(name)?)
    }

    fn unsupported(&self, what: impl Into<String>, hint: &str) -> LoadError {
        LoadError::unsupported(self.path, what, hint)
    }
}

impl ModelConfig {
    /// Reads the configuration of a GGUF file.
    ///
    /// # Errors
    /// [`LoadError`], for an unsupported architecture, and for keys that are missing or out of range.
    pub fn from_gguf(file: &GgufFile) -> Result<Self, LoadError> {
        let (path, metadata) = (file.path(), file.metadata());
        let key = "general.architecture";
        let name = metadata.require(key, metadata.string(key)?)?;
        let Some(architecture) = Architecture::from_name(name) else {
            let hint = format!("supported are {}", Architecture::SUPPORTED);
            return Err(LoadError::unsupported(path, format!("the architecture `{name}`"), hint));
        };
        let keys = Keys { path, metadata, architecture: architecture.name() };
        let num_heads = keys.u32("attention.head_count")?;
        let hidden_size = keys.u32("embedding_length")?;
        let head_dim = match keys.find_u32("attention.key_length")? {
            Some(head_dim) => head_dim,
            None if num_heads > 0 && hidden_size.is_multiple_of(num_heads) => hidden_size / num_heads,
            None => {
                let key = keys.key("attention.head_count");
                return Err(LoadError::bad_value(path, key, "a divisor of embedding_length", num_heads.to_string()));
            }
        };
        refuse_unsupported(&keys, head_dim)?;
        let has = |tensor: &str| file.tensor(tensor).is_some();
        let config = Self {
            architecture,
            num_layers: keys.u32("block_count")?,
            hidden_size,
            intermediate_size: keys.u32("feed_forward_length")?,
            num_heads,
            num_kv_heads: keys.find_u32("attention.head_count_kv")?.unwrap_or(num_heads),
            head_dim,
            vocab_size: vocab_size(&keys, file)?,
            max_position_embeddings: keys.u32("context_length")?,
            rms_norm_eps: keys.f32("attention.layer_norm_rms_epsilon")?,
            rope: rope(&keys, file)?,
            // The converter interleaves the rows of q and k for llama, and leaves those of others alone.
            rope_pairing: match architecture {
                Architecture::Llama => RopePairing::Interleaved,
                Architecture::Qwen2 | Architecture::Qwen3 => RopePairing::Halves,
            },
            tie_word_embeddings: !has("output.weight"),
            attention_bias: architecture == Architecture::Qwen2 || has("blk.0.attn_q.bias"),
            attention_output_bias: has("blk.0.attn_output.bias"),
            mlp_bias: has("blk.0.ffn_gate.bias"),
            bos_token_id: metadata.u32("tokenizer.ggml.bos_token_id")?,
            eos_token_ids: eos_token_ids(metadata)?,
            generation: generation(metadata)?,
        };
        config.validate(path)?;
        Ok(config)
    }
}

/// Refuses what would load and then compute something else.
fn refuse_unsupported(keys: &Keys<'_>, head_dim: u32) -> Result<(), LoadError> {
    if keys.metadata.u32("split.count")?.is_some_and(|count| count > 1) {
        return Err(keys.unsupported("a split GGUF file", "merge its parts with `llama-gguf-split --merge`"));
    }
    if keys.find_u32("expert_count")?.is_some_and(|count| count > 0) {
        return Err(keys.unsupported("a mixture of experts", "use a dense model"));
    }
    if keys.find_u32("attention.sliding_window")?.is_some_and(|window| window > 0) {
        return Err(keys.unsupported("a sliding attention window", "use a model with full attention"));
    }
    if keys.find_u32("attention.value_length")?.is_some_and(|len| len != head_dim) {
        return Err(keys.unsupported("value heads of another size than key heads", "use another model"));
    }
    if keys.find_u32("rope.dimension_count")?.is_some_and(|dims| dims != head_dim) {
        return Err(keys.unsupported("RoPE over a part of each head", "use a model that rotates whole heads"));
    }
    Ok(())
}

fn vocab_size(keys: &Keys<'_>, file: &GgufFile) -> Result<u32, LoadError> {
    if let Some(size) = keys.find_u32("vocab_size")? {
        return Ok(size);
    }
    let tokens = keys.metadata.strings("tokenizer.ggml.tokens")?.map(|tokens| tokens.len() as u64);
    let rows = || file.tensor("token_embd.weight").map(|tensor| tensor.rows());
    let size = tokens.or_else(rows).and_then(|size| size.try_into().ok());
    keys.metadata.require(&keys.key("vocab_size"), size)
}

fn rope(keys: &Keys<'_>, file: &GgufFile) -> Result<RopeConfig, LoadError> {
    let theta = f64::from(keys.find_f32("rope.freq_base")?.unwrap_or(10_000.0));
    let factor = match keys.find_f32("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => keys.find_f32("rope.scale_linear")?,
    };
    let linear = match keys.metadata.string(&keys.key("rope.scaling.type"))? {
        Some("none") => None,
        // llama.cpp takes a factor without a type as linear, and a factor of 0 as none.
        None | Some("linear") => factor.filter(|&factor| factor != 0.0 && factor != 1.0),
        Some(other) => {
            return Err(keys.unsupported(format!("RoPE scaling `{other}`"), "`linear` and `rope_freqs.weight` are"));
        }
    };
    let scaling = match (linear, file.tensor("rope_freqs.weight")) {
        (None, None) => RopeScaling::None,
        (Some(factor), None) => RopeScaling::Linear { factor: f64::from(factor) },
        (None, Some(tensor)) => {
            if tensor.ggml_type.name != "F32" || tensor.cols() > 512 {
                return Err(keys.unsupported("`rope_freqs.weight` other than up to 512 F32", "convert the model again"));
            }
            let (factors, _) = file.data(tensor).as_chunks::<4>();
            RopeScaling::PerFrequency(factors.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
        }
        (Some(_), Some(_)) => {
            return Err(keys.unsupported("linear RoPE scaling together with `rope_freqs.weight`", "use one of them"));
        }
    };
    Ok(RopeConfig { theta, scaling })
}

fn generation(metadata: &Metadata) -> Result<GenerationConfig, LoadError> {
    let float = |name: &str| metadata.f32(&format!("general.sampling.{name}"));
    Ok(GenerationConfig {
        temperature: float("temp")?,
        top_p: float("top_p")?,
        top_k: metadata.u32("general.sampling.top_k")?.map(i64::from),
        min_p: float("min_p")?,
        repetition_penalty: float("penalty_repeat")?,
    })
}

/// End of sequence, end of turn, end of message: each of them ends a generation.
fn eos_token_ids(metadata: &Metadata) -> Result<Vec<u32>, LoadError> {
    let mut ids = Vec::new();
    for name in ["eos", "eot", "eom"] {
        if let Some(id) = metadata.u32(&format!("tokenizer.ggml.{name}_token_id"))?
            && !ids.contains(&id)
        {
            ids.push(id);
        }
    }
    Ok(ids)
}
