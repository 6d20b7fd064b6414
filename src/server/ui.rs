//! The live block map at `/`: one page, and the stream of frames that feeds it.
//!
//! A frame is the engine's state after a step, at most ten a second and only while somebody looks. Frames are not
//! queued: a viewer who is slow misses some, and nobody waits for him.

use super::App;
use super::metrics::Metrics;
use super::snapshot::{StepObserver, StepReport};
use crate::engine::{BlockId, RequestId, Scheduler};
use crate::llm::{Event, Llm};
use crate::openai::ApiError;
use axum::extract::State;
use axum::http::header;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use futures_core::Stream;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Between two frames, at least.
const INTERVAL: Duration = Duration::from_millis(100);
/// Requests whose block tables a frame shows, at most.
const MAX_REQUESTS: usize = 48;
/// The page itself; what it shows needs a key like everything else.
const PAGE: &str = include_str!("ui.html");

/// Makes frames on the engine's thread.
pub(super) struct UiObserver {
    frames: watch::Sender<Arc<str>>,
    metrics: Arc<Metrics>,
    /// Requests that are alive, with the tokens of their prompts.
    requests: BTreeMap<RequestId, u32>,
    last: Option<Instant>,
}

impl UiObserver {
    /// The observer, and where its frames come out.
    pub(super) fn new(metrics: Arc<Metrics>) -> (Self, watch::Receiver<Arc<str>>) {
        let (frames, receiver) = watch::channel(Arc::from(""));
        (Self { frames, metrics, requests: BTreeMap::new(), last: None }, receiver)
    }

    fn frame(&self, llm: &Llm, report: &StepReport<'_>) -> Value {
        let scheduler = llm.scheduler();
        let stats = &report.snapshot.stats;
        let (latencies, tokens) = self.metrics.totals();
        json!({
            "step": stats.steps,
            "step_ms": report.duration.as_secs_f64() * 1e3,
            "running": stats.running_requests,
            "waiting": stats.waiting_requests,
            "used": stats.used_blocks,
            "cached": stats.cached_blocks,
            "free": stats.free_blocks,
            "shared_entries": stats.block_table_entries.saturating_sub(u64::from(stats.used_blocks)),
            "unused_slots": stats.unused_slots,
            "host_blocks": stats.used_host_blocks,
            "cow_copies": stats.cow_copies,
            "preemptions": stats.preemptions,
            "swaps": stats.swaps,
            "hit_tokens": stats.prefix_hit_tokens,
            "query_tokens": stats.prefix_query_tokens,
            "generated": tokens,
            "ttft": latencies[0],
            "itl": latencies[1],
            "refs": references(scheduler),
            "requests": self.requests.iter().take(MAX_REQUESTS).map(|(&id, &prompt)| request(scheduler, id, prompt)).collect::<Vec<_>>(),
            "hidden_requests": self.requests.len().saturating_sub(MAX_REQUESTS),
        })
    }
}

/// A character for each block: `.` free, `c` free and cached, else its reference count in base 36, at most `z`; upper
/// case stands for a block that is cached too.
fn references(scheduler: &Scheduler) -> String {
    let blocks = scheduler.blocks();
    let of_block = |(block, &count): (usize, &u32)| {
        let cached = blocks.is_cached(BlockId(block as u32));
        match (count, cached) {
            (0, false) => '.',
            (0, true) => 'c',
            (count, cached) => {
                let digit = char::from_digit(count.min(35), 36).unwrap_or('z');
                if cached && digit.is_ascii_alphabetic() { digit.to_ascii_uppercase() } else { digit }
            }
        }
    };
    blocks.pool().ref_counts().iter().enumerate().map(of_block).collect()
}

fn request(scheduler: &Scheduler, id: RequestId, prompt_tokens: u32) -> Value {
    let seqs = scheduler.sequences(id).map(|seq| {
        let table = scheduler.block_table(seq).unwrap_or_default();
        json!({
            "index": seq.index,
            "tokens": scheduler.tokens(seq).map_or(0, <[u32]>::len),
            "blocks": table.iter().map(|block| block.0).collect::<Vec<_>>(),
        })
    });
    json!({"id": id.0, "prompt_tokens": prompt_tokens, "seqs": seqs.collect::<Vec<_>>()})
}

impl StepObserver for UiObserver {
    fn after_step(&mut self, llm: &mut Llm, report: &StepReport<'_>) {
        self.requests.extend(report.arrived.iter().map(|arrival| (arrival.request, arrival.prompt_tokens)));
        for event in report.events {
            if let Event::Done { request, .. } = event {
                self.requests.remove(request);
            }
        }
        report.aborted.iter().for_each(|request| {
            self.requests.remove(request);
        });
        // The receiver that the application keeps is no viewer.
        let is_watched = self.frames.receiver_count() > 1;
        let is_due = self.last.is_none_or(|last| last.elapsed() >= INTERVAL);
        // The last one before a pause is what a later viewer finds.
        if (is_watched && is_due) || llm.is_idle() {
            self.last = Some(Instant::now());
            self.frames.send_replace(Arc::from(self.frame(llm, report).to_string()));
        }
    }
}

pub(super) async fn page() -> impl IntoResponse {
    let policy =
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(PAGE))
}

/// Sizes first, then a frame after each step that is due.
pub(super) async fn frames(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let Some(frames) = &app.frames else { return Err(ApiError::not_found("the page is turned off: --no-ui")) };
    let sizes = json!({
        "model": app.config.served_model_names[0],
        "device": app.device,
        "num_blocks": app.scheduler.num_blocks,
        "block_size": app.scheduler.block_size,
        "max_num_seqs": app.scheduler.max_num_seqs,
        "num_host_blocks": app.scheduler.num_host_blocks,
    });
    let (sender, receiver) = tokio::sync::mpsc::channel::<String>(1);
    let mut frames = frames.clone();
    let mut closing = app.closing.subscribe();
    // Ends with the engine, or with the viewer: there is room for one frame that he has not taken.
    let feed = async move {
        if sender.send(json!({"sizes": sizes}).to_string()).await.is_err() {
            return;
        }
        let latest = frames.borrow_and_update().to_string();
        if !latest.is_empty() && sender.send(latest).await.is_err() {
            return;
        }
        loop {
            tokio::select! {
                changed = frames.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
            let frame = frames.borrow_and_update().to_string();
            if sender.send(frame).await.is_err() {
                return;
            }
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            () = feed => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
    });
    Ok(Sse::new(Frames(receiver)).keep_alive(KeepAlive::default()).into_response())
}

/// Frames as server-sent events.
struct Frames(tokio::sync::mpsc::Receiver<String>);

impl Stream for Frames {
    type Item = Result<sse::Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|frame| frame.map(|frame| Ok(sse::Event::default().data(frame))))
    }
}
