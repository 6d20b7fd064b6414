//! `bindery run`: one prompt, answered as it comes.

use super::engine_args::EngineArgs;
use super::exit;
use super::load::load;
use super::notices::Notices;
use super::profile_report;
use super::refusal;
use super::sampling_args::SamplingArgs;
use anyhow::{Context as _, Result, bail};
use bindery::engine::{RequestAccounting, TokenId};
use bindery::llm::{Event, FinishCause, Llm, TokenUpdate};
use bindery::text::{ChatInputs, Message};
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const AFTER_HELP: &str = "\
Examples:
  bindery run \"What is the capital of France?\"
  bindery run --system \"Answer in one word.\" \"What is the capital of France?\"
  bindery run --raw --max-tokens 40 \"Once upon a time\"
  bindery run --temperature 0.8 -n 3 --seed 7 \"Name a colour\"
  git diff | bindery run --system \"Summarise this change.\" --max-model-len 4096

With --raw the prompt is continued as it is. stdout gets the answer and nothing else. Device, KV pool and speed go to
stderr when that is a terminal, or with --verbose. Ctrl-C ends the answer where it is.";

/// Answer one prompt, text as it comes
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct RunArgs {
    /// What to answer; read from stdin when it is left out
    prompt: Option<String>,

    // Taken only to be refused with a hint: whoever comes from ollama writes the model first.
    #[arg(hide = true)]
    further: Option<String>,

    /// Continue the prompt as it is, without the model's chat template
    #[arg(long, conflicts_with_all = ["chat_template", "default_chat_template_kwargs"])]
    raw: bool,

    /// A system message before the prompt
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,

    /// Tell device, KV pool and speed on stderr even if it is no terminal
    #[arg(long, short)]
    verbose: bool,

    #[command(flatten)]
    sampling: SamplingArgs,

    /// Answers to make, each with other random numbers; needs a --temperature above 0
    #[arg(short, value_name = "N", default_value_t = 1, help_heading = "Sampling")]
    n: u32,

    #[command(flatten)]
    engine: EngineArgs,
}

/// Runs the command.
pub(super) fn run(args: RunArgs) -> Result<ExitCode> {
    let options = args.engine.options()?;
    let params = args.sampling.params(args.n)?;
    let prompt = prompt(args.prompt, args.further)?;
    let verbose = args.verbose || std::io::stderr().is_terminal();
    let mut llm = load(&options, Notices::Lines)?;
    if verbose {
        eprintln!("{}\n{}", llm.device_description(), llm.kv_memory());
    }
    let token_ids = encode(&llm, &prompt, args.raw, args.system.as_deref())?;
    let (prompt_tokens, completions) = (token_ids.len(), params.num_sequences());
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    ctrlc::set_handler(move || {
        // The second time at once, whatever the device is doing.
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    })
    .context("Ctrl-C cannot be handled")?;

    let mut answer = Answer::new(completions);
    let request = llm.add(token_ids, params).map_err(|error| refusal::with_flag(error, &llm))?;
    let mut events = Vec::new();
    while !llm.is_idle() && !interrupted.load(Ordering::SeqCst) {
        llm.step(&mut events)?;
        for event in events.drain(..) {
            answer.push(event)?;
        }
    }
    let was_interrupted = llm.abort(request);
    answer.end()?;
    if verbose {
        eprintln!("{}", answer.summary(prompt_tokens));
    }
    if let Some(profile) = llm.profile() {
        eprintln!("{}", profile_report::text(profile));
    }
    match answer.error {
        Some(error) => Err(exit::Failure(error).into()),
        None if was_interrupted => Ok(exit::interrupted()),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The argument, or what comes from stdin when that is a file or a pipe.
fn prompt(argument: Option<String>, further: Option<String>) -> Result<String> {
    if let Some(further) = further {
        bail!("{further:?}: one prompt is answered, so quote it if it has spaces; the model is named with --model");
    }
    let is_model = |text: &String| text.ends_with(".gguf") && Path::new(text).exists();
    let prompt = match argument {
        Some(path) if is_model(&path) => {
            bail!("{path} is a model and no prompt: name it with --model, as in `bindery run --model {path} \"Hello\"`")
        }
        Some(prompt) => prompt,
        None if std::io::stdin().is_terminal() => {
            bail!("no prompt: give it as an argument, as in `bindery run \"Hello\"`, or pipe it in")
        }
        None => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("the prompt on stdin cannot be read")?;
            text.truncate(text.trim_end_matches(['\r', '\n']).len());
            text
        }
    };
    if prompt.is_empty() {
        bail!("the prompt is empty: give some text to answer");
    }
    Ok(prompt)
}

fn encode(llm: &Llm, prompt: &str, raw: bool, system: Option<&str>) -> Result<Vec<TokenId>> {
    let tokenizer = llm.tokenizer()?;
    if raw {
        return Ok(tokenizer.encode(prompt, true)?);
    }
    let mut messages: Vec<Message> = system.map(Message::system).into_iter().collect();
    messages.push(Message::user(prompt));
    let template = llm.chat_template().map_err(|error| anyhow::anyhow!("{error}; or use --raw"))?;
    Ok(template.encode_chat(tokenizer, &messages, ChatInputs::answer())?)
}

/// The answer on its way to stdout. One completion streams; several would mingle, so each is printed whole, with a header.
struct Answer {
    start: Instant,
    /// When each completion token came.
    token_times: Vec<Duration>,
    texts: Vec<String>,
    ends_with_newline: bool,
    causes: Vec<FinishCause>,
    accounting: Option<RequestAccounting>,
    error: Option<String>,
}

impl Answer {
    fn new(completions: u32) -> Self {
        Self {
            start: Instant::now(),
            token_times: Vec::new(),
            texts: vec![String::new(); completions as usize],
            ends_with_newline: false,
            causes: Vec::new(),
            accounting: None,
            error: None,
        }
    }

    fn push(&mut self, event: Event) -> Result<()> {
        match event {
            Event::PromptLogprobs { .. } => {}
            Event::Done { accounting, .. } => self.accounting = Some(accounting),
            Event::Token(TokenUpdate { index, token, text, finish, .. }) => {
                self.token_times.extend(token.map(|_| self.start.elapsed()));
                if self.texts.len() == 1 {
                    self.write(&text)?;
                } else {
                    self.texts[index as usize].push_str(&text);
                }
                if let Some(finish) = finish {
                    if let FinishCause::Error(error) | FinishCause::Refused(error) = &finish.cause {
                        self.error = Some(error.clone());
                    }
                    self.causes.push(finish.cause);
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, text: &str) -> Result<()> {
        if !text.is_empty() {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())?;
            self.ends_with_newline = text.ends_with('\n');
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if self.texts.len() > 1 {
            for (index, text) in std::mem::take(&mut self.texts).into_iter().enumerate() {
                self.write(&format!("--- completion {index} ---\n{text}\n"))?;
            }
        }
        if self.ends_with_newline { Ok(()) } else { self.write("\n") }
    }

    fn summary(&self, prompt_tokens: usize) -> String {
        let total = self.start.elapsed();
        let first = self.token_times.first().copied().unwrap_or(total);
        let later = self.token_times.iter().filter(|time| **time > first).count();
        let rate = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
        let mut line = format!(
            "{prompt_tokens} prompt tokens at {:.1} t/s, {} completion tokens",
            rate(prompt_tokens, first),
            self.token_times.len()
        );
        if later > 0 {
            line += &format!(" at {:.1} t/s", rate(later, total.saturating_sub(first)));
        }
        line += &format!("; TTFT {:.0} ms", first.as_secs_f64() * 1e3);
        if let Some(accounting) = &self.accounting {
            line += &format!("; {} KV blocks, {} shared", accounting.blocks_allocated, accounting.blocks_shared);
            if accounting.draft_tokens > 0 {
                line += &format!("; {} of {} drafts right", accounting.accepted_draft_tokens, accounting.draft_tokens);
            }
        }
        let causes: Vec<String> = self.causes.iter().map(cause).collect();
        if causes.is_empty() { line + "; interrupted" } else { format!("{line}; ended by {}", causes.join(", ")) }
    }
}

fn cause(cause: &FinishCause) -> String {
    match cause {
        FinishCause::Eos => "end of sequence".into(),
        FinishCause::StopToken(token) => format!("stop token {token}"),
        FinishCause::StopString(text) => format!("{text:?}"),
        FinishCause::Length => "length".into(),
        FinishCause::Error(error) | FinishCause::Refused(error) => format!("error: {error}"),
    }
}
