//! A checkpoint: configuration and weights, from whatever kind of file they come.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::LoadError;
use super::config::ModelConfig;
use super::dtype::Dtype;
use super::dummy::DummyWeights;
use super::encoding::Encoding;
use super::gguf::{GgufFile, Metadata, SUPPORTED_GGML_TYPES};
use super::identity::IdentityHasher;
use super::locate::{LoadFormat, Located, locate};
use super::roles::{Naming, TensorRole, is_derived};
use super::safetensors::SafetensorsFiles;

/// Where the tokenizer of a checkpoint is to be found.
#[derive(Debug, Clone, Copy)]
pub enum TokenizerSource<'a> {
    /// In the metadata of the GGUF file.
    Gguf(&'a Metadata),
    /// In this folder, as `tokenizer.json` and `tokenizer_config.json`.
    Folder(&'a Path),
}

/// One tensor as the file lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Its name in the file.
    pub name: String,
    /// Its element type, as the file's format calls it.
    pub dtype: String,
    /// Dimensions, the contiguous one last.
    pub shape: Vec<u64>,
    /// Size of its data.
    pub bytes: u64,
}

#[derive(Debug)]
enum Source {
    Gguf(Box<GgufFile>),
    Safetensors(SafetensorsFiles),
    Dummy(DummyWeights),
}

/// A tensor that the model needs, with its shape and format checked.
pub(super) struct Found<'a> {
    pub(super) stored: Encoding,
    pub(super) data: Cow<'a, [u8]>,
}

/// An open checkpoint. Everything that the model needs is there, of the right shape and in a format that the kernels
/// read; nothing was copied yet.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    /// Folder that `config.json` is in; the file's own folder for GGUF.
    folder: PathBuf,
    pub(super) config: ModelConfig,
    source: Source,
    pub(super) dtype: Dtype,
    pub(super) identity: [u8; 32],
}

impl Checkpoint {
    /// Opens a checkpoint and checks every tensor of the model: presence, shape, format, place in the file.
    ///
    /// # Errors
    /// [`LoadError`] for a path without a checkpoint, files that are damaged or truncated, architectures and formats
    /// that are not supported.
    pub fn open(path: &Path, format: LoadFormat) -> Result<Self, LoadError> {
        match locate(path, format)? {
            Located::Gguf(file) => Self::from_gguf(GgufFile::open(&file)?),
            Located::HuggingFace(folder) => {
                let config = ModelConfig::from_hf(&folder)?;
                Self::from_safetensors(&folder, config, SafetensorsFiles::open(&folder)?)
            }
            Located::Config(file, dummy) => {
                let config = ModelConfig::from_hf(&file)?;
                let folder = file.parent().unwrap_or(Path::new("")).to_path_buf();
                Self::new(file, folder, config, Source::Dummy(dummy))
            }
        }
    }

    /// A checkpoint over an open GGUF file.
    pub fn from_gguf(file: GgufFile) -> Result<Self, LoadError> {
        let path = file.path().to_path_buf();
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let config = ModelConfig::from_gguf(&file)?;
        Self::new(path, folder, config, Source::Gguf(Box::new(file)))
    }

    /// A checkpoint over open safetensors.
    pub fn from_safetensors(folder: &Path, config: ModelConfig, files: SafetensorsFiles) -> Result<Self, LoadError> {
        Self::new(folder.into(), folder.into(), config, Source::Safetensors(files))
    }

    fn new(path: PathBuf, folder: PathBuf, config: ModelConfig, source: Source) -> Result<Self, LoadError> {
        let mut checkpoint = Self { path, folder, config, source, dtype: Dtype::Auto, identity: [0; 32] };
        checkpoint.check_tensors()?;
        checkpoint.identity = checkpoint.compute_identity();
        Ok(checkpoint)
    }

    /// File or folder that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sizes and constants of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where its tokenizer is to be found (for [`LoadFormat::Dummy`] the folder may have none).
    pub fn tokenizer_source(&self) -> TokenizerSource<'_> {
        match &self.source {
            Source::Gguf(file) => TokenizerSource::Gguf(file.metadata()),
            Source::Safetensors(_) | Source::Dummy(_) => TokenizerSource::Folder(&self.folder),
        }
    }

    /// A stable name for its contents: part of every key of the prefix cache.
    pub fn identity(&self) -> [u8; 32] {
        self.identity
    }

    /// Every tensor of the file (for [`LoadFormat::Dummy`]: of the model).
    pub fn tensors(&self) -> Vec<TensorEntry> {
        match &self.source {
            Source::Gguf(file) => file
                .tensors()
                .iter()
                .map(|tensor| TensorEntry {
                    name: tensor.name.clone(),
                    dtype: tensor.ggml_type.name.to_owned(),
                    shape: tensor.dims.iter().rev().copied().collect(),
                    bytes: file.data(tensor).len() as u64,
                })
                .collect(),
            Source::Safetensors(files) => files
                .tensors()
                .map(|(name, tensor)| TensorEntry {
                    name: name.to_owned(),
                    dtype: tensor.dtype.clone(),
                    shape: tensor.shape.clone(),
                    bytes: files.data(tensor).len() as u64,
                })
                .collect(),
            Source::Dummy(dummy) => TensorRole::all(&self.config)
                .into_iter()
                .map(|role| {
                    let (rows, cols) = role.shape(&self.config);
                    let format = dummy.format_of(role);
                    TensorEntry {
                        name: role.name(self.naming()),
                        dtype: format!("{format:?}"),
                        shape: vec![rows as u64, cols as u64],
                        bytes: (format.row_bytes(cols).unwrap_or(0) * rows) as u64,
                    }
                })
                .collect(),
        }
    }

    fn naming(&self) -> Naming {
        match self.source {
            Source::Gguf(_) => Naming::Gguf,
            Source::Safetensors(_) | Source::Dummy(_) => Naming::HuggingFace,
        }
    }

    pub(super) fn stored(&self, role: TensorRole) -> Option<Encoding> {
        let name = role.name(self.naming());
        match &self.source {
            Source::Gguf(file) => file.tensor(&name)?.ggml_type.encoding(),
            Source::Safetensors(files) => files.tensor(&name)?.format.map(Encoding::Device),
            Source::Dummy(dummy) => Some(Encoding::Device(dummy.format_of(role))),
        }
    }

    /// Finds the tensor of a role and holds it against the configuration.
    pub(super) fn find(&self, role: TensorRole) -> Result<Found<'_>, LoadError> {
        let name = role.name(self.naming());
        let missing = || LoadError::MissingTensor { path: self.path.clone(), tensor: name.clone() };
        match &self.source {
            Source::Gguf(file) => {
                let tensor = file.tensor(&name).ok_or_else(missing)?;
                let shape: Vec<u64> = tensor.dims.iter().rev().copied().collect();
                let stored = self.check(role, &name, &shape, tensor.ggml_type.name, tensor.ggml_type.encoding())?;
                Ok(Found { stored, data: Cow::Borrowed(file.data(tensor)) })
            }
            Source::Safetensors(files) => {
                let tensor = files.tensor(&name).ok_or_else(missing)?;
                let format = tensor.format.map(Encoding::Device);
                let stored = self.check(role, &name, &tensor.shape, &tensor.dtype, format)?;
                Ok(Found { stored, data: Cow::Borrowed(files.data(tensor)) })
            }
            Source::Dummy(dummy) => {
                let data = dummy.generate(role, &name, &self.config);
                Ok(Found { stored: Encoding::Device(dummy.format_of(role)), data: Cow::Owned(data) })
            }
        }
    }

    fn check(
        &self,
        role: TensorRole,
        name: &str,
        shape: &[u64],
        dtype: &str,
        stored: Option<Encoding>,
    ) -> Result<Encoding, LoadError> {
        let (rows, cols) = role.shape(&self.config);
        let expected = if role.is_vector() { vec![cols as u64] } else { vec![rows as u64, cols as u64] };
        if shape != expected {
            return Err(LoadError::TensorShape {
                path: self.path.clone(),
                tensor: name.to_owned(),
                expected: format!("{expected:?}"),
                found: format!("{shape:?}"),
            });
        }
        let usable = stored.filter(|stored| !role.is_vector() || stored.unquantised().is_some());
        usable.ok_or_else(|| {
            let (supported, hint) = match (&self.source, role.is_vector()) {
                (_, true) => ("F32, F16 and BF16 for norm weights and biases", "convert the model again"),
                (Source::Gguf(_), false) => {
                    (SUPPORTED_GGML_TYPES, "fetch the model in Q8_0 or Q4_0, or convert it with `llama-quantize`")
                }
                (_, false) => ("F32, F16 and BF16", "convert the model, or use a GGUF file"),
            };
            let (path, tensor, found) = (self.path.clone(), name.to_owned(), format!("of type {dtype}"));
            LoadError::TensorFormat { path, tensor, found, supported, hint }
        })
    }

    /// Checks every tensor that the model needs, and that no layer has one that it would leave unread.
    fn check_tensors(&self) -> Result<(), LoadError> {
        let roles = TensorRole::all(&self.config);
        if let Source::Dummy(dummy) = &self.source {
            let whole = |role: &TensorRole| dummy.format_of(*role).row_bytes(role.shape(&self.config).1).is_some();
            return match roles.iter().find(|role| !whole(role)) {
                Some(role) => Err(LoadError::unsupported(
                    &self.path,
                    format!("{:?} for rows of {} elements", dummy.format, role.shape(&self.config).1),
                    "F16 takes rows of any length",
                )),
                None => Ok(()),
            };
        }
        for &role in &roles {
            self.find(role)?;
        }
        let known: BTreeSet<String> = roles.iter().map(|role| role.name(self.naming())).collect();
        let prefix = if self.naming() == Naming::Gguf { "blk." } else { "model.layers." };
        let unread = |name: &&str| name.starts_with(prefix) && !is_derived(name) && !known.contains(*name);
        let name = match &self.source {
            Source::Gguf(file) => file.tensors().iter().map(|tensor| tensor.name.as_str()).find(unread),
            Source::Safetensors(files) => files.tensors().map(|(name, _)| name).find(unread),
            Source::Dummy(_) => None,
        };
        match name {
            Some(name) => Err(LoadError::unsupported(
                &self.path,
                format!("tensor `{name}`, which the {} architecture does not have,", self.config.architecture.name()),
                "leaving it out would compute something else; use a model of a supported architecture",
            )),
            None => Ok(()),
        }
    }

    fn compute_identity(&self) -> [u8; 32] {
        let config = format!("{:?}", self.config);
        match &self.source {
            Source::Gguf(file) => {
                let mut hasher = IdentityHasher::new("gguf");
                hasher.add("file bytes", &file.file_bytes().to_le_bytes());
                hasher.add("header", file.header());
                file.tensors().iter().for_each(|tensor| hasher.add_tensor(&tensor.name, file.data(tensor)));
                hasher.finish()
            }
            Source::Safetensors(files) => {
                let mut hasher = IdentityHasher::new("safetensors");
                hasher.add("config", config.as_bytes());
                files.headers().for_each(|header| hasher.add("header", header));
                files.tensors().for_each(|(name, tensor)| hasher.add_tensor(name, files.data(tensor)));
                hasher.finish()
            }
            Source::Dummy(dummy) => {
                let mut hasher = IdentityHasher::new("dummy");
                hasher.add("config", config.as_bytes());
                hasher.add("weights", format!("{dummy:?}").as_bytes());
                hasher.finish()
            }
        }
    }
}
