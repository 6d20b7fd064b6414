//! `bindery bench`, on made-up weights.

use super::{DEVICE, run, stdout_of, temporary, tiny_config};
use serde_json::{Value, json};
use std::path::Path;

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
    // Once in each of two layers, in three steps. Norms are folded into the products, and in decodes what writes the cache is.
    let counts = [of("attention_cpu"), of("rope_and_cache"), of("rms_norm")];
    assert_eq!(counts, [Some(&json!(6)), Some(&json!(2)), None]);
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
