//! The `bindery` command as users run it, on lavapipe.

#![cfg(all(feature = "cli", feature = "webgpu"))]

#[path = "support/checkpoints.rs"]
mod checkpoints;
#[path = "support/models.rs"]
mod models;

use bindery::backend::WeightFormat;
use checkpoints::TinyLlama;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const DEVICE: [&str; 2] = ["--device", "llvmpipe"];
const QUESTION: &str = "What is the capital of France?";

fn bindery(args: &[&str]) -> Command {
    // It must be there for the runs that name no model.
    models::smollm2_gguf();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bindery"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("RUST_BACKTRACE", "1").args(args);
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

#[test]
fn mistakes_of_the_command_line_are_one_line_and_exit_code_2() {
    let table: &[(&[&str], &str)] = &[
        (&["nosuch"], "nosuch"),
        (&["run", "--nosuch", "hi"], "--nosuch"),
        (&["run", "--seeed", "1", "hi"], "a similar argument exists: '--seed'"),
        (&["run"], "empty"),
        (&["run", ""], "empty"),
        (&["run", "--raw", ""], "empty"),
        (&["run", "two", "prompts"], "prompts"),
        (&["run", "--system", "x", "--raw", "hi"], "--raw"),
        (&["run", "--temperature", "NaN", "hi"], "temperature"),
        (&["run", "--temperature", "inf", "hi"], "temperature"),
        (&["run", "--temperature", "-1", "hi"], "temperature"),
        (&["run", "--temperature", "warm", "hi"], "warm"),
        (&["run", "--top-p", "0", "hi"], "top_p"),
        (&["run", "--top-p", "NaN", "hi"], "top_p"),
        (&["run", "--top-k", "-2", "hi"], "top_k"),
        (&["run", "--min-p", "2", "hi"], "min_p"),
        (&["run", "--repetition-penalty", "0", "hi"], "repetition_penalty"),
        (&["run", "--max-tokens", "0", "hi"], "max_tokens"),
        (&["run", "--stop", "", "hi"], "stop"),
        (&["run", "-n", "2", "hi"], "temperature 0"),
        (&["run", "-n", "0", "hi"], "n"),
        (&["run", "--seed", "1.5", "hi"], "1.5"),
        (&["run", "--variant", "fast", "hi"], "fast"),
        (&["run", "--block-size", "32", "hi"], "16"),
        (&["run", "--kv-cache-dtype", "fp8", "hi"], "fp8"),
        (&["run", "--dtype", "int3", "hi"], "int3"),
        (&["run", "--load-format", "onnx", "hi"], "onnx"),
        (&["run", "--scheduling-policy", "luck", "hi"], "luck"),
        (&["run", "--kv-cache-memory-bytes", "lots", "hi"], "lots"),
        (&["run", "--max-num-batched-tokens", "99G", "hi"], "99G"),
        (&["run-batch", "-i", "/nonexistent/in", "-o", "/nonexistent/out"], "/nonexistent/in"),
        (&["run-batch", "-i", "Cargo.toml", "-o", "/nonexistent/out"], "/nonexistent/out"),
        (&["run-batch"], "--input-file"),
        (&["selftest", "--device", "nosuch"], "nosuch"),
        (&["selftest", "--device", "llvmpipe", "--kernel", "nosuch"], "nosuch"),
        (&["bench", "latency", "--batch-size", "0"], "--batch-size"),
        (&["bench", "latency", "--batch-size", "65"], "--max-num-seqs"),
        (&["bench", "latency", "--num-iters", "0"], "--num-iters"),
        (&["bench", "latency", "--input-len", "0"], "--input-len"),
        (&["bench", "latency", "--output-json", "/nonexistent/out"], "/nonexistent/out"),
        (&["bench", "throughput", "--num-prompts", "0"], "--num-prompts"),
        (&["bench", "sharing", "--lengths", "novels"], "novels"),
        (&["bench", "sharing", "--n", "1000"], "--max-num-seqs"),
        (&["bench", "serve", "--base-url", "https://example.com"], "http://"),
        (&["bench", "serve", "--request-rate", "0"], "--request-rate"),
        (&["bench", "serve", "--num-prompts", "0"], "--num-prompts"),
        (&["bench", "kernels", "--shapes", "GPT-5"], "SmolLM2-135M"),
        (&["bench", "kernels", "--device", "llvmpipe", "--kernel", "nosuch"], "nosuch"),
        (&["bench", "kernels", "--formats", "q3_0"], "q4_0"),
        (&["bench", "compare", "--a", "webgpu", "--b", "opengl"], "opengl"),
        (&["bench", "compare", "--a", "webgpu", "--b", "webgpu", "--device", "0"], "--device"),
        (&["bench", "compare", "--a", "webgpu", "--b", "webgpu", "--batch-sizes", "0"], "--batch-sizes"),
        (&["run", "--retune", "--no-autotune", "hi"], "--no-autotune"),
        (&["run", "--quantize-activations", "--batch-invariant", "hi"], "--batch-invariant"),
        (&["chat", "-n", "2", "--temperature", "1"], "-n"),
        (&["run", "--swap-space", "lots", "hi"], "lots"),
        (&["run", "--preemption-mode", "hope", "hi"], "hope"),
        (&["run", "--load-format", "dummy:q9", "hi"], "dummy:q9"),
        (&["run", "--backend", "vulkan", "hi"], "webgpu, cuda or auto"),
    ];
    for (args, word) in table {
        assert_refused(args, word);
    }
}

#[test]
fn models_that_cannot_be_used_are_one_line_and_exit_code_2() {
    let model = std::fs::read(models::smollm2_gguf()).expect("it is readable");
    let mut scrambled = model[..4 << 20].to_vec();
    scrambled[24..4096].reverse();
    let tiny = TinyLlama { qkv_bias: false, tied: true };
    let files: [(&str, Vec<u8>, &str); 6] = [
        ("empty.gguf", Vec::new(), "damaged"),
        ("other.gguf", b"PK\x03\x04 something else".to_vec(), "GGUF"),
        ("header.gguf", model[..1000].to_vec(), "damaged"),
        ("truncated.gguf", model[..model.len() - 1000].to_vec(), "damaged"),
        ("scrambled.gguf", scrambled, "damaged"),
        ("unknown.gguf", tiny.gguf_writer("mamba", WeightFormat::F32).finish(), "mamba"),
    ];
    for (name, contents, word) in files {
        let path = temporary(name, &contents);
        assert_refused(&["run", "--model", path.to_str().expect("UTF-8"), "hi"], word);
    }
    assert_refused(&["run", "--model", "/nonexistent/model.gguf", "hi"], "/nonexistent/model.gguf");
    assert_refused(&["run", "--model", "src", "hi"], "src");
    assert_refused(&["run", "--load-format", "dummy", "hi"], "SmolLM2");
    assert_refused(&["run", "--tokenizer", "/nonexistent", "--device", "llvmpipe", "hi"], "/nonexistent");
}

#[test]
fn what_device_or_model_cannot_do_is_one_line_and_exit_code_2() {
    let long = "long ".repeat(300);
    let table: &[(&[&str], &str)] = &[
        (&["--device", "nosuch", "hi"], "nosuch"),
        (&["--device", "", "hi"], "llvmpipe"),
        (&["--device", "99", "hi"], "99"),
        (&["--device", "SwiftShader", "--variant", "subgroup", "hi"], "subgroup"),
        (&["--device", "llvmpipe", "--max-model-len", "1", "hi"], "--max-model-len"),
        (&["--device", "llvmpipe", "--max-model-len", "99999999", "hi"], "8192"),
        (&["--device", "llvmpipe", "--max-model-len", "256", &long], "256"),
        (&["--device", "llvmpipe", "--num-gpu-blocks-override", "1", "hi"], "KV blocks"),
        (&["--device", "llvmpipe", "--num-gpu-blocks-override", "0", "hi"], "--num-gpu-blocks-override"),
        (&["--device", "llvmpipe", "--num-gpu-blocks-override", "4G", "hi"], "--num-gpu-blocks-override"),
        (&["--device", "llvmpipe", "--kv-cache-memory-bytes", "1k", "hi"], "KV pool"),
        (&["--device", "llvmpipe", "--gpu-memory-utilization", "NaN", "hi"], "--gpu-memory-utilization"),
        (&["--device", "llvmpipe", "--max-num-seqs", "0", "hi"], "--max-num-seqs"),
        (&["--device", "llvmpipe", "--max-num-seqs", "65535", "hi"], "--max-num-seqs"),
        (&["--device", "llvmpipe", "--max-num-batched-tokens", "65535", "hi"], "--max-num-batched-tokens"),
        (&["--device", "llvmpipe", "--chat-template", "/nonexistent", "hi"], "/nonexistent"),
    ];
    for (args, word) in table {
        assert_refused(&[&["run"], *args].concat(), word);
    }
    assert_refused(&["bench", "latency", "--device", "llvmpipe", "--input-len", "9000"], "9000");
    let cpu = ["run", "--device", "llvmpipe", "--quantize-activations", "hi"];
    assert_refused(&cpu, "--variant subgroup");
    let perplexity = ["bench", "perplexity", "--text", "Cargo.toml", "--quantize-activations"];
    assert_refused(&perplexity, "--max-num-batched-tokens");
}

#[test]
fn help_teaches() {
    for command in ["run", "run-batch", "devices", "selftest", "bench"] {
        let help = stdout_of(&run(&[command, "--help"]));
        assert!(help.contains("Examples:") && help.contains(&format!("bindery {command}")), "{help}");
    }
    assert!(stdout_of(&run(&["--version"])).starts_with("bindery "));
}

#[test]
fn run_answers_on_stdout_and_says_nothing_else() {
    let output = run(&[&["run"], &DEVICE[..], &[QUESTION]].concat());
    assert_eq!(stdout_of(&output), "The capital of France is Paris.\n");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let verbose =
        run_with_input(&[&["run", "--verbose", "--stop", " is"], &DEVICE[..]].concat(), &format!("{QUESTION}\n"));
    assert_eq!(stdout_of(&verbose), "The capital of France\n");
    let stderr = String::from_utf8_lossy(&verbose.stderr);
    assert!(["llvmpipe", "KV pool", "TTFT", "\" is\""].iter().all(|word| stderr.contains(word)), "{stderr}");
}

#[test]
fn several_completions_have_headers() {
    let args =
        ["run", "--raw", "--temperature", "1", "-n", "2", "--max-tokens", "4", "--dtype", "float16", "The sky is"];
    let text = stdout_of(&run(&[&args[..], &DEVICE[..]].concat()));
    assert!(text.starts_with("--- completion 0 ---\n") && text.contains("\n--- completion 1 ---\n"), "{text}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_answer() {
    let args = ["run", "--raw", "--ignore-eos", "--max-tokens", "4000", "Once upon a time"];
    let mut child = bindery(&[&args[..], &DEVICE[..]].concat()).spawn().expect("the command starts");
    child.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("the answer begins");
    let kill = Command::new("sh").arg("-c").arg(format!("kill -INT {}", child.id())).status().expect("sh is there");
    assert!(kill.success());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    assert!(output.stdout.ends_with(b"\n") && output.stderr.is_empty());
}

fn completion(id: &str, body: Value) -> Value {
    json!({"custom_id": id, "method": "POST", "url": "/v1/completions", "body": body})
}

fn chat(id: &str, body: Value) -> Value {
    json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body})
}

#[test]
fn run_batch_answers_every_line_in_order() {
    let story = json!([{"role": "user", "content": "Tell me a story."}]);
    let lines = [
        chat("paris", json!({"messages": [{"role": "user", "content": QUESTION}], "temperature": 0})).to_string(),
        "{\"custom_id\": \"broken\", ".into(),
        completion(
            "two",
            json!({"prompt": ["The sky is", "One two"], "temperature": 0, "max_tokens": 3, "echo": true,
                                 "logprobs": 2, "return_token_ids": true}),
        )
        .to_string(),
        completion("long", json!({"prompt": "word ".repeat(600)})).to_string(),
        String::new(),
        completion(
            "ids",
            json!({"prompt": [504, 6376, 314], "temperature": 0, "max_tokens": 3, "ignore_eos": true,
                                 "return_token_ids": true}),
        )
        .to_string(),
        completion("hot", json!({"prompt": "x", "temperature": -1})).to_string(),
        chat(
            "story",
            json!({"messages": story, "temperature": 0, "max_completion_tokens": 24, "logprobs": true,
                             "top_logprobs": 3}),
        )
        .to_string(),
        completion("forks", json!({"prompt": "The sky is", "n": 2, "seed": 5, "max_tokens": 5, "stop": "."}))
            .to_string(),
        json!({"custom_id": "url", "url": "/v1/embeddings", "body": {}}).to_string(),
    ];
    let input = temporary("in.jsonl", lines.join("\n").as_bytes());
    let output = temporary("out.jsonl", b"");
    let paths = ["-i", input.to_str().expect("UTF-8"), "-o", output.to_str().expect("UTF-8")];
    let output_of_run = run(&[&["run-batch", "--max-model-len", "512"], &paths[..], &DEVICE[..]].concat());
    assert_eq!(stdout_of(&output_of_run), "");
    let text = std::fs::read_to_string(&output).expect("it was written");
    let answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let ids: Vec<&str> = answers.iter().map(|answer| answer["custom_id"].as_str().unwrap_or("none")).collect();
    assert_eq!(ids, ["paris", "none", "two", "long", "ids", "hot", "story", "forks", "url"]);
    let of = |id: &str| {
        let answer = answers.iter().find(|answer| answer["custom_id"] == id).expect("it is there");
        assert_eq!((&answer["response"]["status_code"], &answer["error"]), (&json!(200), &Value::Null), "{answer}");
        &answer["response"]["body"]
    };

    for (index, param, code) in
        [(1, Value::Null, 400), (3, Value::Null, 400), (5, json!("temperature"), 400), (8, Value::Null, 404)]
    {
        let (error, response) = (&answers[index]["error"], &answers[index]["response"]);
        assert_eq!((&error["param"], &error["code"]), (&param, &json!(code)), "{error}");
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()) && error["type"].is_string());
        assert_eq!((&response["status_code"], &response["body"]), (&json!(code), &Value::Null));
    }

    let paris = of("paris");
    assert_eq!(paris["choices"][0]["message"]["content"], "The capital of France is Paris.");
    assert_eq!(paris["choices"][0]["finish_reason"], "stop");
    assert_eq!(paris["usage"]["total_tokens"], 45);
    assert_eq!(paris["kv"]["blocks_allocated"], 3);

    let two = of("two");
    assert_eq!(two["choices"].as_array().map(Vec::len), Some(2));
    let sky = &two["choices"][0];
    assert!(sky["text"].as_str().is_some_and(|text| text.starts_with("The sky is ")));
    let logprobs = &sky["logprobs"];
    assert_eq!(logprobs["tokens"].as_array().map(Vec::len), Some(6));
    assert_eq!((&logprobs["token_logprobs"][0], &logprobs["text_offset"][1]), (&Value::Null, &json!(3)));
    assert_eq!(sky["prompt_token_ids"], json!([504, 6376, 314]));
    assert_eq!(sky["token_ids"], of("ids")["choices"][0]["token_ids"]);

    let story_text = of("story")["choices"][0]["message"]["content"].as_str().expect("text").to_owned();
    assert_eq!(of("story")["choices"][0]["logprobs"]["content"][0]["top_logprobs"].as_array().map(Vec::len), Some(3));
    let streamed = run(&[&["run", "--max-tokens", "24", "Tell me a story."], &DEVICE[..]].concat());
    assert_eq!(stdout_of(&streamed).trim_end(), story_text.trim_end(), "streamed text equals the batch's");

    let forks = of("forks");
    assert_eq!(forks["choices"].as_array().map(Vec::len), Some(2));
    assert_eq!(forks["kv"]["blocks_shared"], 1);
}

#[test]
fn run_batch_reads_stdin_and_writes_stdout() {
    let line = completion("a", json!({"prompt": "The sky is", "temperature": 0, "max_tokens": 1})).to_string();
    let text = stdout_of(&run_with_input(&[&["run-batch", "-i", "-", "-o", "-"], &DEVICE[..]].concat(), &line));
    let answer: Value = serde_json::from_str(&text).expect("one line of JSON");
    assert_eq!(answer["response"]["body"]["usage"]["completion_tokens"], 1);
}

#[test]
fn devices_lists_the_test_adapter() {
    let table = stdout_of(&run(&["devices"]));
    assert!(table.starts_with("index") && table.contains("llvmpipe"), "{table}");
    let list: Vec<Value> = serde_json::from_str(&stdout_of(&run(&["devices", "--json"]))).expect("a JSON list");
    let found = list.iter().find(|a| a["name"].as_str().is_some_and(|name| name.contains("llvmpipe"))).expect("listed");
    assert_eq!((&found["variants"][0], &found["unusable"]), (&json!("cpu"), &Value::Null));
}

#[test]
fn cuda_is_listed_or_one_line_says_why_not() {
    let table = stdout_of(&run(&["devices"]));
    let line = table.lines().find(|line| line.starts_with("CUDA")).expect("a line about CUDA");
    let list: Vec<Value> = serde_json::from_str(&stdout_of(&run(&["devices", "--json"]))).expect("a JSON list");
    if list.iter().any(|device| device["backend"] == "cuda") {
        assert!(line.contains("NVRTC"), "{line}");
        return;
    }
    // As on the machines that run these tests: the binary works, and says what is missing.
    let (missing, refusal) = match cfg!(feature = "cuda") {
        true => ("no CUDA driver found", "no CUDA driver found"),
        false => ("not built in", "built without --backend cuda"),
    };
    assert!(line.contains(missing), "{line}");
    assert_refused(&["selftest", "--backend", "cuda"], refusal);
    assert_refused(&["run", "--backend", "cuda", "hi"], refusal);
    let output = run(&["selftest", "--backend", "auto", "--device", "llvmpipe", "--kernel", "silu_mul"]);
    assert!(stdout_of(&output).starts_with("llvmpipe"), "auto takes WebGPU then");
}

#[test]
fn selftest_passes_on_the_test_adapter() {
    let table = stdout_of(&run(&["selftest", "--device", "llvmpipe"]));
    assert!(table.contains("paged_attention") && table.contains("ok") && !table.contains("FAILED"), "{table}");
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

#[test]
fn bench_runs_on_made_up_weights() {
    let config = tiny_config("config.json");
    let json_path = temporary("bench.json", b"");
    let model = ["--load-format", "dummy", "--model", config.to_str().expect("UTF-8"), "--num-iters", "2"];
    let out = ["--output-json", json_path.to_str().expect("UTF-8")];
    let latency = ["bench", "latency", "--batch-size", "3", "--input-len", "20", "--output-len", "4"];
    let text = stdout_of(&run(&[&latency[..], &model[..], &out[..], &DEVICE[..]].concat()));
    assert!(
        ["prefill", "decode", "TTFT", "KV blocks", "roofline, prefill", "roofline, decode"]
            .iter()
            .all(|row| text.contains(row)),
        "{text}"
    );
    let read = || serde_json::from_str::<Value>(&std::fs::read_to_string(&json_path).expect("written")).expect("JSON");
    let json = read();
    assert_eq!((&json["settings"]["batch_size"], &json["kv_blocks_peak"]), (&json!(3), &json!(6)));
    assert_eq!(json["iterations"][1]["ttfts"].as_array().map(Vec::len), Some(3));
    assert_eq!(json["iterations"][1]["itls"].as_array().map(Vec::len), Some(9));
    assert!(json["median_itl_ms"].as_f64().is_some_and(|ms| ms > 0.0));

    let throughput = ["bench", "throughput", "--num-prompts", "5", "--input-len", "20", "--output-len", "4"];
    let few = ["--max-num-seqs", "2"];
    let text = stdout_of(&run(&[&throughput[..], &model[..], &out[..], &few[..], &DEVICE[..]].concat()));
    assert!(text.contains("completion tokens"), "{text}");
    assert_eq!(read()["total_num_tokens"], 120);
}

#[test]
fn activations_in_int8_need_quantised_weights() {
    let config = tiny_config("int8_config.json");
    let run_with = |format: &str| {
        let model = ["--model", config.to_str().expect("UTF-8"), "--load-format", format];
        let latency = ["bench", "latency", "--batch-size", "1", "--input-len", "4", "--output-len", "2"];
        let flags = ["--num-iters", "1", "--device", "llvmpipe", "--variant", "plain", "--quantize-activations"];
        run(&[&latency[..], &model[..], &flags[..]].concat())
    };
    assert!(stdout_of(&run_with("dummy:q4_0")).contains("decode"));
    let output = run_with("dummy");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("f16") && error.contains("q4_0"), "{error}");
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("written")).expect("JSON")
}

#[test]
fn a_profile_accounts_for_every_dispatch() {
    let (config, json_path) = (tiny_config("profile-config.json"), temporary("profile.json", b""));
    let args = [
        "bench",
        "latency",
        "--load-format",
        "dummy",
        "--model",
        config.to_str().expect("UTF-8"),
        "--num-iters",
        "1",
        "--input-len",
        "8",
        "--output-len",
        "3",
        "--profile",
        "--output-json",
        json_path.to_str().expect("UTF-8"),
    ];
    let text = stdout_of(&run(&[&args[..], &DEVICE[..]].concat()));
    assert!(text.contains("profile of 3 steps: device timestamps"), "{text}");
    let profile = &json_of(&json_path)["profile"];
    assert_eq!(profile["steps"], 3);
    let kernels = profile["kernels"].as_array().expect("a list");
    let sum = |field: &str| kernels.iter().map(|kernel| kernel[field].as_f64().expect("a number")).sum::<f64>();
    assert_eq!(sum("dispatches"), profile["dispatches"].as_f64().expect("a number"));
    let (device_s, whole_s) = (profile["device_seconds"].as_f64(), json_of(&json_path)["median_elapsed_s"].as_f64());
    assert!(kernels.iter().all(|kernel| kernel["seconds"].as_f64().is_some_and(|s| s > 0.0)), "{profile}");
    assert!(device_s < whole_s && (sum("seconds") - device_s.expect("a number")).abs() < 1e-9, "{profile}");
    let of = |name: &str| kernels.iter().find(|kernel| kernel["kernel"] == name).map(|kernel| &kernel["dispatches"]);
    // Once in each of two layers, in three steps; norms are folded into the products.
    assert_eq!((of("rope_and_cache"), of("rms_norm")), (Some(&json!(6)), None));
}

#[test]
fn kernels_are_measured_against_the_device_at_its_best() {
    let json_path = temporary("kernels.json", b"");
    let args = ["bench", "kernels", "--kernel", "rms_norm", "--rows", "1,8", "--num-runs", "3", "--output-json"];
    let text = stdout_of(&run(&[&args[..], &[json_path.to_str().expect("UTF-8")], &DEVICE[..]].concat()));
    assert!(text.contains("left out: shapes of Qwen3-0.6B"), "{text}");
    let json = json_of(&json_path);
    assert!(json["copy_bandwidth_bytes_per_s"].as_f64() > Some(0.0) && json["fma_flops_per_s"].as_f64() > Some(0.0));
    let rows = json["rows"].as_array().expect("a list");
    assert_eq!(rows.iter().map(|row| row["step"].as_str().expect("text")).collect::<Vec<_>>(), ["1", "8"]);
    for row in rows {
        assert_eq!((&row["kernels"], &row["variant"]), (&json!(["rms_norm"]), &json!("cpu")));
        assert!(row["is_device_time"] == true && row["median_s"].as_f64() > Some(0.0), "{row}");
    }
}

#[test]
fn two_variants_are_compared_in_turns() {
    let config = tiny_config("compare-config.json");
    let (json_path, page_path) = (temporary("compare.json", b""), temporary("compare.html", b""));
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (config, json_arg, page_arg) = (path(&config), path(&json_path), path(&page_path));
    let args = [
        "bench",
        "compare",
        "--a",
        "webgpu:llvmpipe/cpu",
        "--b",
        "webgpu:llvmpipe/plain",
        "--load-format",
        "dummy",
        "--model",
        &config,
        "--kernel",
        "qkv",
        "--batch-sizes",
        "1,3",
        "--input-len",
        "16",
        "--output-len",
        "3",
        "--num-iters",
        "2",
        "--output-json",
        &json_arg,
        "--output-html",
        &page_arg,
    ];
    let text = stdout_of(&run(&args));
    assert!(text.contains("cpu kernels") && text.contains("plain kernels"), "{text}");
    let json = json_of(&json_path);
    let kernels = json["kernels"].as_array().expect("a list");
    assert_eq!(kernels[0]["kernels"], json!(["matmul_cpu", "matvec"]));
    let cases = json["end_to_end"].as_array().expect("a list");
    assert_eq!(cases.len(), 4, "prefill, two decodes, mixed");
    for comparison in kernels.iter().chain(cases) {
        let runs = |which: &str| comparison[which].as_array().map(Vec::len);
        assert_eq!((runs("runs_a"), runs("runs_b")), (Some(2), Some(2)), "{comparison}");
        assert!(comparison["speed_of_b"].as_f64() > Some(0.0), "{comparison}");
    }
    let page = std::fs::read_to_string(&page_path).expect("written");
    assert!(page.contains("<svg") && page.contains("decode, 3 sequences"));
}

#[test]
fn what_was_measured_is_kept_and_what_is_broken_is_not_used() {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{}-cache", std::process::id()));
    let config = tiny_config("tune-config.json");
    let bindery_with_cache = |args: &[&str]| {
        let output = bindery(args).env("XDG_CACHE_HOME", &cache).output().expect("the command starts");
        (stdout_of(&output), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let small = ["--input-len", "4", "--output-len", "2", "--num-iters", "1", "--variant", "plain"];
    let model = ["bench", "latency", "--load-format", "dummy", "--model", config.to_str().expect("UTF-8")];
    let bench = [&model[..], &small[..], &DEVICE[..]].concat();
    // A software adapter is only measured when asked.
    let (_, said) = bindery_with_cache(&bench);
    assert!(!said.contains("measured") && !cache.join("bindery").exists(), "{said}");
    let (_, said) = bindery_with_cache(&[&bench[..], &["--retune"]].concat());
    assert!(said.contains("plain kernels") && said.contains("measured in"), "{said}");
    let list = |json: &str| serde_json::from_str::<Value>(json).expect("JSON");
    let (devices, _) = bindery_with_cache(&["devices", "--json"]);
    let devices = list(&devices);
    let tuned = devices.as_array().expect("a list").iter().find(|d| d["tunings"] != json!([])).expect("llvmpipe");
    assert_eq!(tuned["tunings"][0]["variant"], "plain");
    // How many more candidates there is time for depends on the machine.
    assert_eq!(tuned["tunings"][0]["trials"][0]["knob"], "variant");
    let (text, _) = bindery_with_cache(&["devices"]);
    assert!(text.contains("heads 4/2x16"), "{text}");

    let folder = cache.join("bindery").join("tuning");
    let file = std::fs::read_dir(&folder).expect("it is there").next().expect("a file").expect("readable").path();
    std::fs::write(&file, "{ not JSON").expect("writable");
    let (_, said) = bindery_with_cache(&bench);
    assert!(said.starts_with("warning: ") && said.contains("is not used"), "{said}");
    std::fs::remove_dir_all(&cache).expect("it was made here");
}

#[test]
fn a_conversation_is_remembered_and_its_commands_obeyed() {
    let saved = temporary("chat.json", b"");
    let input = format!(
        "My name is\\\nAda.\n/stats\n/undo\n/nosuch\n/set temperature hot\n{QUESTION}\n/save {}\n/quit\nnever read\n",
        saved.display()
    );
    let output =
        run_with_input(&[&["chat", "--max-tokens", "12", "--max-model-len", "256"], &DEVICE[..]].concat(), &input);
    let answers = stdout_of(&output);
    assert!(answers.contains("The capital of France is Paris."), "{answers}");
    let said = String::from_utf8_lossy(&output.stderr);
    for word in ["completion tokens", "/nosuch: there is no such command", "\"hot\" is no number", "2 messages in"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let messages: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(&saved).expect("saved")).expect("JSON");
    assert_eq!(messages.iter().map(|m| m["role"].as_str().expect("a role")).collect::<Vec<_>>(), ["user", "assistant"]);
    assert_eq!(messages[0]["content"], QUESTION);
}
