//! Exit codes and the one line that says why.

use bindery::backend::BackendError;
use bindery::llm::LlmError;
use bindery::model::LoadError;
use clap::error::ErrorKind;
use std::process::ExitCode;

/// The device or the file system failed while a sound command ran.
const FAILED: u8 = 1;
/// The user asked for what cannot be.
const MISTAKE: u8 = 2;
/// Stopped by Ctrl-C: 128 + SIGINT, as shells count.
const INTERRUPTED: u8 = 130;

/// A check that was run gave a bad result, or an output could not be written: no mistake of the user.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Failure(pub(super) String);

/// Exit code after Ctrl-C.
pub(super) fn interrupted() -> ExitCode {
    ExitCode::from(INTERRUPTED)
}

/// For a command line that could not be read: help and version as asked for, everything else as one line.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    let asks = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion];
    if asks.contains(&error.kind()) || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // A closed pipe is no reason to complain.
        let _ = error.print();
        return ExitCode::from(if asks.contains(&error.kind()) { 0 } else { MISTAKE });
    }
    let text = error.to_string();
    let told = text.split("\n\nUsage:").next().unwrap_or_default().split("\n\nFor more information").next();
    let line = one_line(told.unwrap_or_default().trim_start_matches("error:"));
    eprintln!("error: {line}; `bindery help` lists commands, `bindery COMMAND --help` their flags");
    ExitCode::from(MISTAKE)
}

/// For a command that failed.
pub(super) fn failure(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", one_line(&format!("{error:#}")));
    ExitCode::from(if is_failure(error) { FAILED } else { MISTAKE })
}

/// Whoever read our output has seen enough, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::BrokenPipe;
    error.downcast_ref::<std::io::Error>().is_some_and(broken)
}

fn is_failure(error: &anyhow::Error) -> bool {
    let device = |error: &BackendError| matches!(error, BackendError::Device(_) | BackendError::OutOfMemory { .. });
    error.chain().any(|cause| {
        cause.is::<Failure>()
            || cause.downcast_ref::<BackendError>().is_some_and(device)
            || match cause.downcast_ref::<LlmError>() {
                Some(LlmError::Backend(error) | LlmError::Load(LoadError::Backend(error))) => device(error),
                _ => false,
            }
    })
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
