//! Finds out what kind of checkpoint a path leads to.

use std::path::{Path, PathBuf};

use super::LoadError;
use super::dummy::DummyWeights;

/// How the path of a checkpoint is to be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LoadFormat {
    /// Find out from what is there.
    #[default]
    Auto,
    /// A GGUF file, or a folder with one.
    Gguf,
    /// A Hugging Face folder.
    Safetensors,
    /// Only a `config.json`, or the folder it is in; the weights are made up.
    Dummy(DummyWeights),
}

impl std::str::FromStr for LoadFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(Self::Auto),
            "gguf" => Ok(Self::Gguf),
            "safetensors" => Ok(Self::Safetensors),
            "dummy" => Ok(Self::Dummy(DummyWeights::default())),
            other => match other.strip_prefix("dummy:").and_then(DummyWeights::of_format) {
                Some(dummy) => Ok(Self::Dummy(dummy)),
                None => Err(format!(
                    "unknown load format `{other}`; auto, gguf, safetensors, dummy and dummy:FORMAT (f32, f16, bf16, \
                     q8_0, q4_0, q4_1) are known"
                )),
            },
        }
    }
}

/// What lies at a path.
pub(super) enum Located {
    /// This GGUF file.
    Gguf(PathBuf),
    /// A folder with `config.json` and safetensors.
    HuggingFace(PathBuf),
    /// This configuration file, weights to be made up.
    Config(PathBuf, DummyWeights),
}

/// Follows a path as the user gave it.
pub(super) fn locate(path: &Path, format: LoadFormat) -> Result<Located, LoadError> {
    let none = |problem: &str| Err(LoadError::NoCheckpoint { path: path.into(), problem: problem.to_owned() });
    let metadata = std::fs::metadata(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => {
            LoadError::NoCheckpoint { path: path.into(), problem: "no such file or folder".to_owned() }
        }
        _ => LoadError::io(path, source),
    })?;
    if let LoadFormat::Dummy(dummy) = format {
        let file = if metadata.is_dir() { path.join("config.json") } else { path.to_path_buf() };
        return Ok(Located::Config(file, dummy));
    }
    if !metadata.is_dir() {
        let is = |extension: &str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension));
        return match format {
            LoadFormat::Safetensors => none("a file, but safetensors are loaded from their folder"),
            _ if is("safetensors") || is("json") => none("one file of a Hugging Face folder: give the folder"),
            _ => Ok(Located::Gguf(path.into())),
        };
    }
    let folder_is_hf = path.join("config.json").is_file();
    if format == LoadFormat::Safetensors || (format == LoadFormat::Auto && folder_is_hf && has_safetensors(path)) {
        return if folder_is_hf { Ok(Located::HuggingFace(path.into())) } else { none("no config.json in it") };
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|source| LoadError::io(path, source))? {
        let file = entry.map_err(|source| LoadError::io(path, source))?.path();
        if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            files.push(file);
        }
    }
    files.sort();
    match files.as_slice() {
        [] => none("neither a .gguf file nor a Hugging Face checkpoint in it"),
        [file] => Ok(Located::Gguf(file.clone())),
        [first, ..] => none(&format!("{} .gguf files in it; name one, as {}", files.len(), first.display())),
    }
}

fn has_safetensors(folder: &Path) -> bool {
    ["model.safetensors", "model.safetensors.index.json"].iter().any(|name| folder.join(name).is_file())
}
