//! `bindery bench serve`: any OpenAI-compatible server under load, as its clients see it.

mod client;
mod load;
mod report;

use super::super::exit::Failure;
use super::super::load::bar;
use super::super::units::at_least;
use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use client::{Answer, Client};
use load::{Load, Planned};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const AFTER_HELP: &str = "\
Prompts are random words, so that nothing comes from a prefix cache; about one token each, as the server's own count
says in the end. TTFT is the time to the first chunk with text, ITL the time between two chunks, TPOT the mean time per
token after the first, E2EL the whole. The fields of the JSON are those of vLLM's benchmark.

Examples:
  bindery bench serve                                     at http://127.0.0.1:8000
  bindery bench serve --num-prompts 200 --request-rate 4  Poisson arrivals
  bindery bench serve --base-url http://gpu-host:8000 --max-concurrency 32
  bindery bench serve --output-json run.json --output-html run.html";

/// A server under load: time to first token, time between tokens, throughput
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ServeArgs {
    /// Where the server is (http only)
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    base_url: String,

    /// What is asked: completions or chat
    #[arg(long, value_name = "ENDPOINT", default_value = "completions")]
    endpoint: Endpoint,

    /// The model to ask for [default: the first that the server lists]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Sent as `Authorization: Bearer KEY`
    #[arg(long, value_name = "KEY", env = "OPENAI_API_KEY", hide_env_values = true)]
    api_key: Option<String>,

    /// Requests
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    num_prompts: u32,

    /// Requests a second; inf for all at once
    #[arg(long, value_name = "RATE", default_value = "inf")]
    request_rate: f64,

    /// Send them evenly, not as a Poisson process does
    #[arg(long)]
    fixed_rate: bool,

    /// Requests that are being answered at the same time, at most [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_535))]
    max_concurrency: Option<u32>,

    /// Lengths: fixed (--input-len, --output-len), or log-normal as in sharegpt or alpaca
    #[arg(long, value_name = "NAME", default_value = "fixed")]
    lengths: Lengths,

    /// Words of each prompt, with --lengths fixed
    #[arg(long, value_name = "WORDS", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    input_len: u32,

    /// Tokens of each answer, with --lengths fixed
    #[arg(long, value_name = "TOKENS", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    output_len: u32,

    /// Longest prompt and answer together, with the other lengths
    #[arg(long, value_name = "TOKENS", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    max_model_len: u32,

    /// Words that all prompts begin with
    #[arg(long, value_name = "WORDS", default_value_t = 0)]
    prefix_len: u32,

    /// Seed of lengths, words and arrivals
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = at_least(0_u64))]
    seed: u64,

    /// Keep everything in this file
    #[arg(long, value_name = "FILE")]
    output_json: Option<PathBuf>,

    /// Draw latencies over time here
    #[arg(long, value_name = "FILE")]
    output_html: Option<PathBuf>,
}

/// Which of the server's endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Endpoint {
    Completions,
    Chat,
}

/// How long prompts and answers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Lengths {
    Fixed,
    Sharegpt,
    Alpaca,
}

/// A request, and how it was answered.
#[derive(Debug)]
struct Served {
    /// Seconds from the start of the benchmark.
    sent_at: f64,
    planned_output: u32,
    answer: Result<Answer, String>,
}

/// Runs the command.
pub(super) fn run(args: ServeArgs) -> Result<ExitCode> {
    if args.request_rate.is_nan() || args.request_rate <= 0.0 {
        bail!("--request-rate {}: must be above 0; inf for all at once", args.request_rate);
    }
    let load = Load::new(&args)?;
    let runtime = tokio::runtime::Runtime::new().context("the system gives no threads")?;
    let (model, served, duration) = runtime.block_on(bench(&args, load))?;
    let report = report::Report::new(&args, model, &served, duration);
    let write = |path: &PathBuf, text: String| {
        fs::write(path, text).map_err(|error| Failure(format!("{}: {error}", path.display())))
    };
    if let Some(path) = &args.output_json {
        write(path, serde_json::to_string_pretty(&report.json())? + "\n")?;
    }
    if report.completed() == 0 {
        return Err(Failure(format!("no request was answered: {}", report.first_error())).into());
    }
    if let Some(path) = &args.output_html {
        write(path, report.html()?)?;
    }
    writeln!(std::io::stdout(), "{}", report.text())?;
    Ok(ExitCode::SUCCESS)
}

/// Sends everything, and waits for the last answer.
async fn bench(args: &ServeArgs, load: Load) -> Result<(String, Vec<Served>, f64)> {
    let client = Client::new(&args.base_url, args.endpoint, args.api_key.clone())?;
    let model = match &args.model {
        Some(model) => model.clone(),
        None => client.first_model().await?,
    };
    // The first request of a server may compile kernels: it does not count.
    client.ask(&model, &Planned { at: 0.0, prompt: "Hello".into(), output_tokens: 1 }).await.map_err(Failure)?;
    let client = Arc::new(client);
    let seats = Arc::new(Semaphore::new(args.max_concurrency.map_or(Semaphore::MAX_PERMITS, |most| most as usize)));
    let progress = bar(u64::from(args.num_prompts), "[{bar:40}] {pos}/{len} requests {elapsed}");
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (number, planned) in load.requests.into_iter().enumerate() {
        let (client, seats, model, progress) = (client.clone(), seats.clone(), model.clone(), progress.clone());
        tasks.spawn(async move {
            tokio::time::sleep_until((start + std::time::Duration::from_secs_f64(planned.at)).into()).await;
            let _seat = seats.acquire().await.expect("it is never closed");
            let sent_at = start.elapsed().as_secs_f64();
            let answer = client.ask(&model, &planned).await;
            progress.inc(1);
            (number, Served { sent_at, planned_output: planned.output_tokens, answer })
        });
    }
    let mut served = tasks.join_all().await;
    let duration = start.elapsed().as_secs_f64();
    progress.finish_and_clear();
    served.sort_by_key(|(number, _)| *number);
    Ok((model, served.into_iter().map(|(_, served)| served).collect(), duration))
}
