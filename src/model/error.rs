//! Why a checkpoint was refused.

use std::path::{Path, PathBuf};

use crate::backend::BackendError;

/// Why a checkpoint cannot be loaded. Every message names the file and says what would help.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system reported.
        source: std::io::Error,
    },
    /// There is no checkpoint at this path.
    #[error(
        "{}: {problem}; give a .gguf file, a folder with one .gguf file, or a Hugging Face folder \
         (config.json and *.safetensors)",
        path.display()
    )]
    NoCheckpoint {
        /// File or folder.
        path: PathBuf,
        /// What was found instead.
        problem: String,
    },
    /// The file breaks the rules of its format.
    #[error("{}: damaged or not what its name says: {problem}; fetch it again and compare its checksum", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Which rule, where.
        problem: String,
    },
    /// A metadata or configuration key is missing.
    #[error("{}: `{key}` is missing; the file is incomplete, convert or fetch the model again", path.display())]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A metadata or configuration key has a value of the wrong kind, or out of range.
    #[error("{}: `{key}` should be {expected}, found {found}", path.display())]
    BadValue {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The model is well formed but needs something that is not implemented.
    #[error("{}: {what} is not supported; {hint}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What the model needs.
        what: String,
        /// What would work.
        hint: String,
    },
    /// A tensor that the architecture needs is not in the checkpoint.
    #[error("{}: tensor `{tensor}` is missing; the checkpoint is incomplete, fetch or convert it again", path.display())]
    MissingTensor {
        /// File or folder.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error(
        "{}: tensor `{tensor}` has shape {found}, but the configuration calls for {expected}; \
         configuration and weights are from different models, or damaged",
        path.display()
    )]
    TensorShape {
        /// File or folder.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// Rows x columns by the configuration.
        expected: String,
        /// Rows x columns in the file.
        found: String,
    },
    /// A tensor's element type is not one that the kernels read.
    #[error("{}: tensor `{tensor}` is {found}; supported are {supported}; {hint}", path.display())]
    TensorFormat {
        /// File or folder.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// Its type.
        found: String,
        /// The types that work.
        supported: &'static str,
        /// How to get there.
        hint: &'static str,
    },
    /// The device refused a weight.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl LoadError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    pub(crate) fn malformed(path: &Path, problem: impl Into<String>) -> Self {
        Self::Malformed { path: path.into(), problem: problem.into() }
    }

    pub(crate) fn missing_key(path: &Path, key: impl Into<String>) -> Self {
        Self::MissingKey { path: path.into(), key: key.into() }
    }

    pub(crate) fn bad_value(
        path: &Path,
        key: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::BadValue { path: path.into(), key: key.into(), expected: expected.into(), found: found.into() }
    }

    pub(crate) fn unsupported(path: &Path, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Unsupported { path: path.into(), what: what.into(), hint: hint.into() }
    }
}
