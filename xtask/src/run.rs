//! Running other programs: what is run is printed first, and none of them waits on standard input.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Python's name on this system.
pub const PYTHON: &str = if cfg!(windows) { "python" } else { "python3" };

/// Features that are tested beside the default ones: the CUDA backend loads its libraries when they are there, so that the
/// same binary is tested as without it. Its tests' compilers are those of Linux.
pub const TEST_FEATURES: &[&str] = if cfg!(target_os = "linux") { &["--features", "bindery/cuda"] } else { &[] };

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ lies in the repository")
}

/// Where cargo builds.
pub fn target_dir() -> PathBuf {
    // A relative path counts from the root, where every command runs.
    root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// The cargo that runs this task.
pub fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A command that runs in the root, with no standard input.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// Prints the command, runs it, and fails when it fails.
pub fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    println!("$ {line}");
    let status = command.status().with_context(|| format!("cannot start: {line}"))?;
    ensure!(status.success(), "failed ({status}): {line}");
    Ok(())
}

/// Whether the command can be started and succeeds; its output is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// What the command prints on standard output, trimmed; `None` when it cannot be started or fails.
pub fn stdout(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    // cargo runs tasks with the full path of its own binary, which says nothing to a reader.
    let program = if program.is_absolute() { program.file_stem().unwrap_or_default() } else { program.as_os_str() };
    std::iter::once(program).chain(command.get_args()).map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into_owned() } else { format!("{:?}", &*word) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_typed() {
        assert_eq!(line(command("cargo").args(["test", "--workspace"])), "cargo test --workspace");
        assert_eq!(line(command("bindery").args(["run", "Why is it so?"])), "bindery run \"Why is it so?\"");
    }

    #[test]
    fn an_absent_program_neither_succeeds_nor_prints() {
        assert!(!succeeds(&mut command("bindery-no-such-program")));
        assert_eq!(stdout(&mut command("bindery-no-such-program")), None);
    }
}
