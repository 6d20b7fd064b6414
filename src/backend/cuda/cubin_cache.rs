//! Compiled kernels on disk, so that only the first start compiles.
//!
//! A file bears the hash of all that its contents depend on, and ends in the hash of its contents. What is not whole is as if
//! it were not there, and a folder that cannot be written only means that the next start compiles again.

use sha2::{Digest, Sha256};
use std::fs;
use std::path::PathBuf;

const HASH_BYTES: usize = 32;

/// The folder of compiled kernels.
#[derive(Debug, Clone)]
pub(super) struct CubinCache {
    folder: Option<PathBuf>,
}

impl CubinCache {
    /// The folder that the environment variable `BINDERY_CUDA_CACHE` names, else one in the user's cache folder.
    pub(super) fn of_user() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let user = || {
            set("XDG_CACHE_HOME")
                .or_else(|| set("LOCALAPPDATA"))
                .or_else(|| set("HOME").map(|home| home.join(".cache")))
                .map(|cache| cache.join("bindery").join("cuda"))
        };
        Self { folder: set("BINDERY_CUDA_CACHE").or_else(user) }
    }

    /// A compiled kernel, if it is there and whole.
    pub(super) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.folder.as_ref()?.join(key)).ok()?;
        let at = bytes.len().checked_sub(HASH_BYTES)?;
        let hash = bytes.split_off(at);
        (Sha256::digest(&bytes)[..] == hash[..]).then_some(bytes)
    }

    /// Keeps a compiled kernel.
    pub(super) fn put(&self, key: &str, image: &[u8]) {
        let Some(folder) = &self.folder else { return };
        // Other processes may be at the same: a file gets its name when it is whole.
        let partial = folder.join(format!("{key}.{}", std::process::id()));
        let contents = [image, &Sha256::digest(image)[..]].concat();
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&partial, contents));
        if written.and_then(|()| fs::rename(&partial, folder.join(key))).is_err() {
            // Nothing is lost but time: see the module's documentation.
            let _ = fs::remove_file(&partial);
        }
    }
}

/// The name of a file: the hash of its compiler, architecture and source.
pub(super) fn key(compiler: &str, architecture: &str, source: &str) -> String {
    let mut hasher = Sha256::new();
    for part in [compiler, architecture, source] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let hash = hasher.finalize();
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}.cubin")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(name: &str) -> CubinCache {
        let folder = std::env::temp_dir().join(format!("bindery-cubin-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        CubinCache { folder: Some(folder) }
    }

    #[test]
    fn what_is_put_in_comes_out() {
        let cache = cache("whole");
        let key = key("13.0", "sm_90", "source");
        assert_eq!(cache.get(&key), None);
        cache.put(&key, b"machine code");
        assert_eq!(cache.get(&key).as_deref(), Some(&b"machine code"[..]));
        fs::remove_dir_all(cache.folder.expect("set above")).expect("it was made");
    }

    #[test]
    fn a_damaged_file_is_not_there() {
        let cache = cache("damaged");
        let folder = cache.folder.clone().expect("set above");
        cache.put("k", b"machine code");
        let mut bytes = fs::read(folder.join("k")).expect("it was put");
        bytes[3] ^= 1;
        fs::write(folder.join("k"), &bytes).expect("writable");
        assert_eq!(cache.get("k"), None);
        fs::write(folder.join("k"), &bytes[..7]).expect("writable");
        assert_eq!(cache.get("k"), None);
        fs::remove_dir_all(folder).expect("it was made");
    }

    #[test]
    fn a_folder_that_cannot_be_is_no_failure() {
        let cache = CubinCache { folder: Some(PathBuf::from("/dev/null/none")) };
        cache.put("k", b"x");
        assert_eq!(cache.get("k"), None);
        assert_eq!(CubinCache { folder: None }.get("k"), None);
    }

    #[test]
    fn keys_tell_their_parts_apart() {
        let keys = [key("1", "2", "3"), key("12", "", "3"), key("1", "23", ""), key("1", "2", "4")];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }
}
