//! The GGUF parser on a real file.
#![cfg(feature = "runtime")]

use bindery::model::gguf::GgufFile;

#[path = "support/models.rs"]
mod models;

#[test]
fn smollm2_metadata_and_tensor_table() {
    let file = GgufFile::open(&models::smollm2_gguf()).unwrap();
    let metadata = file.metadata();
    assert_eq!(metadata.string("general.architecture").unwrap(), Some("llama"));
    assert_eq!(metadata.u32("llama.block_count").unwrap(), Some(30));
    assert_eq!(metadata.f32("llama.rope.freq_base").unwrap(), Some(100_000.0));
    assert_eq!(metadata.strings("tokenizer.ggml.tokens").unwrap().unwrap().len(), 49152);
    assert_eq!(metadata.strings("tokenizer.ggml.merges").unwrap().unwrap().len(), 48900);
    assert_eq!(metadata.ints("tokenizer.ggml.token_type").unwrap().unwrap().len(), 49152);
    assert_eq!(metadata.bool("tokenizer.ggml.add_bos_token").unwrap(), Some(false));
    assert_eq!(metadata.u32("no.such.key").unwrap(), None);
    let error = metadata.u32("general.architecture").unwrap_err().to_string();
    assert!(error.contains("general.architecture") && error.contains("an integer"), "{error}");
    assert_eq!(file.tensors().len(), 272);
    let embedding = file.tensor("token_embd.weight").unwrap();
    assert_eq!((embedding.rows(), embedding.cols(), embedding.ggml_type.name), (49152, 576, "Q8_0"));
    assert_eq!(file.data(embedding).len(), 49152 * 576 / 32 * 34);
}
