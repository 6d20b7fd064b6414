//! `cargo xtask demo`: from a fresh clone to an answer.

use anyhow::Result;

use crate::run::{cargo, command, run as run_command, target_dir};
use crate::{adapters, model};

const PROMPT: &str = "What is the capital of France?";

/// Gets an adapter, the model and a release build, then lets the model answer.
pub fn run(args: &[String]) -> Result<()> {
    let words = args.strip_prefix(&["--".to_owned()]).unwrap_or(args);
    let prompt = if words.is_empty() { PROMPT.to_owned() } else { words.join(" ") };
    adapters::ensure_any()?;
    model::fetch()?;
    run_command(cargo().args(["build", "--release"]))?;
    let bindery = target_dir().join("release").join(format!("bindery{}", std::env::consts::EXE_SUFFIX));
    run_command(command(bindery).args(["run", &prompt]))
}
