//! The walls between the rooms: who may name whom. Held against the source text, so a wall falls loudly or not at all.

use std::fs;
use std::path::{Path, PathBuf};

/// All Rust files under `dir`, with their text, comments left out.
fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)];
    while let Some(dir) = dirs.pop() {
        let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        for entry in entries {
            let path = entry.expect("a readable directory").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
                found.push((path, code.collect::<Vec<_>>().join("\n")));
            }
        }
    }
    assert!(!found.is_empty(), "no source files under {dir}");
    found
}

/// Whether `word` occurs in `text` as a whole word.
fn has_word(text: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back().is_some_and(part_of_word);
        let after = text[at + word.len()..].chars().next().is_some_and(part_of_word);
        !before && !after
    })
}

#[test]
fn the_engine_core_is_pure() {
    let forbidden = [
        "wgpu",
        "tokio",
        "std::time",
        "std::thread",
        "std::fs",
        "std::io",
        "std::env",
        "std::net",
        "f32",
        "f64",
        "f16",
    ];
    for (path, code) in sources("src/engine") {
        for word in forbidden {
            assert!(!has_word(&code, word), "{} uses {word}: the engine core is integers only", path.display());
        }
        let unordered = has_word(&code, "HashMap") || has_word(&code, "HashSet");
        let looks_up_only = path.ends_with("prefix_cache.rs") || path.ends_with("engine/requests.rs");
        assert!(!unordered || looks_up_only, "{} uses a hash map: its order would differ each run", path.display());
        for (at, _) in code.match_indices("crate::") {
            let target = &code[at + "crate::".len()..];
            assert!(target.starts_with("engine"), "{} imports crate::{:.20}", path.display(), target);
        }
    }
}

#[test]
fn the_engine_never_walks_its_hash_maps() {
    for (file, map) in [("prefix_cache.rs", "first"), ("engine/requests.rs", "by_id")] {
        let (_, code) = sources("src/engine").into_iter().find(|(path, _)| path.ends_with(file)).expect("found");
        for walk in ["iter", "keys", "values", "into_", "drain", "retain", "extract_if"] {
            assert!(!code.contains(&format!("{map}.{walk}")), "{file} walks its hash map: {map}.{walk}");
        }
        assert!(!code.contains(&format!("in &self.{map}")), "{file} walks its hash map");
    }
}

#[test]
fn backend_and_engine_never_meet() {
    for (path, code) in sources("src/backend") {
        assert!(!code.contains("engine::"), "{} imports the engine", path.display());
    }
}

#[test]
fn wgpu_stays_in_its_folder() {
    for (path, code) in sources("src") {
        let at_home = path.components().any(|part| part.as_os_str() == "webgpu");
        assert!(at_home || !code.contains("wgpu::"), "{} uses wgpu", path.display());
    }
}

#[test]
fn cuda_stays_in_its_folder() {
    for (path, code) in sources("src") {
        let at_home = path.components().any(|part| part.as_os_str() == "cuda");
        assert!(at_home || !code.contains("cudarc"), "{} calls CUDA", path.display());
    }
}

#[test]
fn anyhow_is_for_the_command_line() {
    for (path, code) in sources("src") {
        let at_home = path.ends_with("src/main.rs") || path.components().any(|part| part.as_os_str() == "cli");
        assert!(at_home || !has_word(&code, "anyhow"), "{} uses anyhow", path.display());
    }
}
