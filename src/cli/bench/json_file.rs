//! `--output-json`: a file that is open from the start, so that a wrong path shows before minutes of work.

use super::super::exit::Failure;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// The file, if one is wanted.
pub(super) struct JsonFile(Option<File>);

impl JsonFile {
    /// Creates it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn create(path: Option<&Path>) -> Result<Self> {
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("--output-json {}: cannot be written", path.display()))
        };
        Ok(Self(path.map(create).transpose()?))
    }

    /// Writes all there is to say.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn write(&mut self, json: &Value) -> Result<()> {
        let Some(file) = &mut self.0 else { return Ok(()) };
        let written = serde_json::to_writer_pretty(&mut *file, json).map_err(std::io::Error::from);
        written.and_then(|()| file.write_all(b"\n")).map_err(|error| Failure(format!("--output-json: {error}")))?;
        Ok(())
    }
}
