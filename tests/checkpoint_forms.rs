//! One tiny model as GGUF, as safetensors and made up: what is loaded is what was written.
#![cfg(feature = "runtime")]

use std::path::{Path, PathBuf};

use bindery::backend::cpu::CpuBackend;
use bindery::backend::{Backend, KvDtype, RopePairing, StepInput, StepLimits, StepOutput, WeightFormat, quantize_row};
use bindery::model::gguf::GgufFile;
use bindery::model::safetensors::SafetensorsFiles;
use bindery::model::{Checkpoint, DummyWeights, Llama, LoadError, LoadFormat, ModelConfig};

#[path = "support/checkpoints.rs"]
mod checkpoints;
use checkpoints::{GgufWriter, TinyLlama, safetensors};

const TOKENS: [u32; 7] = [3, 17, 95, 0, 42, 42, 9];

fn gguf(writer: &GgufWriter) -> Result<Checkpoint, LoadError> {
    Checkpoint::from_gguf(GgufFile::from_bytes(Path::new("tiny.gguf"), writer.finish())?)
}

fn hf(model: &TinyLlama, dtype: &'static str) -> Checkpoint {
    hf_with(model, dtype, &model.hf_config())
}

fn hf_with(model: &TinyLlama, dtype: &'static str, config: &serde_json::Value) -> Checkpoint {
    let config = ModelConfig::from_hf_json(Path::new("tiny/config.json"), &config.to_string(), None).unwrap();
    let bytes = safetensors(&model.hf_tensors(dtype));
    let files = SafetensorsFiles::from_bytes(Path::new("tiny/model.safetensors"), bytes).unwrap();
    Checkpoint::from_safetensors(Path::new("tiny"), config, files).unwrap()
}

/// Logits after every token of [`TOKENS`].
fn logits(checkpoint: &Checkpoint) -> Vec<f32> {
    let mut backend = CpuBackend::new();
    let model = Llama::load(checkpoint, &mut backend, 16, &mut |_| {}).unwrap();
    let limits = StepLimits {
        max_tokens: 8,
        max_seqs: 1,
        max_logits_rows: 8,
        max_block_table_entries: 1,
        max_block_copies: 0,
        max_draws: 0,
        max_adjustments: 0,
        batch_invariant: false,
        quantize_activations: false,
        cascade_attention: true,
    };
    backend.prepare(model.program, checkpoint.config().kv_layout(1, 16, KvDtype::F32), limits).unwrap();
    let rows: Vec<u32> = (0..TOKENS.len() as u32).collect();
    let input = StepInput {
        token_ids: &TOKENS,
        fed_tokens: &[],
        positions: &rows,
        slot_mapping: &rows,
        query_start_loc: &[0, 7],
        seq_lens: &[7],
        block_tables: &[0],
        block_table_start: &[0, 1],
        logits_indices: &rows,
        block_copies: &[],
        read_logits_rows: &rows,
        top_k_rows: &[],
        top_k: 0,
        draws: &[],
        adjustments: &[],
        scored: &[],
    };
    let mut output = StepOutput::default();
    backend.forward(&input, &mut output).unwrap();
    output.logits
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().chain(b).all(|x| x.is_finite()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Files of `tests/golden/make_tiny_llama.py` and `make_dequant.py`.
fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn golden(name: &str) -> Vec<f32> {
    let path = golden_path(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    bytes.as_chunks::<4>().0.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect()
}

#[test]
fn logits_agree_with_a_forward_pass_in_numpy() {
    let llama = TinyLlama { qkv_bias: false, tied: false, head_norms: false };
    let mut config = llama.hf_config();
    config["rope_scaling"] = serde_json::json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    });
    let difference = largest_difference(&golden("tiny_llama3.f32"), &logits(&hf_with(&llama, "F32", &config)));
    assert!(difference < 1e-5, "llama with llama3 scaling: {difference}");
    let without = largest_difference(&golden("tiny_llama3.f32"), &logits(&hf(&llama, "F32")));
    assert!(without > 1e-2, "the scaling makes no difference: {without}");
    let qwen = TinyLlama { qkv_bias: true, tied: true, head_norms: false };
    let difference = largest_difference(&golden("tiny_qwen2.f32"), &logits(&hf(&qwen, "F32")));
    assert!(difference < 1e-5, "qwen2: {difference}");
    let qwen = TinyLlama { qkv_bias: false, tied: false, head_norms: true };
    let difference = largest_difference(&golden("tiny_qwen3.f32"), &logits(&hf(&qwen, "F32")));
    assert!(difference < 1e-5, "qwen3: {difference}");
    let from_gguf = gguf(&qwen.gguf_writer("qwen3", WeightFormat::F32)).unwrap();
    assert_eq!(from_gguf.config().rope_pairing, RopePairing::Halves);
    let difference = largest_difference(&golden("tiny_qwen3.f32"), &logits(&from_gguf));
    assert!(difference < 1e-5, "qwen3 from GGUF: {difference}");
}

/// Interleaved and half-split rotation, fused biases, tied and untied heads: one model, the same logits.
#[test]
fn gguf_and_safetensors_give_the_same_logits() {
    for (qkv_bias, tied) in [(false, true), (false, false), (true, true), (true, false)] {
        let model = TinyLlama { qkv_bias, tied, head_norms: false };
        let from_hf = logits(&hf(&model, "F32"));
        for architecture in ["llama", "qwen2"] {
            if architecture == "qwen2" && !qkv_bias {
                continue;
            }
            let from_gguf = gguf(&model.gguf_writer(architecture, WeightFormat::F32)).unwrap();
            assert_eq!(from_gguf.config().attention_bias, qkv_bias);
            assert_eq!(from_gguf.config().tie_word_embeddings, tied);
            let want = if architecture == "llama" { RopePairing::Interleaved } else { RopePairing::Halves };
            assert_eq!(from_gguf.config().rope_pairing, want);
            let difference = largest_difference(&from_hf, &logits(&from_gguf));
            assert!(difference < 1e-5, "{architecture}, bias {qkv_bias}, tied {tied}: {difference}");
        }
    }
}

#[test]
fn every_format_loads_and_stays_near_f32() {
    use WeightFormat::{Bf16, F16, Q4_0, Q4_1, Q8_0};
    let model = TinyLlama { qkv_bias: false, tied: false, head_norms: false };
    let exact = logits(&hf(&model, "F32"));
    for (format, bound) in [(F16, 0.01), (Bf16, 0.1), (Q8_0, 0.1), (Q4_0, 2.0), (Q4_1, 2.0)] {
        let difference = largest_difference(&exact, &logits(&gguf(&model.gguf_writer("llama", format)).unwrap()));
        assert!(difference < bound, "{format:?}: {difference}");
    }
    for (dtype, bound) in [("F16", 0.01), ("BF16", 0.1)] {
        let difference = largest_difference(&exact, &logits(&hf(&model, dtype)));
        assert!(difference < bound, "{dtype}: {difference}");
    }
}

/// Matrices of random blocks, in their own type and as the numbers that these stand for.
#[test]
fn repacked_formats_stay_near_what_they_stand_for() {
    let model = TinyLlama { qkv_bias: false, tied: false, head_norms: false };
    for (name, type_id) in [("q5_0", 6), ("q5_1", 7)] {
        let blocks = std::fs::read(golden_path(&format!("dequant/{name}.bin"))).unwrap();
        let values = golden(&format!("dequant/{name}.f32"));
        let (block_bytes, count) = (blocks.len() / (values.len() / 32), values.len() / 32);
        // Every row is one block; which, its first number says.
        let block = |row: &[f32]| row[0].to_bits() as usize % count;
        let stored = model.gguf_writer_with("llama", type_id, |row, data| {
            row.chunks(32).for_each(|_| data.extend(&blocks[block(row) * block_bytes..][..block_bytes]));
        });
        let exact = model.gguf_writer_with("llama", 0, |row, data| {
            row.chunks(32).for_each(|_| quantize_row(WeightFormat::F32, &values[block(row) * 32..][..32], data));
        });
        let exact = logits(&gguf(&exact).unwrap());
        let largest = exact.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let difference = largest_difference(&exact, &logits(&gguf(&stored).unwrap())) / largest;
        assert!(difference > 0.0 && difference < 0.02, "{name}: {difference} of the largest logit");
    }
}

#[test]
fn identities_tell_checkpoints_apart() {
    let model = TinyLlama { qkv_bias: false, tied: true, head_norms: false };
    let writer = || model.gguf_writer("llama", WeightFormat::F16);
    let one = gguf(&writer()).unwrap().identity();
    assert_eq!(one, gguf(&writer()).unwrap().identity());
    let mut bytes = writer().finish();
    *bytes.last_mut().unwrap() ^= 1;
    let other = Checkpoint::from_gguf(GgufFile::from_bytes(Path::new("tiny.gguf"), bytes).unwrap()).unwrap();
    assert_ne!(one, other.identity());
    assert_ne!(hf(&model, "F16").identity(), hf(&model, "BF16").identity());
}

/// A fresh folder of this test run.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("checkpoint_forms").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn paths_lead_to_checkpoints() {
    let model = TinyLlama { qkv_bias: false, tied: true, head_norms: false };
    let open = |path: &Path| Checkpoint::open(path, LoadFormat::Auto);
    let gguf_folder = folder("gguf");
    let bytes = model.gguf_writer("llama", WeightFormat::Q8_0).finish();
    std::fs::write(gguf_folder.join("a.gguf"), &bytes).unwrap();
    let by_folder = open(&gguf_folder).unwrap();
    assert_eq!(by_folder.identity(), open(&gguf_folder.join("a.gguf")).unwrap().identity());
    std::fs::write(gguf_folder.join("b.gguf"), &bytes).unwrap();
    let error = open(&gguf_folder).unwrap_err().to_string();
    assert!(error.contains("2 .gguf files"), "{error}");
    std::fs::write(gguf_folder.join("b.gguf"), &bytes[..bytes.len() - 1]).unwrap();
    let error = open(&gguf_folder.join("b.gguf")).unwrap_err().to_string();
    assert!(error.contains("truncated"), "{error}");

    let error = open(&folder("empty")).unwrap_err().to_string();
    assert!(error.contains("give a .gguf file"), "{error}");
    let error = open(Path::new("no/such/thing")).unwrap_err().to_string();
    assert!(error.contains("no such file"), "{error}");

    let hf_folder = folder("hf");
    std::fs::write(hf_folder.join("config.json"), model.hf_config().to_string()).unwrap();
    std::fs::write(hf_folder.join("generation_config.json"), r#"{"eos_token_id": [2, 5]}"#).unwrap();
    let (first, second) = (model.hf_tensors("F16"), model.hf_tensors("F16").split_off(9));
    let shards = [("model-1.safetensors", &first[..9]), ("model-2.safetensors", &second[..])];
    let mut weight_map = serde_json::Map::new();
    for (file, tensors) in shards {
        std::fs::write(hf_folder.join(file), safetensors(tensors)).unwrap();
        tensors.iter().for_each(|tensor| drop(weight_map.insert(tensor.0.clone(), file.into())));
    }
    let index = hf_folder.join("model.safetensors.index.json");
    std::fs::write(&index, serde_json::json!({ "weight_map": weight_map }).to_string()).unwrap();
    let sharded = open(&hf_folder).unwrap();
    assert_eq!(sharded.config().eos_token_ids, [2, 5]);
    assert!(largest_difference(&logits(&sharded), &logits(&hf(&model, "F16"))) == 0.0);

    std::fs::write(&index, r#"{"weight_map": {"x": "../model-1.safetensors"}}"#).unwrap();
    let error = open(&hf_folder).unwrap_err().to_string();
    assert!(error.contains("not a plain file name"), "{error}");
}

#[test]
fn dummy_weights_need_only_a_configuration() {
    let folder = folder("dummy");
    let model = TinyLlama { qkv_bias: true, tied: false, head_norms: false };
    std::fs::write(folder.join("config.json"), model.hf_config().to_string()).unwrap();
    use WeightFormat::{Bf16, F16, F32, Q4_0, Q4_1, Q8_0};
    for format in [F32, F16, Bf16, Q8_0, Q4_0, Q4_1] {
        let open = |seed| Checkpoint::open(&folder, LoadFormat::Dummy(DummyWeights { format, seed })).unwrap();
        let (one, again, other) = (logits(&open(1)), logits(&open(1)), logits(&open(2)));
        assert_eq!(one, again, "{format:?}");
        assert!(largest_difference(&one, &other) > 0.1, "{format:?}");
        assert!(one.iter().all(|x| x.abs() < 20.0), "{format:?}");
        assert_ne!(open(1).identity(), open(2).identity());
    }
    let file = Checkpoint::open(&folder.join("config.json"), LoadFormat::Dummy(DummyWeights::default())).unwrap();
    assert_eq!(file.weight_bytes(), file.tensors().iter().map(|tensor| tensor.bytes).sum::<u64>());
}
