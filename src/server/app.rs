//! What all routes share.

use super::metrics::{Metrics, MetricsObserver};
use super::ui::UiObserver;
use super::{EngineHandle, ServerConfig, StepObserver};
use crate::engine::SchedulerConfig;
use crate::llm::Llm;
use crate::openai::{ApiError, GenerateRequest};
use crate::structured::GrammarCompiler;
use crate::text::{ChatTemplate, Tokenizer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, watch};

/// How much shorter than its longest tokens a tokenizer's normaliser may make a text, at most.
const NORMALISER_SHRINKS: usize = 4;

/// Text of so many bytes is done aside at once.
const LARGE_BYTES: usize = 256 << 10;

/// The model, the engine and the configuration.
pub struct App {
    /// The engine.
    pub engine: EngineHandle,
    /// What the operator decided.
    pub config: ServerConfig,
    pub(super) tokenizer: Option<Arc<Tokenizer>>,
    pub(super) chat_template: Option<Arc<ChatTemplate>>,
    pub(super) compiler: Arc<GrammarCompiler>,
    pub(super) scheduler: SchedulerConfig,
    pub(super) device: String,
    pub(super) started: u64,
    /// Requests to generate that are being answered.
    pub(super) load: Arc<AtomicUsize>,
    pub(super) next_id: AtomicU64,
    pub(super) metrics: Arc<Metrics>,
    /// What the page shows; `None` where it is turned off.
    pub(super) frames: Option<watch::Receiver<Arc<str>>>,
    /// Becomes true when no more requests are taken: who only watches has to go.
    pub(super) closing: watch::Sender<bool>,
    longest_token_bytes: usize,
    asides: Arc<Semaphore>,
}

impl App {
    /// Starts the engine's thread for `llm`; `max_queued` requests may wait for a seat.
    pub fn start(
        llm: Llm,
        config: ServerConfig,
        max_queued: Option<usize>,
        mut observers: Vec<Box<dyn StepObserver>>,
    ) -> Arc<Self> {
        let metrics = Arc::new(Metrics::new(&config.served_model_names[0], llm.scheduler().config()));
        observers.push(Box::new(MetricsObserver::new(metrics.clone(), llm.stats())));
        let frames = config.ui.then(|| {
            let (observer, frames) = UiObserver::new(metrics.clone());
            observers.push(Box::new(observer));
            frames
        });
        let tokenizer = llm.tokenizer().ok().cloned();
        let longest = tokenizer.as_ref().map_or(0, |tokenizer| {
            let bytes = |token| tokenizer.token_bytes(token).map_or(0, |bytes| bytes.len());
            (0..tokenizer.vocab_size() as u32).map(bytes).max().unwrap_or(0)
        });
        Arc::new(Self {
            tokenizer,
            chat_template: llm.chat_template().ok().cloned(),
            compiler: llm.grammar_compiler().clone(),
            scheduler: llm.scheduler().config().clone(),
            device: llm.device_description(),
            engine: EngineHandle::start(llm, max_queued, observers),
            config,
            started: now(),
            load: Arc::default(),
            next_id: AtomicU64::new(0),
            metrics,
            frames,
            closing: watch::Sender::new(false),
            longest_token_bytes: longest,
            asides: Arc::new(Semaphore::new(
                std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2)),
            )),
        })
    }

    /// The name that answers bear: the one the client used, if it is one of ours.
    pub(super) fn model_name<'a>(&'a self, asked: Option<&'a str>) -> Result<&'a str, ApiError> {
        let names = &self.config.served_model_names;
        match asked {
            None | Some("") => Ok(&names[0]),
            Some(name) if names.iter().any(|known| known == name) => Ok(name),
            Some(name) => Err(ApiError {
                param: Some("model".into()),
                ..ApiError::not_found(format!("the model {name:?} does not exist; /v1/models lists what is served"))
            }),
        }
    }

    /// Does what takes a processor's time (reading a body, templates, tokens of text of so many bytes), away from the
    /// threads that serve others. What is large is done for as many requests at a time as there are cores, because it
    /// takes memory as well; what is small does not wait for it.
    ///
    /// # Errors
    /// 500 when it panics.
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let permit = match bytes > LARGE_BYTES {
            true => Some(self.asides.clone().acquire_owned().await.expect("it is never closed")),
            false => None,
        };
        // The permit goes with the work: who asked may be gone before it is done.
        let work = move || {
            let _permit = permit;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::internal("the server made a mistake"))
    }

    /// Refuses text that is too long whatever its tokens are, before the tokenizer sees it.
    pub(super) fn check_text(&self, request: &GenerateRequest) -> Result<(), ApiError> {
        let max_model_len = self.scheduler.max_model_len;
        let most = max_model_len as usize * self.longest_token_bytes.max(1) * NORMALISER_SHRINKS;
        let bytes = request.text_bytes();
        if bytes > most {
            return Err(ApiError::bad_request(format!(
                "the prompt has {bytes} bytes, more than {max_model_len} tokens can be: shorten it"
            )));
        }
        Ok(())
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
