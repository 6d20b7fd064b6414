//! Mistakes: one line that says what to do, and exit code 2.

use super::{assert_refused, checkpoints::TinyLlama, models, temporary, tiny_config};
use bindery::backend::WeightFormat;

#[test]
fn mistakes_of_the_command_line_are_one_line_and_exit_code_2() {
    let table: &[(&[&str], &str)] = &[
        (&["nosuch"], "nosuch"),
        (&["run", "--nosuch", "hi"], "--nosuch"),
        (&["run", "--seeed", "1", "hi"], "a similar argument exists: '--seed'; `bindery help` lists commands"),
        (&["run"], "empty"),
        (&["run", ""], "empty"),
        (&["run", "--raw", ""], "empty"),
        (&["run", "two", "prompts"], "\"prompts\": one prompt"),
        (&["run", "model.gguf", "hi"], "--model"),
        (&["serve", "a.gguf", "--model", "b.gguf"], "--model"),
        (&["serve", "/nonexistent/m.gguf", "--port", "0"], "/nonexistent/m.gguf"),
        (&["chat", "/nonexistent/m.gguf"], "/nonexistent/m.gguf"),
        (&["run", "--system", "x", "--raw", "hi"], "--raw"),
        (&["run", "--chat-template", "Cargo.toml", "--raw", "hi"], "'--chat-template <FILE>'"),
        (&["run", "--chat-template-kwargs", "{}", "--raw", "hi"], "--default-chat-template-kwargs"),
        (&["run", "--temperature", "NaN", "hi"], "--temperature NaN: must be"),
        (&["run", "--temperature", "inf", "hi"], "--temperature inf: must be"),
        (&["run", "--temperature", "-1", "hi"], "--temperature -1: must be"),
        (&["run", "--temperature", "warm", "hi"], "'--temperature <T>': not a number; see `bindery run --help`"),
        (&["run", "--top-p", "0", "hi"], "--top-p 0: must be"),
        (&["run", "--top-p", "NaN", "hi"], "--top-p NaN: must be"),
        (&["run", "--top-k", "-2", "hi"], "--top-k -2: must be"),
        (&["run", "--min-p", "2", "hi"], "--min-p 2: must be"),
        (&["run", "--repetition-penalty", "0", "hi"], "--repetition-penalty 0: must be"),
        (&["run", "--max-tokens", "0", "hi"], "--max-tokens 0: must be"),
        (&["run", "--stop", "", "hi"], "--stop 0 bytes: must be"),
        (
            &["run", "--stop", "a", "--stop", "b", "--stop", "c", "--stop", "d", "--stop", "e", "hi"],
            "--stop: given 5 times; at most 4 are allowed",
        ),
        (&["run", "-n", "32", "hi"], "give a --temperature above 0 (how long an answer may be is --max-tokens)"),
        (&["run", "-n", "0", "hi"], "-n 0: must be 1 to"),
        (&["run", "--seed", "1.5", "hi"], "1.5"),
        (&["run", "--max-tokens", "-1", "hi"], "must be 0 to 4294967295"),
        (&["run", "--max-tokens", "few", "hi"], "not a whole number"),
        (&["run", "--seed", "-1", "hi"], "a whole number of at least 0"),
        (&["run", "--max-model-len", "-1", "hi"], "\"-1\" is not a number such as 4096"),
        (&["serve", "--request-timeout", "-1"], "a whole number of at least 0"),
        (&["serve", "--write-timeout", "0"], "a whole number of at least 1"),
        (&["serve", "--max-num-queued-reqs", "-1"], "a whole number of at least 0"),
        (&["serve", "--served-model-name", ""], "--served-model-name is empty"),
        (&["serve", "--allowed-origins", "not a url"], "such as https://example.com"),
        (&["serve", "--allow-credentials"], "name the allowed origins"),
        (&["serve", "--override-generation-config", "{\"temp\": 1}"], "expected one of `temperature`"),
        (
            &["serve", "--override-generation-config", "{\"temperature\": -1}"],
            "'--override-generation-config <JSON>': `temperature` is -1",
        ),
        (&["run", "--speculative-config", "{\"method\": \"eagle\"}", "hi"], "`eagle`, expected `ngram`"),
        (&["run", "--speculative-config", "ngram", "hi"], "as {\"method\": \"ngram\"}"),
        (&["serve", "--kv-events-config", "{\"endpoint\": \"foo\"}"], "endpoint \"foo\": must be like tcp://"),
        (&["serve", "--kv-events-config", "{\"endpoint\": \"ipc://foo\"}"], "must be like tcp://127.0.0.1:5557"),
        (&["serve", "--kv-events-config", "{\"replay_endpoint\": \"tcp://*\"}"], "replay_endpoint \"tcp://*\": must"),
        (&["serve", "--port", "-1"], "must be 0 to 65535; see `bindery serve --help`"),
        (&["serve", "--max-n", "0"], "a whole number of at least 1"),
        (&["serve", "--max-prompts", "0"], "a whole number of at least 1"),
        (&["serve", "--tensor-parallel-size", "2"], "one server uses one device: start one per GPU behind a router"),
        (&["serve", "--pipeline-parallel-size", "2"], "one server uses one device"),
        (&["serve", "--data-parallel-size", "0"], "one server uses one device"),
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
        (&["bench", "latency", "--num-iters", "0"], "must be 1 to 1000; see `bindery bench latency --help`"),
        (&["bench", "latency", "--input-len", "0"], "--input-len"),
        (&["bench", "latency", "--output-json", "/nonexistent/out"], "/nonexistent/out"),
        (&["bench", "throughput", "--num-prompts", "0"], "--num-prompts"),
        (&["bench", "sharing", "--lengths", "novels"], "novels"),
        (&["bench", "sharing", "--n", "1000"], "--max-num-seqs"),
        (&["bench", "serve", "--base-url", "https://example.com"], "http://"),
        (&["bench", "serve", "--request-rate", "0"], "--request-rate"),
        (&["bench", "serve", "--num-prompts", "0"], "--num-prompts"),
        (&["bench", "kernels", "--device", "llvmpipe", "--shapes", "GPT-5"], "must be one of SmolLM2-135M"),
        (&["bench", "kernels", "--device", "llvmpipe", "--kernel", "nosuch"], "nosuch"),
        (&["bench", "kernels", "--formats", "q3_0"], "q4_0"),
        (&["bench", "compare", "--a", "webgpu", "--b", "opengl"], "opengl"),
        (&["bench", "compare", "--a", "webgpu/cpu", "--b", "webgpu"], "webgpu, cuda or auto; write webgpu:/cpu"),
        (&["bench", "compare", "--a", "webgpu", "--b", "webgpu", "--device", "0"], "--device"),
        (&["bench", "compare", "--a", "webgpu", "--b", "webgpu", "--backend", "webgpu"], "name them in --a and --b"),
        (&["bench", "compare", "--a", "webgpu", "--b", "webgpu", "--batch-sizes", "0"], "--batch-sizes"),
        (&["run", "--retune", "--no-autotune", "hi"], "--no-autotune"),
        (&["run", "--quantize-activations", "--batch-invariant", "hi"], "--batch-invariant"),
        (&["chat", "-n", "2"], "-n"),
        (&["chat", "--history-file", "/nonexistent/history"], "--history-file /nonexistent/history: cannot be written"),
        (&["simulate", "--num-requests", "0"], "--num-requests 0: must be 1 to"),
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
    let tiny = TinyLlama { qkv_bias: false, tied: true, head_norms: false };
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
    for (context, says) in [(1u64, "from 2 to"), (1 << 26, "--max-model-len")] {
        let text = std::fs::read(tiny_config("long-config.json")).expect("just written");
        let mut config: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        (config["max_position_embeddings"], config["head_dim"]) = (context.into(), 1024.into());
        let path = temporary("long-config.json", config.to_string().as_bytes());
        let model = path.to_str().expect("UTF-8");
        assert_refused(&["bench", "latency", "--load-format", "dummy", "--device", "llvmpipe", "-m", model], says);
    }
    let prompt = temporary("prompt.gguf", b"");
    assert_refused(&["run", prompt.to_str().expect("UTF-8")], "name it with --model");
    assert_refused(&["run", "--model", "src", "hi"], "src");
    for args in [&["--model", "models/SmolLM2-135M-Instruct.Q4_1.gguf"][..], &[]] {
        let dummy = ["bench", "latency", "--load-format", "dummy"];
        assert_refused(&[&dummy, args].concat(), "--load-format dummy needs a config.json: give its folder");
    }
    assert_refused(&["run", "--tokenizer", "/nonexistent", "--device", "llvmpipe", "hi"], "/nonexistent");
    assert_refused(&["serve", "--chat-template", "/nonexistent", "--device", "llvmpipe"], "/nonexistent");
    let taken = ["--default-chat-template-kwargs", r#"{"messages": []}"#];
    assert_refused(&[&["serve", "--device", "llvmpipe"], &taken[..]].concat(), "`messages`: templates get it");
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
        (
            &["--device", "llvmpipe", "--max-model-len", "256", &long],
            "256 tokens: shorten it, or raise --max-model-len",
        ),
        (&["--device", "llvmpipe", "--num-gpu-blocks-override", "1", "hi"], "or raise --num-gpu-blocks-override"),
        (&["--device", "llvmpipe", "--kv-cache-memory-bytes", "1M", "hi"], "or raise --kv-cache-memory-bytes"),
        (&["--device", "llvmpipe", "--num-gpu-blocks-override", "0", "hi"], "--num-gpu-blocks-override"),
        (&["--device", "llvmpipe", "--num-gpu-blocks-override", "4G", "hi"], "--num-gpu-blocks-override"),
        (
            &["--device", "llvmpipe", "--kv-cache-memory-bytes", "1k", "hi"],
            "KV pool: one block takes 368640 bytes; raise --kv",
        ),
        (&["--device", "llvmpipe", "--gpu-memory-utilization", "NaN", "hi"], "--gpu-memory-utilization"),
        (&["--device", "llvmpipe", "--max-num-seqs", "0", "hi"], "--max-num-seqs"),
        (&["--device", "llvmpipe", "--max-num-seqs", "65535", "hi"], "--max-num-seqs"),
        (&["--device", "llvmpipe", "--max-num-batched-tokens", "65535", "hi"], "--max-num-batched-tokens"),
        (
            &[
                "--device",
                "llvmpipe",
                "--speculative-config",
                "{\"method\": \"ngram\", \"num_speculative_tokens\": 99}",
                "hi",
            ],
            "num_speculative_tokens 99: must be 1 to 15",
        ),
        (&["--device", "llvmpipe", "--chat-template", "/nonexistent", "hi"], "/nonexistent"),
        (&["--device", "llvmpipe", "--top-k", "999999", "hi"], "--top-k 999999: must be"),
    ];
    for (args, word) in table {
        assert_refused(&[&["run"], *args].concat(), word);
    }
    assert_refused(&["bench", "latency", "--device", "llvmpipe", "--input-len", "9000"], "9000");
    let cpu = ["run", "--device", "llvmpipe", "--quantize-activations", "hi"];
    assert_refused(&cpu, "--variant subgroup");
    let perplexity = ["bench", "perplexity", "--text", "Cargo.toml", "--quantize-activations"];
    assert_refused(&perplexity, "--max-num-batched-tokens");
    let no_overlap = ["bench", "perplexity", "--text", "Cargo.toml", "--window", "64", "--stride", "64"];
    assert_refused(&no_overlap, "less than the window");
}
