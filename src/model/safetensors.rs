//! Safetensors of a Hugging Face folder: one file, or shards with an index
//! (<https://github.com/huggingface/safetensors#format>).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorInfo};

use super::LoadError;
use super::file_bytes::{FileBytes, read_text};
use crate::backend::WeightFormat;

/// Bounds on the parts that are parsed as JSON; the one on the header is the specification's.
const MAX_HEADER_BYTES: u64 = 100_000_000;
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// One `.safetensors` file.
#[derive(Debug)]
struct Shard {
    bytes: FileBytes,
    header_bytes: usize,
}

/// A tensor and where it lies.
#[derive(Debug, Clone)]
pub struct SafeTensor {
    /// Dimensions, the contiguous one last.
    pub shape: Vec<u64>,
    /// Name of its element type.
    pub dtype: String,
    /// Its format, if the kernels read it.
    pub format: Option<WeightFormat>,
    shard: usize,
    range: Range<usize>,
}

/// The tensors of one checkpoint.
#[derive(Debug)]
pub struct SafetensorsFiles {
    shards: Vec<Shard>,
    tensors: BTreeMap<String, SafeTensor>,
}

impl SafetensorsFiles {
    /// Opens the safetensors of a folder: those named by `model.safetensors.index.json`, or else `model.safetensors`.
    ///
    /// # Errors
    /// [`LoadError`] for files that are missing, truncated or contradict each other.
    pub fn open(folder: &Path) -> Result<Self, LoadError> {
        let single = folder.join("model.safetensors");
        let index = folder.join("model.safetensors.index.json");
        let mut files = Self { shards: Vec::new(), tensors: BTreeMap::new() };
        if single.is_file() {
            files.add(&single, FileBytes::map(&single)?)?;
        } else if index.is_file() {
            let weight_map = read_index(&index)?;
            for shard in weight_map.values().collect::<BTreeSet<_>>() {
                let path = folder.join(shard);
                files.add(&path, FileBytes::map(&path)?)?;
            }
            if let Some((tensor, _)) = weight_map.iter().find(|(name, _)| !files.tensors.contains_key(*name)) {
                return Err(LoadError::MissingTensor { path: index, tensor: tensor.clone() });
            }
        } else {
            let problem = "neither model.safetensors nor model.safetensors.index.json in it".to_owned();
            return Err(LoadError::NoCheckpoint { path: folder.into(), problem });
        }
        Ok(files)
    }

    /// One file over bytes in memory; `path` is for messages only.
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, LoadError> {
        let mut files = Self { shards: Vec::new(), tensors: BTreeMap::new() };
        files.add(path, FileBytes::Owned(bytes))?;
        Ok(files)
    }

    /// Reads the header of one more file.
    ///
    /// The types are those of the `safetensors` crate. The checks are made here: the crate (0.8) adds up offsets
    /// unchecked, which a crafted header turns into a panic where overflow checks are on, and its errors name neither
    /// tensor nor sizes.
    fn add(&mut self, path: &Path, bytes: FileBytes) -> Result<(), LoadError> {
        let malformed = |problem: String| LoadError::malformed(path, problem);
        let file_bytes = bytes.len() as u64;
        let header_len = match bytes.first_chunk::<8>() {
            Some(&length) => u64::from_le_bytes(length),
            None => return Err(malformed(format!("{file_bytes} bytes are too few for a safetensors file"))),
        };
        if header_len > MAX_HEADER_BYTES || header_len > file_bytes - 8 {
            return Err(malformed(format!("a header of {header_len} bytes in a file of {file_bytes}")));
        }
        let header_bytes = 8 + header_len as usize;
        let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&bytes[8..header_bytes])
            .map_err(|error| malformed(format!("the header is not a JSON object: {error}")))?;
        let data_bytes = file_bytes - header_bytes as u64;
        let shard = self.shards.len();
        for (name, entry) in header {
            if name == "__metadata__" {
                continue;
            }
            let info: TensorInfo = serde_json::from_value(entry)
                .map_err(|error| malformed(format!("tensor `{name}` is described wrongly: {error}")))?;
            let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
            if start > end || end > data_bytes {
                return Err(malformed(format!(
                    "tensor `{name}` lies at {start}..{end} of {data_bytes} bytes of data: the file is truncated"
                )));
            }
            let bits = info.shape.iter().try_fold(info.dtype.bitsize() as u64, |n, &dim| n.checked_mul(dim as u64));
            if bits != (end - start).checked_mul(8) {
                return Err(malformed(format!(
                    "tensor `{name}` of shape {:?} and type {:?} has {} bytes of data",
                    info.shape,
                    info.dtype,
                    end - start
                )));
            }
            let tensor = SafeTensor {
                shape: info.shape.iter().map(|&dim| dim as u64).collect(),
                dtype: format!("{:?}", info.dtype),
                format: weight_format(info.dtype),
                shard,
                range: header_bytes + start as usize..header_bytes + end as usize,
            };
            if self.tensors.insert(name.clone(), tensor).is_some() {
                return Err(malformed(format!("tensor `{name}` also stands in another shard")));
            }
        }
        self.shards.push(Shard { bytes, header_bytes });
        Ok(())
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &SafeTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// One tensor by name.
    pub fn tensor(&self, name: &str) -> Option<&SafeTensor> {
        self.tensors.get(name)
    }

    /// A tensor's data.
    pub fn data(&self, tensor: &SafeTensor) -> &[u8] {
        &self.shards[tensor.shard].bytes[tensor.range.clone()]
    }

    /// The headers of all files, in the order of their names.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &[u8]> {
        self.shards.iter().map(|shard| &shard.bytes[..shard.header_bytes])
    }

    /// Size of all files together.
    pub fn file_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes.len() as u64).sum()
    }
}

fn weight_format(dtype: Dtype) -> Option<WeightFormat> {
    match dtype {
        Dtype::F32 => Some(WeightFormat::F32),
        Dtype::F16 => Some(WeightFormat::F16),
        Dtype::BF16 => Some(WeightFormat::Bf16),
        _ => None,
    }
}

/// Tensor name to file name.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, LoadError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = read_text(path, MAX_INDEX_BYTES)?;
    let index: Index = serde_json::from_str(&text)
        .map_err(|error| LoadError::malformed(path, format!("not an index of safetensors: {error}")))?;
    // An index is untrusted: it may only name files that lie beside it.
    let outside = |file: &&String| Path::new(file).file_name().is_none_or(|name| name != file.as_str());
    match index.weight_map.values().find(outside) {
        Some(file) => Err(LoadError::malformed(path, format!("shard `{file}` is not a plain file name"))),
        None => Ok(index.weight_map),
    }
}
