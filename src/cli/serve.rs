//! `bindery serve`: the OpenAI-compatible server.

use super::engine_args::EngineArgsAfterModel;
use super::exit::Failure;
use super::generation_args::GenerationArgs;
use super::ignored_args::IgnoredArgs;
use super::load::load;
use super::notices::Notices;
use super::units::{at_least, human_number};
use anyhow::{Context as _, Result, bail};
use bindery::engine::DEFAULT_BLOCK_SIZE;
use bindery::llm::LlmOptions;
use bindery::server::{
    App, CorsPolicy, EngineState, KvEventsConfig, ServerConfig, StepObserver, publish_kv_events, router, serve,
};
use clap::ValueEnum;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;
use zeromq::Endpoint;

const AFTER_HELP: &str = "\
Examples:
  bindery serve --port 8000
  curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}], \"stream\": true}'

RUST_LOG sets the log level, as in RUST_LOG=debug; nothing is sent to anybody but the clients.";

/// Serve the model over HTTP, as OpenAI's API and vLLM's extensions of it
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ServeArgs {
    /// Address to listen on; 0.0.0.0 for every one of this machine's
    #[arg(long, default_value = "127.0.0.1")]
    host: String,

    /// Port to listen on; 0 for a free one, which the banner tells
    #[arg(long, default_value_t = 8000)]
    port: u16,

    /// What clients call the model; several names may be given [default: the file's name]
    #[arg(long, value_name = "NAME", num_args = 1..)]
    served_model_name: Vec<String>,

    /// Keys of which clients must send one as `Authorization: Bearer KEY`
    #[arg(long, value_name = "KEY", num_args = 1.., env = "BINDERY_API_KEY", hide_env_values = true)]
    api_key: Vec<String>,

    /// Requests that may wait for a seat; further ones get 503 [default: no limit]
    #[arg(long, value_name = "N", value_parser = at_least(0_usize))]
    max_num_queued_reqs: Option<usize>,

    /// Largest body of a request
    #[arg(long, value_name = "BYTES", value_parser = human_number, default_value = "32Mi")]
    max_body_bytes: u64,

    /// Largest header block of a request
    #[arg(long, value_name = "BYTES", value_parser = human_number, default_value = "64Ki")]
    max_header_bytes: u64,

    /// Prompts in one request, at most
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = at_least(1_usize))]
    max_prompts: usize,

    /// Largest `n` and `best_of` of a request
    #[arg(long, value_name = "N", default_value_t = 16384, value_parser = at_least(1_u32))]
    max_n: u32,

    /// Seconds that a request may take in all [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = at_least(0_u64))]
    request_timeout: Option<u64>,

    /// Seconds that a client may leave what it is sent unread
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = at_least(1_u64))]
    write_timeout: u64,

    /// Seconds that requests may go on after SIGTERM or Ctrl-C
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = at_least(0_u64))]
    shutdown_timeout: u64,

    /// Origins whose pages may call the server
    #[arg(long, value_name = "ORIGIN", num_args = 1.., default_value = "*")]
    allowed_origins: Vec<String>,

    /// Methods that they may use
    #[arg(long, value_name = "METHOD", num_args = 1.., default_value = "*")]
    allowed_methods: Vec<String>,

    /// Headers that they may send
    #[arg(long, value_name = "HEADER", num_args = 1.., default_value = "*")]
    allowed_headers: Vec<String>,

    /// Let them send credentials
    #[arg(long)]
    allow_credentials: bool,

    /// No page at `/`
    #[arg(long)]
    no_ui: bool,

    /// Publish what the prefix cache gains and loses over ZeroMQ, as JSON with vLLM's fields: enable_kv_cache_events,
    /// endpoint, replay_endpoint, topic, buffer_steps, max_queue_size, publisher
    #[arg(long, value_name = "JSON", value_parser = kv_events_config)]
    kv_events_config: Option<KvEventsConfig>,

    /// Log each request's sampling parameters and prompt length
    #[arg(long)]
    enable_log_requests: bool,

    /// How logs on stderr look
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,

    #[command(flatten)]
    generation: GenerationArgs,

    #[command(flatten)]
    ignored: IgnoredArgs,

    #[command(flatten)]
    engine: EngineArgsAfterModel,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Runs the command.
pub(super) fn run(args: ServeArgs) -> Result<ExitCode> {
    let options = args.engine.options()?;
    let mut config = args.config(&options)?;
    let cors = CorsPolicy::new(&config)?;
    let notices = args.log_format.install();
    if let Some(warning) = args.ignored.warning() {
        notices.warn(warning);
    }
    let runtime = tokio::runtime::Runtime::new().context("the system gives no threads")?;
    let address = format!("{}:{}", args.host, args.port);
    // The ports first: that one is taken shows before the model is loaded.
    let listener = runtime
        .block_on(TcpListener::bind((args.host.trim_matches(['[', ']']), args.port)))
        .with_context(|| format!("{address} cannot be listened on: choose another --host or --port"))?;
    let mut observers: Vec<Box<dyn StepObserver>> = Vec::new();
    if let Some(events) = &args.kv_events_config {
        let published = runtime.block_on(publish_kv_events(events, DEFAULT_BLOCK_SIZE));
        if let Some((observer, source)) = published.context("--kv-events-config")? {
            notices.info(format_args!("KV events at {}", source.endpoint));
            observers.push(Box::new(observer));
            config.kv_event_sources.push(source);
        }
    }
    let llm = load(&options, notices)?;
    notices.info(llm.device_description());
    notices.info(llm.kv_memory());
    config.default_params = args.generation.params(&llm)?;
    let defaults = &config.default_params;
    notices.info(format_args!(
        "requests sample at temperature {}, top_p {}, top_k {} unless they say otherwise",
        defaults.temperature, defaults.top_p, defaults.top_k
    ));
    let app = App::start(llm, config, args.max_num_queued_reqs, observers);
    let router = router(app.clone(), cors);
    let names = app.config.served_model_names.join(", ");
    notices.info(format_args!("serving {names} at http://{}", listener.local_addr()?));
    match runtime.block_on(serve(listener, app, router, interrupt)) {
        EngineState::Failed(error) => Err(Failure(format!("the engine has failed: {error}")).into()),
        EngineState::Running | EngineState::Stopped => {
            // Connections that were cut off are dropped, not waited for.
            runtime.shutdown_background();
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl ServeArgs {
    fn config(&self, options: &LlmOptions) -> Result<ServerConfig> {
        if self.api_key.iter().any(String::is_empty) {
            bail!("--api-key is empty: give a key, or leave the flag out");
        }
        if self.served_model_name.iter().any(String::is_empty) {
            bail!("--served-model-name is empty: give a name, or leave the flag out");
        }
        let seconds = Duration::from_secs;
        let file_name = options.model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut config = ServerConfig::new(file_name);
        if !self.served_model_name.is_empty() {
            config.served_model_names.clone_from(&self.served_model_name);
        }
        Ok(ServerConfig {
            api_keys: self.api_key.clone(),
            max_body_bytes: usize::try_from(self.max_body_bytes).context("--max-body-bytes is too large")?,
            max_header_bytes: usize::try_from(self.max_header_bytes).context("--max-header-bytes is too large")?,
            max_prompts: self.max_prompts,
            max_n: self.max_n,
            request_timeout: self.request_timeout.map(seconds),
            write_timeout: seconds(self.write_timeout),
            shutdown_timeout: seconds(self.shutdown_timeout),
            allowed_origins: self.allowed_origins.clone(),
            allowed_methods: self.allowed_methods.clone(),
            allowed_headers: self.allowed_headers.clone(),
            allow_credentials: self.allow_credentials,
            ui: !self.no_ui,
            log_requests: self.enable_log_requests,
            ..config
        })
    }
}

impl LogFormat {
    /// Installs the log; says in which form the banner is to come.
    fn install(self) -> Notices {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("bindery=info,warn"));
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let has_colors = std::io::stderr().is_terminal() && !is_plain;
        let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(has_colors);
        match self {
            Self::Text => {
                logs.init();
                Notices::Lines
            }
            Self::Json => {
                logs.json().init();
                Notices::Events
            }
        }
    }
}

fn kv_events_config(json: &str) -> Result<KvEventsConfig, String> {
    let config: KvEventsConfig = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let endpoints = [("endpoint", Some(&config.endpoint)), ("replay_endpoint", config.replay_endpoint.as_ref())];
    for (name, endpoint) in endpoints {
        if let Some(text) = endpoint.filter(|text| !matches!(text.parse(), Ok(Endpoint::Tcp(..)))) {
            return Err(format!("{name} {text:?}: must be like tcp://127.0.0.1:5557"));
        }
    }
    Ok(config)
}

/// Comes back at SIGTERM or Ctrl-C.
async fn interrupt() {
    let ctrl_c = async { tokio::signal::ctrl_c().await.expect("the system takes signal handlers") };
    #[cfg(unix)]
    let terminate = async {
        let kind = tokio::signal::unix::SignalKind::terminate();
        tokio::signal::unix::signal(kind).expect("the system takes signal handlers").recv().await;
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = ctrl_c => (),
        () = terminate => (),
    }
}
