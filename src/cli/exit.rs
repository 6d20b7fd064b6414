//! Exit codes and the one line that says why.

use bindery::backend::BackendError;
use bindery::llm::LlmError;
use bindery::model::LoadError;
use clap::error::ErrorKind;
use std::error::Error;
use std::num::{IntErrorKind, ParseFloatError, ParseIntError};
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

/// For a command line that could not be read: help and version as asked for, everything else as one line. `command` is
/// what was called, as far as it is known: `bindery bench latency`.
pub(super) fn usage(error: &clap::Error, command: &str) -> ExitCode {
    let asks = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion];
    if asks.contains(&error.kind()) || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // A closed pipe is no reason to complain.
        let _ = error.print();
        return ExitCode::from(if asks.contains(&error.kind()) { 0 } else { MISTAKE });
    }
    let line = with_reason_in_words(usage_line(&error.to_string()), error.source());
    match error.kind() {
        ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument => {
            eprintln!("error: {line}; `bindery help` lists commands, `bindery COMMAND --help` their flags");
        }
        _ => eprintln!("error: {line}; see `{command} --help`"),
    }
    ExitCode::from(MISTAKE)
}

/// For a command that failed.
pub(super) fn failure(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", one_line(&causes(error)));
    ExitCode::from(if is_failure(error) { FAILED } else { MISTAKE })
}

/// Whoever read our output has seen enough, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::BrokenPipe;
    error.downcast_ref::<std::io::Error>().is_some_and(broken)
}

fn is_failure(error: &anyhow::Error) -> bool {
    let device = |error: &BackendError| {
        matches!(error, BackendError::Device(_) | BackendError::Kernel { .. } | BackendError::OutOfMemory { .. })
    };
    error.chain().any(|cause| {
        cause.is::<Failure>()
            || cause.downcast_ref::<BackendError>().is_some_and(device)
            || match cause.downcast_ref::<LlmError>() {
                Some(LlmError::Backend(error) | LlmError::Load(LoadError::Backend(error))) => device(error),
                _ => false,
            }
    })
}

/// clap's message without usage and pointers; of its tips only what a mistyped name may have meant.
fn usage_line(text: &str) -> String {
    let mut paragraphs = text.split("\n\n").map(str::trim);
    let mut line = one_line(paragraphs.next().unwrap_or_default().trim_start_matches("error:"));
    for tip in paragraphs.filter(|paragraph| paragraph.starts_with("tip:") && paragraph.contains("similar")) {
        line += &one_line(tip).replacen("tip:", ";", 1);
    }
    line
}

/// The line, with the reason that it ends with in plain words.
fn with_reason_in_words(line: String, reason: Option<&(dyn Error + 'static)>) -> String {
    let Some(reason) = reason else { return line };
    match line.strip_suffix(&one_line(&reason.to_string())) {
        Some(start) => start.to_owned() + &in_words(reason),
        None => line,
    }
}

/// Why a value is refused. The standard library says how it failed to read a number, and clap writes ranges as Rust
/// does: neither says what is allowed.
fn in_words(reason: &(dyn Error + 'static)) -> String {
    if reason.is::<ParseFloatError>() {
        return "not a number".into();
    }
    if let Some(error) = reason.downcast_ref::<ParseIntError>() {
        let text = match error.kind() {
            IntErrorKind::PosOverflow => "too large",
            IntErrorKind::NegOverflow => "too small",
            _ => "not a whole number",
        };
        return text.into();
    }
    let text = reason.to_string();
    match text.split_once(" is not in ").and_then(|(_, range)| range.split_once("..=")) {
        Some((least, most)) => format!("must be {least} to {most}"),
        None => one_line(&text),
    }
}

/// The error and its causes; many of ours tell their cause themselves, and it is not told twice.
fn causes(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_clap() {
        let text =
            "error: unexpected argument '--seeed' found\n\n  tip: a similar argument exists: '--seed'\n\nUsage: x\n";
        assert_eq!(usage_line(text), "unexpected argument '--seeed' found; a similar argument exists: '--seed'");
        let text = "error: unexpected argument '-1' found\n\n  tip: to pass '-1' as a value, use '-- -1'\n\nUsage: x\n";
        assert_eq!(usage_line(text), "unexpected argument '-1' found");
        let text = "error: the following required arguments were not provided:\n  --a <A>\n  --b <B>\n\nUsage: x\n";
        assert_eq!(usage_line(text), "the following required arguments were not provided: --a <A> --b <B>");
    }

    #[test]
    fn reasons_are_in_words() {
        let number = clap::value_parser!(u16);
        let reasons = [
            ("80000", "must be 0 to 65535"),
            ("-1", "must be 0 to 65535"),
            ("x", "not a whole number"),
            ("", "not a whole number"),
            ("99999999999999999999", "too large"),
            ("-99999999999999999999", "too small"),
        ];
        for (text, words) in reasons {
            let port = clap::Arg::new("port").allow_negative_numbers(true).value_parser(number);
            let error = clap::Command::new("x").arg(port).try_get_matches_from(["x", text]).unwrap_err();
            assert_eq!(in_words(error.source().expect("why")), words, "{text:?}");
        }
        let error = "warm".parse::<f32>().unwrap_err();
        assert_eq!(with_reason_in_words(format!("'warm': {error}"), Some(&error)), "'warm': not a number");
        assert_eq!(with_reason_in_words("no reason".into(), None), "no reason");
    }

    #[test]
    fn causes_are_told_once() {
        let error = anyhow::anyhow!("no such file").context("a.gguf: no such file").context("loading");
        assert_eq!(causes(&error), "loading: a.gguf: no such file");
    }
}
