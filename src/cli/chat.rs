//! `bindery chat`: a conversation in the terminal.

use super::engine_args::EngineArgsAfterModel;
use super::load::load;
use super::notices::Notices;
use super::refusal;
use super::sampling_args::SamplingArgs;
use anyhow::{Context as _, Result, bail};
use bindery::engine::RequestAccounting;
use bindery::llm::{Event, FinishCause, Llm};
use bindery::sampling::SamplingParams;
use bindery::text::{ChatInputs, Message};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const HELP: &str = "\
  /help             this list
  /system TEXT      what the assistant is told first; without TEXT, nothing any more
  /set NAME VALUE   temperature, top_p, top_k, max_tokens or seed
  /again            another answer to the last message
  /undo             forget the last message and its answer
  /clear            forget the conversation
  /save FILE        keep the conversation as JSON
  /load FILE        go on with one
  /stats            tokens, blocks and speed of the last answer
  /quit             end; so does Ctrl-D
A line that ends with \\ goes on in the next; \"\"\" begins and ends several lines. Ctrl-C ends an answer.";

const AFTER_HELP: &str = "\
Examples:
  bindery chat
  bindery chat --system \"Answer in one sentence.\" --temperature 0.7 --history-file ~/.bindery_history

In the conversation, /help lists the commands.";

/// Talk to the model
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ChatArgs {
    /// A system message before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    /// Keep what was typed in this file, for the next time
    #[arg(long, value_name = "FILE")]
    history_file: Option<PathBuf>,

    #[command(flatten)]
    sampling: SamplingArgs,

    #[command(flatten)]
    engine: EngineArgsAfterModel,
}

/// Runs the command.
pub(super) fn run(args: ChatArgs) -> Result<ExitCode> {
    let options = args.engine.options()?;
    let params = args.sampling.params(1)?;
    let mut editor = editor(args.history_file.as_deref())?;
    let llm = load(&options, Notices::Lines)?;
    llm.chat_template()?;
    eprintln!("{}\n{}\n/help lists the commands", llm.device_description(), llm.kv_memory());
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst)).context("Ctrl-C cannot be handled")?;
    let mut chat = Chat { llm, params, system: args.system, messages: Vec::new(), interrupted, last: None };
    while let Some(line) = read(&mut editor)? {
        let text = line.trim();
        if text.is_empty() {
            continue;
        }
        editor.add_history_entry(text).context("the line cannot be remembered")?;
        let outcome = match text.strip_prefix('/') {
            Some(command) => chat.obey(command),
            None => chat.ask(Message::user(text)).map(|()| Next::GoOn),
        };
        match outcome {
            Ok(Next::GoOn) => {}
            Ok(Next::End) => break,
            // One bad line does not end a conversation.
            Err(error) => eprintln!("{error:#}"),
        }
    }
    if let Some(file) = &args.history_file {
        editor.save_history(file).with_context(|| format!("--history-file {}: cannot be written", file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The editor, with what was typed before. That its file can be written shows now, not when there is something to lose.
fn editor(history_file: Option<&Path>) -> Result<DefaultEditor> {
    let mut editor = DefaultEditor::new().context("the terminal cannot be read")?;
    if let Some(file) = history_file {
        let opened = OpenOptions::new().create(true).append(true).open(file);
        opened.with_context(|| format!("--history-file {}: cannot be written", file.display()))?;
        editor.load_history(file).with_context(|| format!("--history-file {}: cannot be read", file.display()))?;
    }
    Ok(editor)
}

/// What a person types until Enter; `None` at the end.
fn read(editor: &mut DefaultEditor) -> Result<Option<String>> {
    let mut text = String::new();
    let mut is_quoted = false;
    loop {
        let line = match editor.readline(if text.is_empty() && !is_quoted { "> " } else { ". " }) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                eprintln!("(Ctrl-D or /quit ends)");
                return Ok(Some(String::new()));
            }
            Err(ReadlineError::Eof) => return Ok((!text.is_empty()).then_some(text)),
            Err(error) => return Err(error).context("the terminal cannot be read"),
        };
        let marks = line.matches("\"\"\"").count();
        is_quoted ^= marks % 2 == 1;
        let line = line.replace("\"\"\"", "");
        match line.strip_suffix('\\') {
            Some(line) => text = text + line + "\n",
            None if is_quoted => text = text + &line + "\n",
            None => return Ok(Some(text + &line)),
        }
    }
}

/// Whether the conversation goes on.
enum Next {
    GoOn,
    End,
}

struct Chat {
    llm: Llm,
    params: SamplingParams,
    system: Option<String>,
    messages: Vec<Message>,
    interrupted: Arc<AtomicBool>,
    last: Option<Spent>,
}

/// What an answer took.
struct Spent {
    prompt_tokens: usize,
    completion_tokens: usize,
    seconds: f64,
    accounting: Option<RequestAccounting>,
}

impl Chat {
    fn obey(&mut self, command: &str) -> Result<Next> {
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match name {
            "help" => eprintln!("{HELP}"),
            "system" => self.system = (!rest.is_empty()).then(|| rest.to_owned()),
            "set" => self.set(rest)?,
            "again" => {
                let question = self.undo().context("there is no message to answer again")?;
                // A greedy answer would be the same.
                self.params.seed = Some(self.params.seed.unwrap_or(0).wrapping_add(1));
                self.ask(question)?;
            }
            "undo" => self.undo().map(drop).context("there is nothing to forget")?,
            "clear" => self.messages.clear(),
            "save" => self.save(Path::new(rest))?,
            "load" => self.load(Path::new(rest))?,
            "stats" => self.stats(),
            "quit" | "exit" | "bye" => return Ok(Next::End),
            _ => bail!("/{name}: there is no such command; /help lists them"),
        }
        Ok(Next::GoOn)
    }

    fn set(&mut self, text: &str) -> Result<()> {
        let (name, value) = text.split_once(char::is_whitespace).context("as in /set temperature 0.7")?;
        let value = value.trim();
        let refuse = || format!("{name}: {value:?} is no number");
        let mut params = self.params.clone();
        match name {
            "temperature" => params.temperature = value.parse().with_context(refuse)?,
            "top_p" => params.top_p = value.parse().with_context(refuse)?,
            "top_k" => params.top_k = value.parse().with_context(refuse)?,
            "max_tokens" => params.max_tokens = Some(value.parse().with_context(refuse)?),
            "seed" => params.seed = Some(value.parse().with_context(refuse)?),
            _ => bail!("{name}: there is temperature, top_p, top_k, max_tokens and seed"),
        }
        params.validate(self.llm.model_config().vocab_size as usize, &Default::default())?;
        self.params = params;
        Ok(())
    }

    /// Takes back the last message of the user, with what followed it.
    fn undo(&mut self) -> Option<Message> {
        let at = self.messages.iter().rposition(|message| message.role == "user")?;
        let question = self.messages[at].clone();
        self.messages.truncate(at);
        Some(question)
    }

    fn save(&self, file: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(&self.conversation())?;
        fs::write(file, json + "\n").with_context(|| format!("{}: cannot be written", file.display()))?;
        eprintln!("{} messages in {}", self.conversation().len(), file.display());
        Ok(())
    }

    fn load(&mut self, file: &Path) -> Result<()> {
        let json = fs::read(file).with_context(|| format!("{}: cannot be read", file.display()))?;
        let read: Vec<Message> =
            serde_json::from_slice(&json).with_context(|| format!("{}: no conversation", file.display()))?;
        let (system, messages): (Vec<_>, Vec<_>) = read.into_iter().partition(|message| message.role == "system");
        self.system = system.first().and_then(|message| message.content.as_str()).map(str::to_owned);
        self.messages = messages;
        eprintln!("{} messages", self.messages.len());
        Ok(())
    }

    fn stats(&self) {
        let Some(spent) = &self.last else {
            eprintln!("nothing has been answered yet");
            return;
        };
        eprintln!(
            "{} prompt tokens, {} completion tokens in {:.1} s: {:.1} t/s",
            spent.prompt_tokens,
            spent.completion_tokens,
            spent.seconds,
            spent.completion_tokens as f64 / spent.seconds.max(1e-9)
        );
        if let Some(accounting) = &spent.accounting {
            eprintln!(
                "{} tokens from the prefix cache; {} KV blocks taken, {} shared",
                accounting.cached_tokens, accounting.blocks_allocated, accounting.blocks_shared
            );
            if accounting.draft_tokens > 0 {
                eprintln!("{} of {} drafts right", accounting.accepted_draft_tokens, accounting.draft_tokens);
            }
        }
    }

    fn conversation(&self) -> Vec<Message> {
        self.system.iter().map(|system| Message::system(system.as_str())).chain(self.messages.iter().cloned()).collect()
    }

    /// Answers `question` on stdout, and remembers both.
    fn ask(&mut self, question: Message) -> Result<()> {
        self.messages.push(question);
        let answer = self.answer();
        match &answer {
            Ok(text) => self.messages.push(Message::assistant(text.as_str())),
            Err(_) => drop(self.messages.pop()),
        }
        answer.map(drop)
    }

    fn answer(&mut self) -> Result<String> {
        let template = self.llm.chat_template()?.clone();
        let token_ids = template.encode_chat(self.llm.tokenizer()?, &self.conversation(), ChatInputs::answer())?;
        let prompt_tokens = token_ids.len();
        let start = Instant::now();
        self.interrupted.store(false, Ordering::SeqCst);
        let request = self.llm.add(token_ids, self.params.clone());
        let request =
            request.map_err(|error| refusal::with_flag(error, &self.llm)).context("/undo or /clear makes room")?;
        let (mut text, mut completion_tokens, mut accounting) = (String::new(), 0, None);
        let (mut failure, mut events) = (None, Vec::new());
        while !self.llm.is_idle() && !self.interrupted.load(Ordering::SeqCst) {
            self.llm.step(&mut events)?;
            for event in events.drain(..) {
                match event {
                    Event::Token(update) => {
                        completion_tokens += usize::from(update.token.is_some());
                        let mut stdout = std::io::stdout().lock();
                        stdout.write_all(update.text.as_bytes()).and_then(|()| stdout.flush())?;
                        text += &update.text;
                        if let Some(FinishCause::Error(error) | FinishCause::Refused(error)) =
                            update.finish.map(|finish| finish.cause)
                        {
                            failure = Some(error);
                        }
                    }
                    Event::Done { accounting: spent, .. } => accounting = Some(spent),
                    Event::PromptLogprobs { .. } => {}
                }
            }
        }
        self.llm.abort(request);
        writeln!(std::io::stdout())?;
        self.last =
            Some(Spent { prompt_tokens, completion_tokens, seconds: start.elapsed().as_secs_f64(), accounting });
        match failure {
            Some(error) => bail!(error),
            None => Ok(text),
        }
    }
}
