//! What the machine has: adapters, CUDA, Python.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Says which commit the folder was built from.
pub const COMMIT_FILE: &str = "COMMIT";

/// NVIDIA's PCI vendor id.
const NVIDIA: u64 = 0x10de;

/// What stages ask about.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// The system, and NVIDIA's own words about its GPUs, where its tool is there.
    pub description: String,
    /// What is checked: version and commit.
    pub program: String,
    /// The list of `bindery devices --json`.
    pub devices: Vec<Value>,
    /// Index of the Vulkan adapter to test: NVIDIA's, else the first.
    pub vulkan: Option<u64>,
    /// Why there is no CUDA, if there is none.
    pub without_cuda: Option<String>,
    /// Why there is no Python, if there is none.
    pub without_python: Option<String>,
    /// The commands that `bindery bench --help` lists.
    pub bench_commands: Vec<String>,
    /// Whether the real model is in the folder.
    pub has_model: bool,
}

impl Machine {
    /// Looks around, in the packed folder.
    pub fn probe(folder: &Path) -> Self {
        let says = |program: &str, args: &[&str]| {
            let mut command = Command::new(program);
            let output = command.args(args).current_dir(folder).stdin(Stdio::null()).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let bindery = |args: &[&str]| says("bin/bindery", args);
        let devices = bindery(&["devices", "--json"]).and_then(|json| serde_json::from_str(&json).ok());
        let devices: Vec<Value> = devices.unwrap_or_default();
        let gpus = says("nvidia-smi", &["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]);
        let description = [says("uname", &["-srm"]), gpus].into_iter().flatten().collect::<Vec<_>>().join("; ");
        let version = bindery(&["--version"]).unwrap_or_else(|| "bindery, which does not start".to_owned());
        let commit = std::fs::read_to_string(folder.join(COMMIT_FILE)).unwrap_or_default();
        Self {
            description,
            program: format!("{version}, commit {}", commit.trim()),
            vulkan: vulkan(&devices),
            without_cuda: without_cuda(&devices, &bindery(&["devices"]).unwrap_or_default()),
            without_python: says("python3", &["--version"]).is_none().then(|| "no python3".to_owned()),
            bench_commands: commands(&bindery(&["bench", "--help"]).unwrap_or_default()),
            has_model: folder.join("models/SmolLM2-135M-Instruct.Q4_1.gguf").is_file(),
            devices,
        }
    }
}

/// The index of the adapter to test, among those that are of use.
fn vulkan(devices: &[Value]) -> Option<u64> {
    let usable = || devices.iter().filter(|d| d["backend"] == "webgpu" && d["unusable"].is_null());
    usable().find(|d| d["vendor"] == NVIDIA).or_else(|| usable().next()).and_then(|d| d["index"].as_u64())
}

/// Why there is no CUDA device, by what `bindery devices` printed.
fn without_cuda(devices: &[Value], text: &str) -> Option<String> {
    if devices.iter().any(|device| device["backend"] == "cuda") {
        return None;
    }
    let line = text.lines().find(|line| line.starts_with("CUDA: "));
    Some(line.unwrap_or("CUDA: `bindery devices` says nothing of it").to_owned())
}

/// The first words of the indented lines below `Commands:`.
fn commands(help: &str) -> Vec<String> {
    let below = help.lines().skip_while(|line| line.trim() != "Commands:").skip(1);
    let indented = below.take_while(|line| line.starts_with(' '));
    indented.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nvidia_s_adapter_comes_first() {
        let adapter = |index: u64, vendor: u64, unusable: Value| json!({"backend": "webgpu", "index": index, "vendor": vendor, "unusable": unusable});
        let cuda = json!({"backend": "cuda", "index": 0, "name": "H100"});
        let devices = [adapter(0, 0x10005, Value::Null), adapter(1, NVIDIA, Value::Null), cuda.clone()];
        assert_eq!(vulkan(&devices), Some(1));
        assert_eq!(vulkan(&devices[..1]), Some(0));
        assert_eq!(vulkan(&[adapter(3, NVIDIA, json!("too old")), cuda]), None);
        assert_eq!(without_cuda(&devices, ""), None);
        let why = without_cuda(&devices[..2], "index\n\nCUDA: no CUDA driver found: x\n");
        assert_eq!(why.as_deref(), Some("CUDA: no CUDA driver found: x"));
    }

    #[test]
    fn commands_of_a_help_text() {
        let help = "Measure\n\nUsage: x\n\nCommands:\n  latency     One\n  throughput  Many\n\nOptions:\n  -h  Help";
        assert_eq!(commands(help), ["latency", "throughput"]);
    }
}
