//! Which kernels suit an adapter and a model: by rule, by a short timing at first start, or as the user says.
//!
//! A timing compares the variants' results, too, and leaves out one that differs from the others. What was measured is kept on
//! disk, by adapter, driver, version of Bindery and shapes of the model. In batch-invariant mode nothing is measured: the order
//! of sums must not depend on what was fast on some day.

mod agreement;
mod cache;
mod measure;

pub use cache::{CachedTuning, cached_tunings};
pub use measure::tuning_candidates;

use super::super::kernel_bench::ModelShape;
use super::super::{BackendError, KvDtype, WeightFormat};
use super::{GpuDevice, Tuning, Variant};
use cache::Cache;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Whether kernels are timed before a model starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Autotune {
    /// On a GPU, at the first start of a model's shapes; what is on disk is used.
    #[default]
    Auto,
    /// Never, and what is on disk is not used.
    Off,
    /// Now, on any adapter; what is on disk is replaced.
    Retune,
}

/// For what kernels are chosen.
#[derive(Debug, Clone)]
pub struct TuneRequest {
    /// The model's shapes; its name does not matter.
    pub shape: ModelShape,
    /// Format of most of its matrices.
    pub format: WeightFormat,
    /// Element type of the KV pool.
    pub kv_dtype: KvDtype,
    /// The variant, when the user says which.
    pub variant: Option<Variant>,
    /// See [`StepLimits::batch_invariant`](super::super::StepLimits::batch_invariant).
    pub batch_invariant: bool,
    /// Whether to measure.
    pub autotune: Autotune,
}

/// Kernels, and why these.
#[derive(Debug, Clone, PartialEq)]
pub struct TuningChoice {
    /// The variant.
    pub variant: Variant,
    /// Its numbers.
    pub tuning: Tuning,
    /// Why.
    pub source: TuningSource,
    /// Kernels that do not compile here or compute something else, or what was wrong with the file on disk: it was not used, or
    /// could not be written.
    pub warning: Option<String>,
}

/// Where a choice comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum TuningSource {
    /// Nothing was measured, for this reason.
    Rule(&'static str),
    /// It was measured before: seconds since 1970.
    Cached(u64),
    /// It was measured now, in so many seconds, by these trials.
    Measured(f64, Vec<Trial>),
}

/// One candidate for one number.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Trial {
    /// The number, or `variant`.
    pub knob: String,
    /// The candidate.
    pub value: String,
    /// Mean of its times relative to the first candidate's, over the steps that the number matters for.
    pub relative_time: f64,
    /// Whether it was taken.
    pub chosen: bool,
}

impl fmt::Display for TuningChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kernels, {}: ", self.variant, self.tuning)?;
        match &self.source {
            TuningSource::Rule(why) => f.write_str(why),
            TuningSource::Cached(_) => f.write_str("measured before"),
            TuningSource::Measured(seconds, trials) => {
                write!(f, "measured in {seconds:.1} s, {} candidates", trials.len())
            }
        }
    }
}

/// Chooses kernels for a model on an open device, and gives the device with the chosen variant.
///
/// # Errors
/// When the device fails while it is measured.
pub fn choose(gpu: &Arc<GpuDevice>, request: &TuneRequest) -> Result<(Arc<GpuDevice>, TuningChoice), BackendError> {
    let by_rule = |why, warning| {
        let (variant, source) = (gpu.variant(), TuningSource::Rule(why));
        (gpu.clone(), TuningChoice { variant, tuning: Tuning::by_rule(variant), source, warning })
    };
    if request.batch_invariant {
        return Ok(by_rule("batch-invariant: nothing is tuned", None));
    }
    if request.autotune == Autotune::Off {
        return Ok(by_rule("--no-autotune", None));
    }
    let cache = Cache::new(gpu.summary(), request);
    let mut warning = None;
    if request.autotune == Autotune::Auto {
        match cache.read(gpu.summary()) {
            Ok(Some(entry)) => {
                let (variant, tuning) = (entry.variant, entry.tuning);
                let source = TuningSource::Cached(entry.measured_at);
                return Ok((
                    gpu.with_kernels(variant, tuning),
                    TuningChoice { variant, tuning, source, warning: None },
                ));
            }
            Ok(None) => {}
            Err(wrong) => warning = Some(wrong),
        }
        if gpu.summary().is_software {
            return Ok(by_rule("software adapter: the defaults; --retune measures", warning));
        }
    }
    let (gpu, measured) = measure::measure(gpu, request)?;
    let measured_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    if let Err(wrong) = cache.write(&measured, measured_at) {
        warning = Some(wrong);
    }
    let measure::Measured { variant, tuning, seconds, trials, left_out } = measured;
    if !left_out.is_empty() {
        warning = Some(left_out.into_iter().chain(warning).collect::<Vec<_>>().join("; "));
    }
    let source = TuningSource::Measured(seconds, trials);
    Ok((gpu.with_kernels(variant, tuning), TuningChoice { variant, tuning, source, warning }))
}
