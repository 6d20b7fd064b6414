//! `bindery devices` and `bindery selftest`, and what was measured on a device.

use super::{DEVICE, assert_refused, bindery, run, stdout_of, tiny_config};
use serde_json::{Value, json};
use std::path::Path;

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
    for row in table.lines().skip(2) {
        let cells: Vec<&str> = row.split_whitespace().collect();
        let number = |cell: &str| cell.parse::<f64>().expect("a number");
        let share = 100.0 * number(cells[2]) / number(cells[3]).max(f64::MIN_POSITIVE);
        // Both are shown with two digits.
        assert!((share - number(cells[4])).abs() <= 0.1 * share + 0.5, "{row}");
    }
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
