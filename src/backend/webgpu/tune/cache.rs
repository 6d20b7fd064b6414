//! Measured choices on disk: a JSON file for each adapter and model's shapes.

use super::super::{AdapterSummary, Tuning, Variant};
use super::measure::Measured;
use super::{Trial, TuneRequest};
use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// What a choice depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    bindery: String,
    adapter: String,
    vendor: u32,
    api: String,
    driver: String,
    /// The variant that the user asked for.
    asked_variant: Option<String>,
    hidden: u32,
    intermediate: u32,
    heads: [u32; 3],
    vocab: u32,
    format: String,
    kv_dtype: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    key: Key,
    variant: String,
    tuning: Tuning,
    /// Seconds since 1970.
    measured_at: u64,
    seconds: f64,
    trials: Vec<Trial>,
    left_out: Vec<String>,
}

/// A choice from disk.
#[derive(Debug, Clone, PartialEq)]
pub struct CachedTuning {
    /// Adapter and driver that it is for.
    pub adapter: String,
    /// See [`AdapterSummary::driver`].
    pub driver: String,
    /// The model's shapes, in words.
    pub shapes: String,
    /// The variant.
    pub variant: Variant,
    /// Its numbers.
    pub tuning: Tuning,
    /// Seconds since 1970.
    pub measured_at: u64,
    /// What was tried.
    pub trials: Vec<Trial>,
    /// Variants that were not, and why: a kernel does not compile, or computes something else.
    pub left_out: Vec<String>,
}

/// The file of one adapter and model.
pub(super) struct Cache {
    key: Key,
    /// `None` where the system tells no place for caches.
    path: Option<PathBuf>,
}

fn folder() -> Option<PathBuf> {
    Some(etcetera::base_strategy::choose_native_strategy().ok()?.cache_dir().join("bindery").join("tuning"))
}

/// All choices on disk that can be read.
pub fn cached_tunings() -> Vec<CachedTuning> {
    let files = folder().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let mut found: Vec<CachedTuning> = files.filter_map(|file| read(&file.path()).ok()?.into_cached()).collect();
    found.sort_by(|a, b| (&a.adapter, &a.shapes).cmp(&(&b.adapter, &b.shapes)));
    found
}

fn read(path: &Path) -> Result<Entry, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

impl Entry {
    /// `None` when it holds what no Bindery of today has written.
    fn into_cached(self) -> Option<CachedTuning> {
        let Self { key, variant, tuning, measured_at, seconds: _, trials, left_out } = self;
        let [heads, kv_heads, head_dim] = key.heads;
        let (hidden, intermediate, vocab) = (key.hidden, key.intermediate, key.vocab);
        let shapes = format!(
            "{hidden}/{intermediate}, heads {heads}/{kv_heads}x{head_dim}, vocabulary {vocab}, {}, {} KV",
            key.format, key.kv_dtype
        );
        let variant = variant.parse().ok()?;
        let usable = tuning.is_usable(variant) && key.bindery == env!("CARGO_PKG_VERSION");
        let (adapter, driver) = (key.adapter, key.driver);
        usable.then_some(CachedTuning { adapter, driver, shapes, variant, tuning, measured_at, trials, left_out })
    }
}

impl Cache {
    pub(super) fn new(adapter: &AdapterSummary, request: &TuneRequest) -> Self {
        Self::in_folder(folder(), adapter, request)
    }

    fn in_folder(folder: Option<PathBuf>, adapter: &AdapterSummary, request: &TuneRequest) -> Self {
        let shape = &request.shape;
        let heads = &shape.attention;
        let key = Key {
            bindery: env!("CARGO_PKG_VERSION").to_owned(),
            adapter: adapter.name.clone(),
            vendor: adapter.vendor,
            api: adapter.api.clone(),
            driver: adapter.driver.clone(),
            asked_variant: request.variant.map(|variant| variant.to_string()),
            hidden: shape.hidden,
            intermediate: shape.intermediate,
            heads: [heads.num_heads, heads.num_kv_heads, heads.head_dim],
            vocab: shape.vocab,
            format: request.format.name().to_owned(),
            kv_dtype: format!("{:?}", request.kv_dtype).to_lowercase(),
        };
        let hash = Sha256::digest(serde_json::to_vec(&key).expect("a key is JSON"));
        let name: String = hash[..12].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { key, path: folder.map(|folder| folder.join(name + ".json")) }
    }

    /// What is on disk for this adapter and model; `None` when there is nothing.
    ///
    /// # Errors
    /// In words, when there is something that cannot be used.
    pub(super) fn read(&self, adapter: &AdapterSummary) -> Result<Option<CachedTuning>, String> {
        let Some(path) = self.path.as_ref().filter(|path| path.exists()) else { return Ok(None) };
        let wrong = |why: &str| format!("{}: {why}; it is not used (--retune replaces it)", path.display());
        let entry = read(path).map_err(|error| wrong(&error))?;
        if entry.key != self.key {
            return Err(wrong("is for another adapter, driver, version or model"));
        }
        let cached = entry.into_cached().ok_or_else(|| wrong("has numbers that no kernel takes"))?;
        if !adapter.variants.contains(&cached.variant) {
            return Err(wrong("names kernels that this adapter does not run"));
        }
        Ok(Some(cached))
    }

    /// Keeps a choice, whole or not at all: others may read at the same time.
    ///
    /// # Errors
    /// In words, when the file system refuses.
    pub(super) fn write(&self, measured: &Measured, measured_at: u64) -> Result<(), String> {
        let Some(path) = &self.path else { return Ok(()) };
        let entry = Entry {
            key: self.key.clone(),
            variant: measured.variant.to_string(),
            tuning: measured.tuning,
            measured_at,
            seconds: measured.seconds,
            trials: measured.trials.clone(),
            left_out: measured.left_out.clone(),
        };
        let json = serde_json::to_string_pretty(&entry).expect("an entry is JSON");
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let folder = path.parent().expect("a file has a folder");
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&temporary, json))
            .and_then(|()| fs::rename(&temporary, path))
            .map_err(|error| format!("{}: {error}; what was measured is not kept", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::kernel_bench::ModelShape;
    use crate::backend::webgpu::tune::Autotune;
    use crate::backend::{KvDtype, WeightFormat};

    fn adapter(driver: &str) -> AdapterSummary {
        AdapterSummary {
            index: 0,
            name: "GPU".into(),
            vendor: 1,
            device_type: "DiscreteGpu".into(),
            api: "Vulkan".into(),
            driver: driver.into(),
            subgroup_sizes: Some((32, 32)),
            matrix_size: None,
            shader_f16: true,
            max_binding_bytes: 1 << 30,
            max_buffer_bytes: 1 << 30,
            memory_bytes: None,
            is_software: false,
            variants: vec![Variant::Subgroup, Variant::Plain],
            unusable: None,
        }
    }

    fn cache(folder: &Path, driver: &str) -> Cache {
        let request = TuneRequest {
            shape: ModelShape::known().remove(0),
            format: WeightFormat::Q4_1,
            kv_dtype: KvDtype::F16,
            variant: None,
            batch_invariant: false,
            autotune: Autotune::Auto,
        };
        Cache::in_folder(Some(folder.to_owned()), &adapter(driver), &request)
    }

    #[test]
    fn what_is_written_is_read_and_what_is_wrong_is_told() {
        let folder = std::env::temp_dir().join(format!("bindery-tuning-{}", std::process::id()));
        let this = cache(&folder, "1.0");
        assert_eq!(this.read(&adapter("1.0")), Ok(None));
        let tuning = Tuning { matvec_cols: 2, ..Tuning::default() };
        let trials = vec![Trial { knob: "x".into(), value: "2".into(), relative_time: 0.5, chosen: true }];
        let measured = Measured { variant: Variant::Plain, tuning, seconds: 1.5, trials, left_out: vec!["why".into()] };
        this.write(&measured, 1_700_000_000).expect("it is writable");
        let found = this.read(&adapter("1.0")).expect("it is right").expect("it is there");
        assert_eq!((found.variant, found.tuning, found.measured_at), (Variant::Plain, tuning, 1_700_000_000));
        assert_eq!((found.trials, found.left_out), (measured.trials, measured.left_out));

        // Another driver has a file of its own; under a wrong name a file is refused.
        let other = cache(&folder, "2.0");
        assert_eq!(other.read(&adapter("2.0")), Ok(None));
        let (path, other_path) = (this.path.as_ref().expect("given"), other.path.as_ref().expect("given"));
        fs::copy(path, other_path).expect("copied");
        assert!(other.read(&adapter("2.0")).unwrap_err().contains("another adapter"));

        let text = fs::read_to_string(path).expect("written");
        let refused = |text: &str, word: &str| {
            fs::write(path, text).expect("it is writable");
            let wrong = this.read(&adapter("1.0")).unwrap_err();
            assert!(wrong.contains(word), "{wrong}");
        };
        refused(&text[..text.len() / 2], "EOF");
        refused("\u{0}", "expected value");
        for cols in ["0", "6"] {
            refused(&text.replace("\"matvec_cols\": 2", &format!("\"matvec_cols\": {cols}")), "no kernel takes");
        }
        refused(&text.replace("\"plain\"", "\"cpu\""), "does not run");
        fs::remove_dir_all(&folder).expect("it was made here");
    }
}
