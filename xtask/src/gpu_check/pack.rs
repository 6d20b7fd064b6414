//! The folder that is carried to a machine with a GPU.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::machine::COMMIT_FILE;
use super::plan::{ORACLE_INPUT, TOKEN_RUNS, TokenRun};
use crate::run::{TEST_FEATURES, cargo, command, root, run as run_command, stdout, succeeds, target_dir};
use crate::{adapters, cuda, model};

/// Most that the folder may hold.
const MOST_BYTES: u64 = 60 << 20;
/// The real model travels beside the folder, in parts of this size.
const PART_BYTES: usize = 40 << 20;
/// Where the parts go, in the folder.
pub const PARTS_FOLDER: &str = "parts";
const SUMS: &str = "SHA256SUMS";

/// What the folder is built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// Optimised, with NVRTC beside it.
    Release,
    /// What a developer has built anyway, and no NVRTC: for a dry run.
    Debug,
}

/// Makes the folder anew, and says how large it is.
pub fn pack(build: Build) -> Result<PathBuf> {
    adapters::ensure_any()?;
    let folder = target_dir().join("gpu-check");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    for name in ["bin", "golden", "lib", "models", "results"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let commit = stdout(command("git").args(["describe", "--always", "--dirty"]));
    fs::write(folder.join(COMMIT_FILE), commit.as_deref().unwrap_or("unknown"))?;
    programs(build, &folder)?;
    scripts(&folder)?;
    goldens(&folder)?;
    if build == Build::Release {
        nvrtc(&folder)?;
    }
    let bytes = size(&folder)?;
    println!("{}: {:.1} MiB", folder.display(), bytes as f64 / f64::from(1 << 20));
    if bytes > MOST_BYTES {
        bail!("the folder is larger than {} MiB", MOST_BYTES >> 20);
    }
    Ok(folder)
}

fn programs(build: Build, folder: &Path) -> Result<()> {
    let mut bindery = cargo();
    let profile = match build {
        Build::Release => {
            bindery.args(["build", "--bin", "bindery", "--features", "cuda", "--release"]);
            "release"
        }
        // As the tests build it: other features would build everything again.
        Build::Debug => {
            bindery.args(["test", "--workspace", "--no-run", "--test", "cli"]).args(TEST_FEATURES);
            "debug"
        }
    };
    run_command(&mut bindery)?;
    let from = target_dir().join(profile).join("bindery");
    let runner = std::env::current_exe().context("finding this program")?;
    for (from, name) in [(from, "bindery"), (runner, "gpu-check-runner")] {
        let to = folder.join("bin").join(name);
        fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
        // Symbols are most of a program, and nobody debugs there.
        if !succeeds(command("strip").arg(&to)) {
            println!("{name} is packed with its symbols: there is no strip");
        }
    }
    Ok(())
}

fn scripts(folder: &Path) -> Result<()> {
    let sources = root().join("xtask/gpu-check");
    for entry in fs::read_dir(&sources).with_context(|| format!("reading {}", sources.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        let is_model = path.extension().is_some_and(|extension| extension == "json");
        fs::copy(&path, if is_model { folder.join("models").join(name) } else { folder.join(name) })?;
    }
    Ok(())
}

/// The prompts of the token stages, and what they must give: of the real model by transformers, of the tiny one by this
/// machine's own adapter.
fn goldens(folder: &Path) -> Result<()> {
    let golden = folder.join("golden");
    let mut oracle = Vec::new();
    for entry in fs::read_dir(root().join("tests/golden/oracle"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("greedy_") {
            fs::copy(&path, golden.join(&name))?;
            let text: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
            oracle.push(request(text["name"].as_str().context("a golden without a name")?, &text["ids"], 48));
        }
    }
    fs::write(folder.join(ORACLE_INPUT), oracle.join("\n"))?;
    // The last two begin with the same blocks.
    let tiny = [(5, 0), (40, 1), (130, 2), (131, 2)].map(|(len, start): (u32, u32)| {
        let ids: Vec<u32> = (0..len).map(|i| (i * i * 31 + start * 7 + 11) % 4096).collect();
        request(&format!("tiny-{len}"), &json!(ids), 32)
    });
    let TokenRun { flags, input, .. } = TOKEN_RUNS[0];
    fs::write(folder.join(input), tiny.join("\n"))?;
    let mut bindery = command(folder.join("bin/bindery"));
    bindery.current_dir(folder).args(["run-batch", "-i", input, "-o", "golden/tiny.jsonl"]);
    run_command(bindery.args(flags.split_whitespace()))
}

/// One line of `bindery run-batch`: greedy tokens, with the margin of each.
fn request(name: &str, ids: &Value, tokens: u32) -> String {
    let body = json!({
        "model": "any", "prompt": ids, "max_tokens": tokens, "temperature": 0, "ignore_eos": true, "logprobs": 2,
        "return_token_ids": true,
    });
    json!({"custom_id": name, "method": "POST", "url": "/v1/completions", "body": body}).to_string()
}

/// NVRTC compressed, as the machine may have none: run.sh unpacks it.
fn nvrtc(folder: &Path) -> Result<()> {
    let libraries = cuda::nvrtc()?;
    let wanted = |name: &str| name.starts_with("libnvrtc") && !name.contains(".alt.");
    let names = fs::read_dir(&libraries)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names: Vec<String> = names.filter(|name| wanted(name)).collect();
    let mut tar = command("tar");
    tar.arg("-C").arg(&libraries).args(["-cJf"]).arg(folder.join("lib/nvrtc.tar.xz")).args(names);
    run_command(tar.env("XZ_OPT", "-6"))
}

/// The real model in parts, to be carried into the folder one by one.
pub fn pack_model() -> Result<()> {
    let model = fs::read(model::fetch()?)?;
    let folder = target_dir().join("gpu-check-model").join(PARTS_FOLDER);
    fs::create_dir_all(&folder)?;
    let mut sums = format!("{}  {}\n", hex(&Sha256::digest(&model)), model::FILE);
    for (index, part) in model.chunks(PART_BYTES).enumerate() {
        let name = format!("part-{index:02}");
        fs::write(folder.join(&name), part)?;
        sums.push_str(&format!("{}  {name}\n", hex(&Sha256::digest(part))));
    }
    fs::write(folder.join(SUMS), sums)?;
    println!("{}: copy what is in it into gpu-check/{PARTS_FOLDER}/", folder.display());
    Ok(())
}

/// Puts the model together where all its parts are in the folder; says why not, where they are not.
pub fn join_model(folder: &Path) -> Result<(), String> {
    let parts = folder.join(PARTS_FOLDER);
    let sums =
        fs::read_to_string(parts.join(SUMS)).map_err(|_| "the model's parts are not in the folder".to_owned())?;
    let mut model = Vec::new();
    let mut lines = sums.lines().filter_map(|line| line.split_once("  "));
    let (whole, file) = lines.next().ok_or("an empty SHA256SUMS")?;
    for (sum, name) in lines {
        let part = fs::read(parts.join(name)).map_err(|error| format!("{name}: {error}"))?;
        if hex(&Sha256::digest(&part)) != sum {
            return Err(format!("{name}: another sha256"));
        }
        model.extend(part);
    }
    if hex(&Sha256::digest(&model)) != whole {
        return Err(format!("{file}: another sha256"));
    }
    fs::write(folder.join("models").join(file), model).map_err(|error| format!("{file}: {error}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn size(path: &Path) -> Result<u64> {
    if !path.is_dir() {
        return Ok(fs::metadata(path)?.len());
    }
    fs::read_dir(path)?.map(|entry| size(&entry?.path())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_put_together_from_whole_parts_only() {
        let folder = std::env::temp_dir().join(format!("bindery-parts-{}", std::process::id()));
        let parts = folder.join(PARTS_FOLDER);
        fs::create_dir_all(folder.join("models")).unwrap();
        assert!(join_model(&folder).unwrap_err().contains("not in the folder"));
        fs::create_dir_all(&parts).unwrap();
        let sum = |bytes: &[u8]| hex(&Sha256::digest(bytes));
        let sums = format!("{}  m.gguf\n{}  part-00\n{}  part-01\n", sum(b"abcd"), sum(b"abc"), sum(b"d"));
        fs::write(parts.join(SUMS), sums).unwrap();
        fs::write(parts.join("part-00"), "abc").unwrap();
        assert!(join_model(&folder).unwrap_err().starts_with("part-01"));
        fs::write(parts.join("part-01"), "x").unwrap();
        assert_eq!(join_model(&folder).unwrap_err(), "part-01: another sha256");
        fs::write(parts.join("part-01"), "d").unwrap();
        join_model(&folder).unwrap();
        assert_eq!(fs::read(folder.join("models/m.gguf")).unwrap(), b"abcd");
        fs::remove_dir_all(folder).unwrap();
    }
}
