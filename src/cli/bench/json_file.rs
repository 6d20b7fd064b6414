//! `--output-json`: a file that is open from the start, so that a wrong path shows before minutes of work.

use super::super::exit::Failure;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::fs::File;
use std::io::{Seek, Write};
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

    /// Writes all there is to say, in place of what was written before.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn write(&mut self, json: &Value) -> Result<()> {
        let Some(file) = &mut self.0 else { return Ok(()) };
        let text = serde_json::to_string_pretty(json)? + "\n";
        file.rewind()
            .and_then(|()| file.set_len(0))
            .and_then(|()| file.write_all(text.as_bytes()))
            .map_err(|error| Failure(format!("--output-json: {error}")).into())
    }
}
