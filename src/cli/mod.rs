//! The command line: one file for each subcommand.
//!
//! What a user gets wrong is one line on stderr and exit code 2; what a device gets wrong at run time is exit code 1.

mod batch_line;
mod bench;
mod charts;
mod chat;
mod devices;
mod engine_args;
mod exit;
mod generation_args;
mod ignored_args;
mod load;
mod notices;
mod profile_report;
mod refusal;
mod run;
mod run_batch;
mod sampling_args;
mod selftest;
mod serve;
mod simulate;
mod table;
mod units;

use clap::{Command as ClapCommand, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

const AFTER_HELP: &str = "\
Examples:
  bindery devices
  bindery run \"What is the capital of France?\"
  bindery serve --port 8000
  bindery run --raw --max-tokens 32 \"Once upon a time\"

The model is that of --model, or of the environment variable BINDERY_MODEL, or
models/SmolLM2-135M-Instruct.Q4_1.gguf, which `cargo xtask model` fetches in a checkout.
`bindery COMMAND --help` explains each command. Flags bear vLLM's names where vLLM has them.";

/// LLM inference with PagedAttention on every GPU: Vulkan, Metal and DirectX 12, by WGSL compute shaders.
#[derive(Debug, Parser)]
#[command(name = "bindery", version, after_help = AFTER_HELP, max_term_width = 100, infer_long_args = false)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Chat(chat::ChatArgs),
    RunBatch(run_batch::RunBatchArgs),
    Serve(Box<serve::ServeArgs>),
    Devices(devices::DevicesArgs),
    Selftest(selftest::SelftestArgs),
    Bench(bench::BenchArgs),
    Simulate(simulate::SimulateArgs),
}

/// What all commands have in common. Every value may be a negative number: whoever reads it says what it should have
/// been. Text after the flags is as wide as the terminal, wherever its lines end in the source.
fn prepared(command: ClapCommand) -> ClapCommand {
    let after_help = command.get_after_help().map(|text| joined_lines(&text.to_string()));
    let command = match after_help {
        Some(text) => command.after_help(text),
        None => command,
    };
    let command = command.mut_args(|arg| match arg.get_action().takes_values() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    });
    command.mut_subcommands(prepared)
}

/// Joins the lines of each paragraph. Indented lines, and what announces them, stay as they are.
fn joined_lines(text: &str) -> String {
    let mut joined = String::new();
    let is_prose = |line: &str| !line.is_empty() && !line.starts_with(' ');
    let mut before = "";
    for line in text.lines() {
        let goes_on = is_prose(before) && is_prose(line) && !before.ends_with(':');
        joined.push_str(if goes_on { " " } else { "\n" });
        joined.push_str(line);
        before = line;
    }
    joined.trim_start_matches('\n').to_owned()
}

/// As much of a command line as names a command: `bindery bench latency`.
fn called(command: &ClapCommand, args: impl Iterator<Item = OsString>) -> String {
    let (mut command, mut name) = (command, command.get_name().to_owned());
    for arg in args.skip(1) {
        let Some(subcommand) = command.find_subcommand(arg) else { break };
        command = subcommand;
        name = format!("{name} {}", command.get_name());
    }
    name
}

/// Reads the command line, runs the command, and says how it went.
pub fn main() -> ExitCode {
    let mut command = prepared(Cli::command());
    let matches = command.try_get_matches_from_mut(std::env::args_os());
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error, &called(&command, std::env::args_os())),
    };
    let result = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Chat(args) => chat::run(args),
        Command::RunBatch(args) => run_batch::run(args),
        Command::Serve(args) => serve::run(*args),
        Command::Devices(args) => devices::run(&args),
        Command::Selftest(args) => selftest::run(&args),
        Command::Bench(args) => bench::run(args),
        Command::Simulate(args) => simulate::run(&args),
    };
    result.unwrap_or_else(|error| exit::failure(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_called_ends_where_the_flags_begin() {
        let of = |line: &str| called(&Cli::command(), line.split(' ').map(OsString::from));
        assert_eq!(of("/usr/bin/bindery"), "bindery");
        assert_eq!(of("bindery nosuch run"), "bindery");
        assert_eq!(of("bindery run serve"), "bindery run");
        assert_eq!(of("bindery bench latency --input-len x"), "bindery bench latency");
    }
}
