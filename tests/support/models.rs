//! Where the test models are.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::PathBuf;

fn model(name: &str, fetch: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models").join(name);
    assert!(path.exists(), "models/{name} is missing: `{fetch}` puts it there");
    path
}

/// SmolLM2-135M-Instruct, GGUF.
pub fn smollm2_gguf() -> PathBuf {
    model("SmolLM2-135M-Instruct.Q4_1.gguf", "cargo xtask model")
}

/// The same weights as a Hugging Face folder, rounded to f16.
pub fn smollm2_hf() -> PathBuf {
    model("SmolLM2-135M-Instruct-hf", "cargo xtask model --hf")
}
