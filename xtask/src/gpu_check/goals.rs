//! What is aimed for on a GPU of a data centre, and what came of it.

use std::fmt;

use serde_json::Value;

/// A ratio that should be reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Goal {
    name: &'static str,
    at_least: f64,
    /// `None` where a stage that it needs left no figure.
    measured: Option<f64>,
}

impl fmt::Display for Goal {
    /// A row of a table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, at_least, measured } = self;
        match measured {
            None => write!(f, "| {name} | {at_least:.2} | | not measured |"),
            Some(value) => {
                write!(
                    f,
                    "| {name} | {at_least:.2} | {value:.2} | {} |",
                    if value >= at_least { "met" } else { "missed" }
                )
            }
        }
    }
}

/// All goals; `figures` gives what a stage wrote.
pub fn goals<'a>(figures: &impl Fn(&str) -> Option<&'a Value>) -> Vec<Goal> {
    let number = |stage: &str, key: &str| figures(stage)?[key].as_f64();
    let ratio = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
    let decode = |shape: &str, backend: &str| number(&format!("latency-{shape}-f16-{backend}"), "decode_tokens_per_s");
    let torch_decode = ["decode_batch1_tokens_per_s", "decode_batch1_cuda_graph_tokens_per_s"]
        .iter()
        .filter_map(|key| number("torch-llama-8b", key))
        .reduce(f64::max);
    let kernel = |op: &str, what: &str, step: &str, key: &str| {
        let rows = figures("kernels-cuda")?["rows"].as_array()?;
        let is_it = |row: &&Value| {
            let begins = row["what"].as_str().is_some_and(|text| text.starts_with(what) && text.contains("f16"));
            row["model"] == "Llama-3.1-8B" && row["op"] == op && row["step"] == step && begins
        };
        rows.iter().find(is_it)?[key].as_f64()
    };
    let torch_matmul = figures("torch-llama-8b").and_then(|json| json["matmul_512_rows"]["gate_up"]["tflops"].as_f64());
    let goal = |name, at_least, measured| Goal { name, at_least, measured };
    vec![
        goal(
            "8B f16 decode of one sequence on CUDA, share of copy bandwidth",
            0.75,
            number("latency-llama-8b-f16-cuda", "decode_share_of_copy_bandwidth"),
        ),
        goal(
            "the same against PyTorch's bf16, by a CUDA graph or not",
            1.0,
            ratio(decode("llama-8b", "cuda"), torch_decode),
        ),
        goal(
            "attention of 64 decodes of 4,096 tokens on CUDA, share of copy bandwidth",
            0.80,
            kernel("decode", "", "64 x 4096", "share_of_copy_bandwidth"),
        ),
        goal(
            "product of 512 rows (8B, gate and up, f16) on CUDA against torch's bf16",
            0.60,
            ratio(kernel("matmul", "gate and up", "512", "flops_per_s"), torch_matmul.map(|tflops| tflops * 1e12)),
        ),
        goal(
            "1B f16 decode, Vulkan against CUDA",
            0.70,
            ratio(decode("llama-1b", "vulkan"), decode("llama-1b", "cuda")),
        ),
        goal(
            "8B f16 decode, Vulkan against CUDA",
            0.70,
            ratio(decode("llama-8b", "vulkan"), decode("llama-8b", "cuda")),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn goals_are_met_missed_or_not_measured() {
        let of_kernel = |op: &str, what: &str, step: &str| {
            json!({"model": "Llama-3.1-8B", "op": op, "what": what, "step": step, "flops_per_s": 3e14,
                "share_of_copy_bandwidth": 0.5})
        };
        let kernels = json!({"rows": [
            of_kernel("decode", "32/8x128 f16 KV", "1 x 4096"),
            of_kernel("decode", "32/8x128 f16 KV", "64 x 4096"),
            of_kernel("matmul", "gate and up 28672x4096 f16", "512"),
        ]});
        let torch = json!({"decode_batch1_tokens_per_s": 80.0, "decode_batch1_cuda_graph_tokens_per_s": 125.0,
            "matmul_512_rows": {"gate_up": {"tflops": 400.0}}});
        let cuda = json!({"decode_tokens_per_s": 150.0, "decode_share_of_copy_bandwidth": 0.8});
        let figures = |stage: &str| match stage {
            "kernels-cuda" => Some(&kernels),
            "torch-llama-8b" => Some(&torch),
            "latency-llama-8b-f16-cuda" => Some(&cuda),
            _ => None,
        };
        let measured: Vec<Option<f64>> = goals(&figures).iter().map(|goal| goal.measured).collect();
        assert_eq!(measured, [Some(0.8), Some(1.2), Some(0.5), Some(0.75), None, None]);
        let rows: Vec<String> = goals(&figures).iter().map(ToString::to_string).collect();
        assert!(
            rows[0].ends_with("| 0.75 | 0.80 | met |") && rows[2].ends_with("| 0.80 | 0.50 | missed |"),
            "{rows:?}"
        );
        assert!(rows[5].ends_with("| 0.70 | | not measured |"), "{rows:?}");
    }
}
