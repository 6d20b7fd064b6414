//! What the operator decides.

use super::KvEventSource;
use crate::sampling::SamplingParams;
use std::time::Duration;

/// How the server behaves; the names are vLLM's where it has them.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// What clients call the model; the first is what answers say. At least one.
    pub served_model_names: Vec<String>,
    /// Keys of which a client must send one; none for no check.
    pub api_keys: Vec<String>,
    /// Largest body in bytes.
    pub max_body_bytes: usize,
    /// Largest header block of a request in bytes.
    pub max_header_bytes: usize,
    /// Prompts in one request, at most.
    pub max_prompts: usize,
    /// Completions of one prompt, at most.
    pub max_n: u32,
    /// How long a client may take to send its headers, and its body.
    pub read_timeout: Duration,
    /// How long a client may leave what it is sent unread; then its connection is closed.
    pub write_timeout: Duration,
    /// How long a request may take in all; `None` for as long as it needs.
    pub request_timeout: Option<Duration>,
    /// How long requests may go on once the server was told to end.
    pub shutdown_timeout: Duration,
    /// Origins whose pages may call the server; `*` for any.
    pub allowed_origins: Vec<String>,
    /// Methods they may use; `*` for any.
    pub allowed_methods: Vec<String>,
    /// Headers they may send; `*` for any.
    pub allowed_headers: Vec<String>,
    /// Whether they may send credentials.
    pub allow_credentials: bool,
    /// Whether there is a page at `/`.
    pub ui: bool,
    /// Where KV events are published; none without [`super::publish_kv_events`].
    pub kv_event_sources: Vec<KvEventSource>,
    /// Whether each request is logged with its parameters (never its prompt).
    pub log_requests: bool,
    /// The sampling parameters that a request leaves out.
    pub default_params: SamplingParams,
}

impl ServerConfig {
    /// The defaults, for a model of this name.
    pub fn new(model_name: impl Into<String>) -> Self {
        Self {
            served_model_names: vec![model_name.into()],
            api_keys: Vec::new(),
            max_body_bytes: 32 << 20,
            max_header_bytes: 64 << 10,
            max_prompts: 1024,
            max_n: 16384,
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            request_timeout: None,
            shutdown_timeout: Duration::from_secs(30),
            allowed_origins: vec!["*".into()],
            allowed_methods: vec!["*".into()],
            allowed_headers: vec!["*".into()],
            allow_credentials: false,
            ui: true,
            kv_event_sources: Vec::new(),
            log_requests: false,
            default_params: SamplingParams::default(),
        }
    }
}
