//! `bindery run-batch`: a file of requests, all in one continuous batch.

use super::batch_line::BatchLine;
use super::engine_args::EngineArgs;
use super::exit::Failure;
use super::generation_args::GenerationArgs;
use super::load::{bar, load};
use super::notices::Notices;
use anyhow::{Context as _, Result};
use bindery::engine::RequestId;
use bindery::llm::{Event, Llm};
use bindery::sampling::SamplingParams;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

const AFTER_HELP: &str = "\
Each line of the input is a request of OpenAI's batch API, as `vllm run-batch` takes it:
  {\"custom_id\": \"a\", \"method\": \"POST\", \"url\": \"/v1/chat/completions\",
   \"body\": {\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}], \"max_tokens\": 32}}
  {\"custom_id\": \"b\", \"method\": \"POST\", \"url\": \"/v1/completions\",
   \"body\": {\"prompt\": [1, 2, 3], \"temperature\": 0, \"logprobs\": 5, \"return_token_ids\": true}}

Bodies take OpenAI's fields and vLLM's: top_k, min_p, repetition_penalty, stop_token_ids, ignore_eos, min_tokens,
prompt_logprobs, allowed_token_ids, truncate_prompt_tokens, priority, cache_salt, return_token_ids ...
A prompt is text, a list of texts, token ids, or a list of those. `model` may be anything.

Answers come in the order of the input, one line each. A request that cannot be served gets a line with `error`, and
the others go on; the exit code is 0 all the same. `kv` in a body says what the request has cost in KV blocks.

Examples:
  bindery run-batch -i requests.jsonl -o answers.jsonl
  bindery run-batch -i - -o - --max-num-seqs 16 < requests.jsonl | jq .response.body.choices[0].text";

/// Answer a file of OpenAI batch requests, all in one continuous batch
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct RunBatchArgs {
    /// Requests, one JSON object a line; `-` for stdin
    #[arg(long, short, value_name = "FILE")]
    input_file: PathBuf,

    /// Where the answers go; `-` for stdout
    #[arg(long, short, value_name = "FILE")]
    output_file: PathBuf,

    /// Tell device, KV pool and speed on stderr even if it is no terminal
    #[arg(long, short)]
    verbose: bool,

    #[command(flatten)]
    generation: GenerationArgs,

    #[command(flatten)]
    engine: EngineArgs,
}

/// Runs the command.
pub(super) fn run(args: RunBatchArgs) -> Result<ExitCode> {
    let options = args.engine.options()?;
    let input = read(&args.input_file)?;
    let mut output = Output::create(&args.output_file)?;
    let verbose = args.verbose || std::io::stderr().is_terminal();
    let mut llm = load(&options, Notices::Lines)?;
    if verbose {
        eprintln!("{}\n{}", llm.device_description(), llm.kv_memory());
    }
    let defaults = args.generation.params(&llm)?;
    let model = options.model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let start = Instant::now();
    let mut batch = Batch::submit(&input, &defaults, &mut llm, model);
    batch.write_done(&llm, &mut output)?;
    let progress = bar(batch.total as u64, "[{bar:40}] {pos}/{len} requests {elapsed} {msg}");
    let mut events = Vec::new();
    while !llm.is_idle() {
        llm.step(&mut events)?;
        if batch.take(events.drain(..)) {
            batch.write_done(&llm, &mut output)?;
            progress.set_position(batch.total as u64 - batch.unfinished as u64);
        }
        let stats = llm.stats();
        progress.set_message(format!("{} running, {} KV blocks", stats.running_requests, stats.used_blocks));
    }
    batch.write_done(&llm, &mut output)?;
    progress.finish_and_clear();
    output.finish()?;
    if verbose {
        eprintln!("{}", batch.summary(start.elapsed().as_secs_f64(), &llm));
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().read_to_end(&mut bytes),
        false => File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    read.with_context(|| format!("{}: the requests cannot be read", path.display()))?;
    Ok(bytes)
}

/// Where answers go.
struct Output {
    path: PathBuf,
    writer: Box<dyn Write>,
}

impl Output {
    fn create(path: &Path) -> Result<Self> {
        let writer: Box<dyn Write> = match path.as_os_str() == "-" {
            true => Box::new(std::io::stdout()),
            false => {
                let file = File::create(path);
                Box::new(BufWriter::new(file.with_context(|| format!("{}: cannot be written", path.display()))?))
            }
        };
        Ok(Self { path: path.to_owned(), writer })
    }

    fn line(&mut self, line: &serde_json::Value) -> Result<()> {
        let written = writeln!(self.writer, "{line}");
        self.check(written)
    }

    /// Brings everything written so far to the reader.
    fn finish(&mut self) -> Result<()> {
        let flushed = self.writer.flush();
        self.check(flushed)
    }

    fn check(&self, result: std::io::Result<()>) -> Result<()> {
        result.map_err(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => error.into(),
            _ => Failure(format!("{}: {error}", self.path.display())).into(),
        })
    }
}

/// The requests of the file, in its order.
struct Batch {
    /// Those whose answers are not written yet: `lines[i]` is request `first + i`.
    lines: VecDeque<BatchLine>,
    first: usize,
    total: usize,
    /// Requests that are not done.
    unfinished: usize,
    /// Which line and which of its prompts a request of the engine is.
    place: BTreeMap<RequestId, (usize, usize)>,
    model: String,
    created: u64,
    errors: usize,
    prompt_tokens: usize,
    completion_tokens: usize,
}

impl Batch {
    fn submit(input: &[u8], defaults: &SamplingParams, llm: &mut Llm, model: String) -> Self {
        let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut batch = Self {
            lines: VecDeque::new(),
            first: 0,
            total: 0,
            unfinished: 0,
            place: BTreeMap::new(),
            model,
            created,
            errors: 0,
            prompt_tokens: 0,
            completion_tokens: 0,
        };
        let input = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
        for (index, text) in input.split(|byte| *byte == b'\n').enumerate() {
            if text.trim_ascii().is_empty() {
                continue;
            }
            let line = BatchLine::submit(index + 1, text, defaults, llm);
            let places = line.requests().enumerate().map(|(prompt, request)| (request, (batch.total, prompt)));
            batch.place.extend(places);
            batch.unfinished += usize::from(!line.is_done());
            batch.lines.push_back(line);
            batch.total += 1;
        }
        batch
    }

    /// Takes events in; whether a request has ended by one of them.
    fn take(&mut self, events: impl Iterator<Item = Event>) -> bool {
        let before = self.unfinished;
        for event in events {
            let &(index, prompt) = self.place.get(&event.request()).expect("every request is one of ours");
            let line = &mut self.lines[index - self.first];
            line.push(prompt, event);
            self.unfinished -= usize::from(line.is_done());
        }
        self.unfinished < before
    }

    /// Writes the answers that no unfinished request stands before.
    fn write_done(&mut self, llm: &Llm, output: &mut Output) -> Result<()> {
        while self.lines.front().is_some_and(BatchLine::is_done) {
            let line = self.lines.pop_front().expect("just seen");
            self.first += 1;
            let (prompt_tokens, completion_tokens) = line.tokens();
            self.prompt_tokens += prompt_tokens;
            self.completion_tokens += completion_tokens;
            let (answer, is_answer) = line.answer(llm, &self.model, self.created);
            self.errors += usize::from(!is_answer);
            output.line(&answer)?;
        }
        output.finish()
    }

    fn summary(&self, seconds: f64, llm: &Llm) -> String {
        let stats = llm.stats();
        let mut summary = format!(
            "{} requests, {} of them refused, in {seconds:.2} s; {} prompt tokens ({} from the prefix cache), {} \
             completion tokens, {:.1} t/s; {} preemptions",
            self.total,
            self.errors,
            self.prompt_tokens,
            stats.prefix_hit_tokens,
            self.completion_tokens,
            self.completion_tokens as f64 / seconds.max(1e-9),
            stats.preemptions
        );
        if stats.draft_tokens > 0 {
            summary += &format!("; {} of {} drafts right", stats.accepted_draft_tokens, stats.draft_tokens);
        }
        summary
    }
}
