//! The `bindery` command as users run it, on lavapipe.

#![cfg(all(feature = "cli", feature = "webgpu"))]

mod answers;
mod bench;
mod bench_serve;
#[path = "../support/checkpoints.rs"]
mod checkpoints;
mod devices;
#[path = "../support/models.rs"]
mod models;
mod refusals;
mod run_batch;
mod serve;
mod surroundings;

use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const DEVICE: [&str; 2] = ["--device", "llvmpipe"];
const QUESTION: &str = "What is the capital of France?";

fn bindery(args: &[&str]) -> Command {
    // It must be there for the runs that name no model.
    models::smollm2_gguf();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bindery"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("RUST_BACKTRACE", "1").args(args);
    command.env_remove("BINDERY_MODEL");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(args: &[&str]) -> Output {
    bindery(args).output().expect("the command starts")
}

fn run_with_input(args: &[&str], input: &str) -> Output {
    let mut child = bindery(args).stdin(Stdio::piped()).spawn().expect("the command starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads its input");
    child.wait_with_output().expect("it ends")
}

fn stdout_of(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}\n`cargo xtask test` installs what is missing");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// Whether commands that name no device run on a GPU: the machines that run these tests have none.
fn has_gpu() -> bool {
    let list: Vec<Value> = serde_json::from_str(&stdout_of(&run(&["devices", "--json"]))).expect("a JSON list");
    let is_gpu = |device: &Value| device["is_software"] == false && device["unusable"].is_null();
    list.iter().any(is_gpu)
}

/// A file of this test run.
fn temporary(name: &str, contents: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{}-{name}", std::process::id()));
    std::fs::write(&path, contents).expect("target/tmp is writable");
    path
}

/// Exit code 2, one line on stderr that has `word` in it, nothing on stdout.
fn assert_refused(args: &[&str], word: &str) {
    let output = run(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert!(stderr.starts_with("error: ") && stderr.trim_end().lines().count() == 1, "{args:?}: {stderr}");
    assert!(stderr.contains(word), "{args:?} does not say {word:?}: {stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("backtrace"), "{args:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{args:?} wrote to stdout");
}

/// A config.json of two small layers.
fn tiny_config(name: &str) -> PathBuf {
    let config = json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 256, "rope_theta": 10000.0, "tie_word_embeddings": false,
    });
    temporary(name, config.to_string().as_bytes())
}
