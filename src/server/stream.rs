//! Answers in pieces, as server-sent events.

use super::EventStream;
use crate::openai::{ApiError, StreamedResponse};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep, sleep_until};

/// One request that is being answered, as `/load` counts them.
pub(super) struct LoadGuard(Arc<AtomicUsize>);

impl LoadGuard {
    pub(super) fn new(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(load.clone())
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Chunks {
    answer: StreamedResponse,
    events: EventStream,
    ready: VecDeque<Value>,
    deadline: Pin<Box<Sleep>>,
    state: State,
    _guard: LoadGuard,
}

#[derive(PartialEq)]
enum State {
    Open,
    /// Everything is in `ready`, but for the last line.
    Ended,
    Over,
}

/// A response whose chunks come as the engine makes them. When the client goes, it is dropped, and the engine stops.
pub(super) fn sse(answer: StreamedResponse, events: EventStream, deadline: Instant, guard: LoadGuard) -> Response {
    let deadline = Box::pin(sleep_until(deadline));
    let chunks = Chunks { answer, events, ready: VecDeque::new(), deadline, state: State::Open, _guard: guard };
    Sse::new(chunks).keep_alive(KeepAlive::default()).into_response()
}

impl Chunks {
    fn fail(&mut self, error: &ApiError) {
        self.ready.push_back(json!({"error": error}));
        self.state = State::Ended;
    }

    fn take(&mut self, event: Option<Result<(usize, crate::llm::Event), ApiError>>) {
        let mut chunks = Vec::new();
        match event {
            Some(Ok((prompt, event))) => {
                let pushed = self.answer.push(prompt, event, &mut chunks);
                self.ready.extend(chunks);
                if let Err(error) = pushed {
                    self.fail(&error);
                }
            }
            Some(Err(error)) => self.fail(&error),
            None if self.answer.is_done() => {
                self.ready.extend(self.answer.usage_chunk());
                self.state = State::Ended;
            }
            None => self.fail(&ApiError::overloaded("the server was stopped before the answer was complete")),
        }
    }
}

impl Stream for Chunks {
    type Item = Result<Event, Infallible>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(chunk) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(Event::default().data(chunk.to_string()))));
            }
            match this.state {
                State::Open => {}
                State::Ended => {
                    this.state = State::Over;
                    return Poll::Ready(Some(Ok(Event::default().data("[DONE]"))));
                }
                State::Over => return Poll::Ready(None),
            }
            if this.deadline.as_mut().poll(context).is_ready() {
                this.fail(&ApiError::late());
                continue;
            }
            match this.events.poll_next(context) {
                Poll::Ready(event) => this.take(event),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
