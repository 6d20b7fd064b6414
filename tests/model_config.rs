//! Configurations as their authors publish them.
#![cfg(feature = "runtime")]

use std::path::Path;

use bindery::backend::{RopePairing, WeightFormat};
use bindery::model::gguf::GgufFile;
use bindery::model::{Architecture, Checkpoint, GenerationConfig, LoadFormat, ModelConfig, RopeScaling};
use serde_json::{Value, json};

#[path = "support/checkpoints.rs"]
mod checkpoints;
#[path = "support/models.rs"]
mod models;
use checkpoints::{GgufWriter, TinyLlama};

/// The config.json of Llama 3.2 1B Instruct.
fn llama_3_2() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu",
        "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 131072,
        "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16,
        "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"
        },
        "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "transformers_version": "4.45.0.dev0", "use_cache": true, "vocab_size": 128256
    })
}

fn parse(config: &Value) -> Result<ModelConfig, String> {
    ModelConfig::from_hf_json(Path::new("config.json"), &config.to_string(), None).map_err(|error| error.to_string())
}

/// The message for Llama 3.2's configuration with some keys changed.
fn refusal(changes: Value) -> String {
    let mut config = llama_3_2();
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    parse(&config).expect_err("a wrong configuration was accepted")
}

#[test]
fn llama_3_2_in_both_spellings() {
    let config = parse(&llama_3_2()).unwrap();
    assert_eq!(config.architecture, Architecture::Llama);
    assert_eq!((config.num_layers, config.hidden_size, config.intermediate_size), (16, 2048, 8192));
    assert_eq!((config.num_heads, config.num_kv_heads, config.head_dim), (32, 8, 64));
    assert_eq!((config.vocab_size, config.max_position_embeddings), (128256, 131072));
    assert_eq!(config.rms_norm_eps, 1e-5);
    assert_eq!(config.rope.theta, 500_000.0);
    let scaling = RopeScaling::Llama3 {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    assert_eq!(config.rope.scaling, scaling);
    assert_eq!(config.rope_pairing, RopePairing::Halves);
    assert!(config.tie_word_embeddings && !config.attention_bias && !config.mlp_bias);
    assert_eq!(config.bos_token_id, Some(128000));
    assert_eq!(config.eos_token_ids, [128001, 128008, 128009]);
    assert_eq!(config.attention_shape().scale, 0.125);

    let mut newer = llama_3_2();
    let object = newer.as_object_mut().unwrap();
    let mut parameters = object.remove("rope_scaling").unwrap();
    parameters["rope_theta"] = object.remove("rope_theta").unwrap();
    object.insert("rope_parameters".into(), parameters);
    assert_eq!(parse(&newer).unwrap(), config);
}

#[test]
fn qwen_2_5() {
    let config = json!({
        "architectures": ["Qwen2ForCausalLM"], "bos_token_id": 151643, "eos_token_id": 151645, "hidden_act": "silu",
        "hidden_size": 896, "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 21,
        "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": true,
        "use_sliding_window": false, "vocab_size": 151936
    });
    let generation = r#"{"eos_token_id": [151645, 151643], "temperature": 0.7, "top_k": 20, "do_sample": true}"#;
    let config = ModelConfig::from_hf_json(Path::new("config.json"), &config.to_string(), Some(generation)).unwrap();
    assert_eq!(config.architecture, Architecture::Qwen2);
    assert_eq!(config.head_dim, 64);
    assert!(config.attention_bias && !config.attention_output_bias && !config.mlp_bias);
    assert_eq!(config.eos_token_ids, [151645, 151643]);
    let generation = GenerationConfig { temperature: Some(0.7), top_k: Some(20), ..GenerationConfig::default() };
    assert_eq!(config.generation, generation);
    assert_eq!(config.rope.scaling, RopeScaling::None);
}

#[test]
fn qwen_3() {
    let config = json!({
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 3072,
        "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3", "num_attention_heads": 16,
        "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": null,
        "rope_theta": 1000000, "sliding_window": null, "tie_word_embeddings": true, "use_sliding_window": false,
        "vocab_size": 151936
    });
    let config = ModelConfig::from_hf_json(Path::new("config.json"), &config.to_string(), None).unwrap();
    assert_eq!(config.architecture, Architecture::Qwen3);
    assert_eq!((config.q_size(), config.kv_size(), config.hidden_size), (2048, 1024, 1024));
    assert!(config.has_head_norms() && !config.attention_bias && !config.attention_output_bias);
}

#[test]
fn smollm2_from_gguf() {
    let checkpoint = Checkpoint::open(&models::smollm2_gguf(), LoadFormat::Auto).unwrap();
    let config = checkpoint.config();
    assert_eq!((config.num_layers, config.hidden_size, config.intermediate_size), (30, 576, 1536));
    assert_eq!((config.num_heads, config.num_kv_heads, config.head_dim), (9, 3, 64));
    assert_eq!((config.vocab_size, config.max_position_embeddings), (49152, 8192));
    assert_eq!((config.bos_token_id, config.eos_token_ids.as_slice()), (Some(1), [2].as_slice()));
    assert!(config.tie_word_embeddings);
    assert_eq!(config.rope_pairing, RopePairing::Interleaved);
    assert_eq!(config.rope.theta, 100_000.0);
    assert_eq!(checkpoint.tensors().len(), 272);
}

/// The tiny model's GGUF file with some pairs and tensors more.
fn gguf(change: impl FnOnce(&mut GgufWriter)) -> Result<ModelConfig, String> {
    let mut writer =
        TinyLlama { qkv_bias: false, tied: true, head_norms: false }.gguf_writer("llama", WeightFormat::F16);
    change(&mut writer);
    let file = GgufFile::from_bytes(Path::new("tiny.gguf"), writer.finish()).unwrap();
    ModelConfig::from_gguf(&file).map_err(|error| error.to_string())
}

#[test]
fn gguf_rope_scaling() {
    let scaling = |change: fn(&mut GgufWriter)| gguf(change).map(|config| config.rope.scaling);
    assert_eq!(scaling(|_| {}), Ok(RopeScaling::None));
    let linear = |file: &mut GgufWriter| {
        file.string("llama.rope.scaling.type", "linear").f32("llama.rope.scaling.factor", 4.0);
    };
    assert_eq!(scaling(linear), Ok(RopeScaling::Linear { factor: 4.0 }));
    let factors: Vec<u8> = [1.0f32, 1.0, 2.5, 8.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let config = gguf(|file| _ = file.tensor("rope_freqs.weight", &[4], 0, &factors)).unwrap();
    assert_eq!(config.rope.scaling, RopeScaling::PerFrequency(vec![1.0, 1.0, 2.5, 8.0]));
    let error = gguf(|file| _ = file.tensor("rope_freqs.weight", &[3], 0, &factors[..12])).unwrap_err();
    assert!(error.contains("one factor for each half head"), "{error}");
    let error = scaling(|file| _ = file.string("llama.rope.scaling.type", "yarn")).unwrap_err();
    assert!(error.contains("`yarn`"), "{error}");
}

#[test]
fn other_gguf_files_are_refused_with_a_hint() {
    let contains = |error: String, part: &str| assert!(error.contains(part), "{error}");
    contains(gguf(|file| _ = file.u32("split.count", 2)).unwrap_err(), "llama-gguf-split --merge");
    contains(gguf(|file| _ = file.u32("llama.expert_count", 8)).unwrap_err(), "mixture of experts");
    contains(gguf(|file| _ = file.u32("llama.rope.dimension_count", 4)).unwrap_err(), "a part of each head");
    contains(gguf(|file| _ = file.u32("tokenizer.ggml.eot_token_id", 96)).unwrap_err(), "eos_token_id");
    assert_eq!(gguf(|file| _ = file.u32("tokenizer.ggml.eot_token_id", 95)).unwrap().eos_token_ids, [2, 95]);
}

#[test]
fn other_models_are_refused_with_a_hint() {
    let contains = |error: String, part: &str| assert!(error.contains(part), "{error}");
    contains(refusal(json!({"model_type": "gemma3"})), "`gemma3` is not supported; supported are llama");
    contains(refusal(json!({"hidden_act": "gelu"})), "`gelu`");
    contains(refusal(json!({"quantization_config": {"quant_method": "awq"}})), "use the unquantised safetensors");
    contains(refusal(json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}})), "`yarn`");
    contains(refusal(json!({"model_type": "mistral", "sliding_window": 4096})), "sliding attention window");
    contains(refusal(json!({"partial_rotary_factor": 0.5})), "partial_rotary_factor");
}

#[test]
fn numbers_out_of_range_are_refused() {
    let contains = |error: String, part: &str| assert!(error.contains(part), "{error}");
    for key in ["num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "max_position_embeddings"] {
        contains(refusal(json!({ key: 0 })), "found 0");
        contains(refusal(json!({ key: -1 })), "found -1");
        contains(refusal(json!({ key: u32::MAX })), "found 4294967295");
        contains(refusal(json!({ key: null })), "is missing");
    }
    contains(refusal(json!({"num_attention_heads": 0})), "num_heads");
    contains(refusal(json!({"num_attention_heads": 0, "head_dim": null})), "a divisor of hidden_size");
    contains(refusal(json!({"num_key_value_heads": 0})), "num_kv_heads");
    contains(refusal(json!({"num_key_value_heads": 5})), "a divisor of num_heads (32)");
    contains(refusal(json!({"head_dim": 60})), "a multiple of 8");
    contains(refusal(json!({"head_dim": 1 << 20})), "head_dim");
    contains(refusal(json!({"rms_norm_eps": 2.0})), "rms_norm_eps");
    contains(refusal(json!({"rope_theta": 0.0})), "rope theta");
    contains(refusal(json!({"rope_theta": "x"})), "`rope_theta` should be a number");
    contains(refusal(json!({"rope_scaling": {"type": "linear", "factor": 0.0}})), "scaling factor");
    contains(refusal(json!({"rope_scaling": {"type": "linear"}})), "`rope_scaling.factor` is missing");
    contains(refusal(json!({"eos_token_id": 128256})), "eos_token_id");
    contains(refusal(json!({"eos_token_id": ["x"]})), "a token id or a list of them");
}
