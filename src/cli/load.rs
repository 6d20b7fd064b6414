//! Loading a model with a progress bar.

use anyhow::Result;
use bindery::llm::{Llm, LlmOptions};
use bindery::model::LoadProgress;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// A bar on stderr, which shows itself only on a terminal.
pub(super) fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the template is a constant").progress_chars("=> ");
    let bar = ProgressBar::new(length).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Loads a model; a bar shows the upload of its weights.
///
/// # Errors
/// As [`Llm::load`].
pub(super) fn load(options: &LlmOptions) -> Result<Llm> {
    let upload = UploadBar::new();
    let llm = Llm::load(options, &mut |progress| upload.show(progress));
    upload.0.finish_and_clear();
    Ok(llm?)
}

/// How far the weights are.
pub(super) struct UploadBar(pub(super) ProgressBar);

impl UploadBar {
    /// With nothing uploaded.
    pub(super) fn new() -> Self {
        Self(bar(0, "loading weights [{bar:40}] {binary_bytes}/{binary_total_bytes} {msg}"))
    }

    /// Moves on.
    pub(super) fn show(&self, progress: LoadProgress<'_>) {
        self.0.set_length(progress.total_bytes);
        self.0.set_position(progress.done_bytes);
        self.0.set_message(progress.name.to_owned());
    }
}
