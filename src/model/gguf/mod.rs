//! GGUF files (versions 2 and 3), after the specification at
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! The file is untrusted: all arithmetic is checked, every count is held against the bytes that are left, and every
//! tensor lies inside the file before this module says that the file is open.

mod ggml_type;
mod metadata;
mod quants;
mod reader;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use ggml_type::GgmlType;
pub(crate) use ggml_type::SUPPORTED_GGML_TYPES;
pub use metadata::{Metadata, NumberType, Value};
pub use quants::GgmlQuant;

use self::reader::Reader;
use super::LoadError;
use super::file_bytes::FileBytes;

const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT_BYTES: u32 = 32;
const MAX_DIMS: u32 = 4;
/// Least bytes of a metadata pair (key length, type, one byte) and of a tensor entry (name length, one dimension,
/// type, offset).
const MIN_PAIR_BYTES: u64 = 13;
const MIN_TENSOR_BYTES: u64 = 32;

/// One tensor of the file.
#[derive(Debug, Clone)]
pub struct GgufTensor {
    /// Its name.
    pub name: String,
    /// Dimensions, the contiguous one first (a matrix is `[cols, rows]`).
    pub dims: Vec<u64>,
    /// Its type.
    pub ggml_type: GgmlType,
    /// Where its data lies in the file.
    range: Range<usize>,
}

impl GgufTensor {
    /// Elements of one row.
    pub fn cols(&self) -> u64 {
        self.dims[0]
    }

    /// Rows: the product of all dimensions but the first (checked when the file was opened).
    pub fn rows(&self) -> u64 {
        self.dims[1..].iter().product()
    }
}

/// An open GGUF file.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    bytes: FileBytes,
    metadata: Metadata,
    tensors: Vec<GgufTensor>,
    by_name: BTreeMap<String, usize>,
    header_bytes: usize,
}

impl GgufFile {
    /// Maps a file and checks its header and the place of every tensor.
    ///
    /// # Errors
    /// [`LoadError::Io`], or [`LoadError::Malformed`] for a file that is truncated or breaks the specification.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        Self::parse(path, FileBytes::map(path)?)
    }

    /// The same over bytes in memory; `path` is for messages only.
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, LoadError> {
        Self::parse(path, FileBytes::Owned(bytes))
    }

    fn parse(path: &Path, bytes: FileBytes) -> Result<Self, LoadError> {
        let mut reader = Reader::new(path, &bytes);
        if reader.take(4, "the magic number")? != MAGIC {
            return Err(LoadError::malformed(path, "it does not start with `GGUF`"));
        }
        let version = reader.u32("the version")?;
        if version.swap_bytes() == 2 || version.swap_bytes() == 3 {
            return Err(LoadError::unsupported(path, "a big-endian GGUF file", "convert it to little-endian"));
        }
        if !(2..=3).contains(&version) {
            let what = format!("GGUF version {version}");
            return Err(LoadError::unsupported(path, what, "versions 2 and 3 are; convert the model again"));
        }
        let tensor_count = reader.u64("the tensor count")?;
        let pair_count = reader.count(MIN_PAIR_BYTES, "the metadata count")?;
        let metadata = Metadata::read(&mut reader, path, pair_count)?;
        let alignment = metadata.u32("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT_BYTES);
        if !alignment.is_power_of_two() || !(8..=65536).contains(&alignment) {
            let expected = "a power of two from 8 to 65536";
            return Err(LoadError::bad_value(path, "general.alignment", expected, alignment.to_string()));
        }
        let tensor_count = reader.check_count(tensor_count, MIN_TENSOR_BYTES, "the tensor count")?;
        let mut entries = Vec::with_capacity(tensor_count);
        for _ in 0..tensor_count {
            entries.push(Entry::read(&mut reader)?);
        }
        let header_bytes = reader.position();
        let data_start = (header_bytes as u64).next_multiple_of(u64::from(alignment));
        let mut tensors = Vec::with_capacity(tensor_count);
        let mut by_name = BTreeMap::new();
        for entry in entries {
            let tensor = entry.place(path, data_start, u64::from(alignment), bytes.len() as u64)?;
            if by_name.insert(tensor.name.clone(), tensors.len()).is_some() {
                return Err(LoadError::malformed(path, format!("tensor `{}` stands there twice", tensor.name)));
            }
            tensors.push(tensor);
        }
        Ok(Self { path: path.into(), bytes, metadata, tensors, by_name, header_bytes })
    }

    /// The file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its key-value pairs.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Its tensors, in file order.
    pub fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// One tensor by name.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.by_name.get(name).map(|&index| &self.tensors[index])
    }

    /// A tensor's data, still in its ggml type.
    pub fn data(&self, tensor: &GgufTensor) -> &[u8] {
        &self.bytes[tensor.range.clone()]
    }

    /// The header: everything before the tensor data.
    pub(crate) fn header(&self) -> &[u8] {
        &self.bytes[..self.header_bytes]
    }

    /// Size of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// A tensor entry as it stands in the header, before it is held against the file.
struct Entry {
    name: String,
    dims: Vec<u64>,
    type_id: u32,
    offset: u64,
}

impl Entry {
    fn read(reader: &mut Reader<'_>) -> Result<Self, LoadError> {
        let name = reader.string("a tensor name")?.to_owned();
        let num_dims = reader.u32("a tensor's dimension count")?;
        if !(1..=MAX_DIMS).contains(&num_dims) {
            return Err(reader.error(format_args!("tensor `{name}` has {num_dims} dimensions, 1 to {MAX_DIMS} can be")));
        }
        let dims = (0..num_dims).map(|_| reader.u64("a tensor's dimension")).collect::<Result<Vec<_>, _>>()?;
        let type_id = reader.u32("a tensor's type")?;
        let offset = reader.u64("a tensor's offset")?;
        Ok(Self { name, dims, type_id, offset })
    }

    fn place(self, path: &Path, data_start: u64, alignment: u64, file_bytes: u64) -> Result<GgufTensor, LoadError> {
        let Self { name, dims, type_id, offset } = self;
        let Some(ggml_type) = GgmlType::from_id(type_id) else {
            return Err(LoadError::TensorFormat {
                path: path.into(),
                tensor: name,
                found: format!("of ggml type number {type_id}, which is unknown or was removed from ggml"),
                supported: SUPPORTED_GGML_TYPES,
                hint: "convert the model again",
            });
        };
        let malformed = |problem: String| LoadError::malformed(path, format!("tensor `{name}` {problem}"));
        if dims.contains(&0) {
            return Err(malformed(format!("has an empty dimension: {dims:?}")));
        }
        let rows = dims[1..].iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
        let Some(size) = rows.and_then(|rows| ggml_type.tensor_bytes(dims[0], rows)) else {
            return Err(malformed(format!("of shape {dims:?} cannot be of type {}", ggml_type.name)));
        };
        if !offset.is_multiple_of(alignment) {
            return Err(malformed(format!("starts at offset {offset}, which is not a multiple of {alignment}")));
        }
        let start = data_start.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(size));
        match (start, end) {
            (Some(start), Some(end)) if end <= file_bytes => {
                Ok(GgufTensor { range: start as usize..end as usize, name, dims, ggml_type })
            }
            _ => Err(malformed(format!(
                "needs {size} bytes from offset {offset} of the data, the file of {file_bytes} bytes ends before: \
                 it is truncated"
            ))),
        }
    }
}
