//! The bytes of a checkpoint file: a memory map, or a buffer in tests.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

use super::LoadError;

/// Read-only contents of one file.
#[derive(Debug)]
pub(crate) enum FileBytes {
    /// A memory map, so that weights are paged in as they are uploaded and never copied whole.
    Mapped(Mmap),
    /// Bytes already in memory.
    Owned(Vec<u8>),
}

impl FileBytes {
    /// Maps a file.
    pub(crate) fn map(path: &Path) -> Result<Self, LoadError> {
        let file = File::open(path).map_err(|source| LoadError::io(path, source))?;
        let metadata = file.metadata().map_err(|source| LoadError::io(path, source))?;
        if !metadata.is_file() {
            return Err(LoadError::malformed(path, "not a regular file"));
        }
        if metadata.len() == 0 {
            return Err(LoadError::malformed(path, "the file is empty"));
        }
        // SAFETY: the map is read-only and private to this process. Another process that truncates the file while it
        // is mapped would end this one with SIGBUS, as with every engine that maps its weights.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| LoadError::io(path, source))?;
        Ok(Self::Mapped(map))
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// Reads a small text file whole; refuses one of more than `limit_bytes`.
pub(crate) fn read_text(path: &Path, limit_bytes: u64) -> Result<String, LoadError> {
    let metadata = std::fs::metadata(path).map_err(|source| LoadError::io(path, source))?;
    if !metadata.is_file() || metadata.len() > limit_bytes {
        return Err(LoadError::malformed(path, format!("expected a text file of at most {limit_bytes} bytes")));
    }
    std::fs::read_to_string(path).map_err(|source| LoadError::io(path, source))
}
