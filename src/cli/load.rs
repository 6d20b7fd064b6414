//! Loading a model with a progress bar.

use super::notices::Notices;
use anyhow::Result;
use bindery::backend::OpenDevice;
use bindery::backend::webgpu::TuningSource;
use bindery::llm::{ChosenDevice, Llm, LlmOptions};
use bindery::model::{Checkpoint, LoadProgress};
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
pub(super) fn load(options: &LlmOptions, notices: Notices) -> Result<Llm> {
    // The checkpoint first: what is wrong with it shows before any device is touched.
    let checkpoint = options.open_checkpoint()?;
    let device = open_device(options, &checkpoint, notices)?;
    let upload = UploadBar::new();
    let llm = Llm::with_backend(&checkpoint, device.backend(), options, &mut |progress| upload.show(progress));
    upload.0.finish_and_clear();
    Ok(llm?)
}

/// The device for a model, with its kernels; tells when they were measured, which were left out, and what went wrong with the
/// file that keeps the choice.
///
/// # Errors
/// As [`LlmOptions::open_device`].
pub(super) fn open_device(options: &LlmOptions, checkpoint: &Checkpoint, notices: Notices) -> Result<OpenDevice> {
    let ChosenDevice { device, tuning } = options.open_device(checkpoint)?;
    notices.warn_of_software(options.device.as_deref(), &device);
    if let Some(warning) = tuning.as_ref().and_then(|choice| choice.warning.as_ref()) {
        notices.warn(warning);
    }
    if let Some(choice) = tuning.filter(|choice| matches!(choice.source, TuningSource::Measured(..))) {
        notices.info(choice);
    }
    Ok(device)
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
