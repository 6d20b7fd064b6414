//! `config.json` and `generation_config.json` of a Hugging Face folder.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Architecture, GenerationConfig, ModelConfig, RopeConfig, RopeScaling};
use crate::backend::RopePairing;
use crate::model::LoadError;
use crate::model::file_bytes::read_text;

/// Real ones have a few kilobytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// A JSON object with typed access; `null` counts as missing.
struct Json {
    path: PathBuf,
    /// Prefix of the keys in messages.
    prefix: &'static str,
    map: Map<String, Value>,
}

impl Json {
    fn parse(path: &Path, text: &str) -> Result<Self, LoadError> {
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Self { path: path.into(), prefix: "", map }),
            Ok(_) => Err(LoadError::malformed(path, "it is not a JSON object")),
            Err(error) => Err(LoadError::malformed(path, format!("it is not JSON: {error}"))),
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn bad(&self, key: &str, expected: &str, found: &Value) -> LoadError {
        let mut found = found.to_string();
        if let Some((end, _)) = found.char_indices().nth(80) {
            found.truncate(end);
        }
        LoadError::bad_value(&self.path, format!("{}{key}", self.prefix), expected, found)
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| self.bad(key, expected, value))
    }

    fn require<T>(&self, key: &str, value: Option<T>) -> Result<T, LoadError> {
        value.ok_or_else(|| LoadError::missing_key(&self.path, format!("{}{key}", self.prefix)))
    }

    fn find_u32(&self, key: &str) -> Result<Option<u32>, LoadError> {
        self.typed(key, "an integer below 2^32", |value| value.as_u64()?.try_into().ok())
    }

    fn u32(&self, key: &str) -> Result<u32, LoadError> {
        self.require(key, self.find_u32(key)?)
    }

    fn find_f64(&self, key: &str) -> Result<Option<f64>, LoadError> {
        self.typed(key, "a number", Value::as_f64)
    }

    fn f64(&self, key: &str) -> Result<f64, LoadError> {
        self.require(key, self.find_f64(key)?)
    }

    fn flag(&self, key: &str) -> Result<bool, LoadError> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    fn find_str(&self, key: &str) -> Result<Option<&str>, LoadError> {
        self.typed(key, "a string", Value::as_str)
    }

    fn find_object(&self, key: &str, prefix: &'static str) -> Result<Option<Self>, LoadError> {
        let map = self.typed(key, "an object", Value::as_object)?;
        Ok(map.map(|map| Self { path: self.path.clone(), prefix, map: map.clone() }))
    }

    /// One token id or a list of them.
    fn token_ids(&self, key: &str) -> Result<Vec<u32>, LoadError> {
        let one = |value: &Value| value.as_u64()?.try_into().ok();
        let ids = self.typed(key, "a token id or a list of them", |value| match value {
            Value::Array(values) => values.iter().map(one).collect::<Option<Vec<u32>>>(),
            value => one(value).map(|id| vec![id]),
        })?;
        Ok(ids.unwrap_or_default())
    }

    fn unsupported(&self, what: impl Into<String>, hint: impl Into<String>) -> LoadError {
        LoadError::unsupported(&self.path, what, hint)
    }
}

impl ModelConfig {
    /// Reads `config.json` (and `generation_config.json` beside it, if there is one) from a folder, or a
    /// configuration file of any name.
    ///
    /// # Errors
    /// [`LoadError`], for a missing file, an unsupported architecture, and values of the wrong kind or size.
    pub fn from_hf(path: &Path) -> Result<Self, LoadError> {
        let file = if path.is_dir() { path.join("config.json") } else { path.to_path_buf() };
        let text = read_text(&file, MAX_CONFIG_BYTES)?;
        let generation_file = file.with_file_name("generation_config.json");
        let generation = match generation_file.is_file() {
            true => Some(read_text(&generation_file, MAX_CONFIG_BYTES)?),
            false => None,
        };
        Self::from_hf_json(&file, &text, generation.as_deref())
    }

    /// The same over texts in memory; `path` is for messages only.
    pub fn from_hf_json(path: &Path, config: &str, generation: Option<&str>) -> Result<Self, LoadError> {
        let json = Json::parse(path, config)?;
        let architecture = architecture(&json)?;
        refuse_unsupported(&json)?;
        let num_heads = json.u32("num_attention_heads")?;
        let hidden_size = json.u32("hidden_size")?;
        let head_dim = match json.find_u32("head_dim")? {
            Some(head_dim) => head_dim,
            None if num_heads > 0 && hidden_size.is_multiple_of(num_heads) => hidden_size / num_heads,
            None => return Err(json.bad("num_attention_heads", "a divisor of hidden_size", &num_heads.into())),
        };
        let max_position_embeddings = json.u32("max_position_embeddings")?;
        let mut eos_token_ids = json.token_ids("eos_token_id")?;
        let mut generation_config = GenerationConfig::default();
        if let Some(text) = generation {
            let generation = Json::parse(&path.with_file_name("generation_config.json"), text)?;
            for id in generation.token_ids("eos_token_id")? {
                if !eos_token_ids.contains(&id) {
                    eos_token_ids.push(id);
                }
            }
            generation_config = sampling(&generation)?;
        }
        let has_all_biases = architecture != Architecture::Qwen2 && json.flag("attention_bias")?;
        let config = Self {
            architecture,
            num_layers: json.u32("num_hidden_layers")?,
            hidden_size,
            intermediate_size: json.u32("intermediate_size")?,
            num_heads,
            num_kv_heads: json.find_u32("num_key_value_heads")?.unwrap_or(num_heads),
            head_dim,
            vocab_size: json.u32("vocab_size")?,
            max_position_embeddings,
            rms_norm_eps: json.f64("rms_norm_eps")? as f32,
            rope: rope(&json)?,
            rope_pairing: RopePairing::Halves,
            tie_word_embeddings: json.flag("tie_word_embeddings")?,
            attention_bias: has_all_biases || architecture == Architecture::Qwen2,
            attention_output_bias: has_all_biases,
            mlp_bias: json.flag("mlp_bias")?,
            bos_token_id: json.token_ids("bos_token_id")?.first().copied(),
            eos_token_ids,
            generation: generation_config,
        };
        config.validate(path)?;
        Ok(config)
    }
}

fn sampling(json: &Json) -> Result<GenerationConfig, LoadError> {
    let float = |key: &str| json.find_f64(key).map(|value| value.map(|value| value as f32));
    Ok(GenerationConfig {
        temperature: float("temperature")?,
        top_p: float("top_p")?,
        top_k: json.find_u32("top_k")?.map(i64::from),
        min_p: float("min_p")?,
        repetition_penalty: float("repetition_penalty")?,
    })
}

fn architecture(json: &Json) -> Result<Architecture, LoadError> {
    let model_type = json.require("model_type", json.find_str("model_type")?)?;
    match model_type {
        "mistral" => Ok(Architecture::Llama),
        name => Architecture::from_name(name).ok_or_else(|| {
            let hint = format!("supported are {}", Architecture::SUPPORTED);
            json.unsupported(format!("the architecture `{name}`"), hint)
        }),
    }
}

/// Refuses what would load and then compute something else.
fn refuse_unsupported(json: &Json) -> Result<(), LoadError> {
    match json.find_str("hidden_act")? {
        None | Some("silu") => {}
        Some(other) => return Err(json.unsupported(format!("the activation `{other}`"), "`silu` is")),
    }
    if json.get("quantization_config").is_some() {
        let hint = "use the unquantised safetensors, or a GGUF file";
        return Err(json.unsupported("`quantization_config`", hint));
    }
    // Qwen writes a `sliding_window` that `use_sliding_window: false` switches off; Mistral has no such switch.
    let qwen = matches!(json.find_str("model_type")?, Some("qwen2" | "qwen3"));
    let window = if qwen && !json.flag("use_sliding_window")? { None } else { json.find_u32("sliding_window")? };
    if window.is_some_and(|window| Some(window) < json.find_u32("max_position_embeddings").ok().flatten()) {
        return Err(json.unsupported("a sliding attention window", "use a model with full attention"));
    }
    let rotary = json.find_f64("partial_rotary_factor")?;
    if rotary.is_some_and(|factor| factor != 1.0) {
        return Err(json.unsupported("`partial_rotary_factor` other than 1", "use a model that rotates whole heads"));
    }
    Ok(())
}

/// RoPE, from `rope_theta` and `rope_scaling`, or from the newer `rope_parameters`.
fn rope(json: &Json) -> Result<RopeConfig, LoadError> {
    let parameters = json.find_object("rope_parameters", "rope_parameters.")?;
    let nested_theta = match &parameters {
        Some(parameters) => parameters.find_f64("rope_theta")?,
        None => None,
    };
    let theta = match nested_theta {
        Some(theta) => theta,
        None => json.find_f64("rope_theta")?.unwrap_or(10_000.0),
    };
    let scaling = match parameters {
        Some(parameters) => Some(parameters),
        None => json.find_object("rope_scaling", "rope_scaling.")?,
    };
    let scaling = match scaling {
        Some(scaling) => rope_scaling(&scaling)?,
        None => RopeScaling::None,
    };
    Ok(RopeConfig { theta, scaling })
}

fn rope_scaling(json: &Json) -> Result<RopeScaling, LoadError> {
    let kind = match json.find_str("rope_type")? {
        Some(kind) => Some(kind),
        None => json.find_str("type")?,
    };
    match kind {
        None | Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: json.f64("factor")? }),
        Some("llama3") => Ok(RopeScaling::Llama3 {
            factor: json.f64("factor")?,
            low_freq_factor: json.f64("low_freq_factor")?,
            high_freq_factor: json.f64("high_freq_factor")?,
            original_max_position_embeddings: json.u32("original_max_position_embeddings")?,
        }),
        Some(other) => {
            let hint = "`linear` and `llama3` are; without scaling, remove the entry and keep to the original context";
            Err(json.unsupported(format!("RoPE scaling `{other}`"), hint))
        }
    }
}
