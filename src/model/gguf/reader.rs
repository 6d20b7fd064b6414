//! A cursor over the header of a GGUF file: little-endian, every read checked against the end of the file.

use std::path::Path;

use crate::model::LoadError;

/// Reads the header from front to back.
pub(super) struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Self { path, bytes, at: 0 }
    }

    /// Offset of the next byte.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// An error at the current position.
    pub(super) fn error(&self, problem: impl std::fmt::Display) -> LoadError {
        LoadError::malformed(self.path, format!("{problem} (at byte {})", self.at))
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: u64, what: &str) -> Result<&'a [u8], LoadError> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(len).ok().and_then(|len| rest.get(..len)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(self.error(format_args!("{what} needs {len} bytes, the file has {} left", rest.len()))),
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], LoadError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, LoadError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, LoadError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of items that each take at least `min_bytes`, so that no allocation outgrows the file.
    pub(super) fn count(&mut self, min_bytes: u64, what: &str) -> Result<usize, LoadError> {
        let count = self.u64(what)?;
        self.check_count(count, min_bytes, what)
    }

    /// Holds a count already read against the bytes that are left.
    pub(super) fn check_count(&self, count: u64, min_bytes: u64, what: &str) -> Result<usize, LoadError> {
        let left = (self.bytes.len() - self.at) as u64;
        match count.checked_mul(min_bytes) {
            Some(bytes) if bytes <= left => Ok(count as usize),
            _ => Err(self.error(format_args!("{what} of {count} cannot fit in the {left} bytes left"))),
        }
    }

    /// A length-prefixed UTF-8 string.
    pub(super) fn string(&mut self, what: &str) -> Result<&'a str, LoadError> {
        let len = self.u64(what)?;
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).map_err(|_| self.error(format_args!("{what} is not UTF-8")))
    }
}
