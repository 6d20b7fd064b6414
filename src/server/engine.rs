//! The engine as the routes see it: a queue in, a stream of events out for each submission.

use super::command::{Answer, Command, EngineState, Submission};
use super::snapshot::{StepObserver, StepSnapshot};
use super::worker::Worker;
use crate::engine::RequestId;
use crate::llm::{Event, Llm};
use crate::openai::ApiError;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::{mpsc, watch};

/// Submissions on their way to the engine's thread, at most. It takes them all in before each step.
const MAX_IN_TRANSIT: usize = 4096;

/// A way to the engine's thread; clones lead to the same one.
#[derive(Clone)]
pub struct EngineHandle {
    commands: mpsc::UnboundedSender<Command>,
    in_transit: Arc<AtomicUsize>,
    next_ticket: Arc<AtomicU64>,
    snapshot: Arc<ArcSwap<StepSnapshot>>,
    state: watch::Receiver<EngineState>,
}

impl EngineHandle {
    /// Starts the engine's thread. `max_queued` requests may wait for a seat; who comes later is refused.
    ///
    /// # Panics
    /// When the system gives no thread.
    pub fn start(llm: Llm, max_queued: Option<usize>, observers: Vec<Box<dyn StepObserver>>) -> Self {
        let (commands, received) = mpsc::unbounded_channel();
        let in_transit = Arc::new(AtomicUsize::new(0));
        let snapshot = Arc::new(ArcSwap::from_pointee(StepSnapshot::of(&llm)));
        let (state_sender, state) = watch::channel(EngineState::Running);
        let worker = Worker::new(llm, received, max_queued, observers, in_transit.clone(), snapshot.clone());
        std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || worker.run(&state_sender))
            .expect("the system gives a thread");
        Self { commands, in_transit, next_ticket: Arc::default(), snapshot, state }
    }

    /// Hands prompts to the engine. Dropping the stream ends what is still generated for it.
    ///
    /// # Errors
    /// 503 when the queue is full, 500 when the engine is no more.
    pub fn submit(&self, submission: Submission) -> Result<EventStream, ApiError> {
        if self.in_transit.fetch_add(1, Ordering::Relaxed) >= MAX_IN_TRANSIT {
            self.in_transit.fetch_sub(1, Ordering::Relaxed);
            return Err(ApiError::overloaded("the engine's queue is full: try again later"));
        }
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = mpsc::unbounded_channel();
        let submitted = Instant::now();
        if self.commands.send(Command::Submit { ticket, submission: Box::new(submission), sender, submitted }).is_err()
        {
            return Err(self.gone());
        }
        Ok(EventStream { ticket, answers, commands: self.commands.clone(), is_over: false })
    }

    /// The engine's numbers after its last step.
    pub fn snapshot(&self) -> Arc<StepSnapshot> {
        self.snapshot.load_full()
    }

    /// Whether it runs.
    pub fn state(&self) -> EngineState {
        self.state.borrow().clone()
    }

    /// Comes back when the engine's thread has ended, and says why.
    pub async fn ended(&self) -> EngineState {
        let mut state = self.state.clone();
        match state.wait_for(|state| *state != EngineState::Running).await {
            Ok(state) => state.clone(),
            Err(_) => EngineState::Failed("the engine's thread ended unexpectedly".into()),
        }
    }

    /// Forgets all cached prefixes, unless a block is in use.
    pub fn reset_prefix_cache(&self) {
        let _ = self.commands.send(Command::ResetPrefixCache);
    }

    /// Ends the engine's thread; what is still generated is lost.
    pub fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
    }

    fn gone(&self) -> ApiError {
        match self.state() {
            EngineState::Failed(error) => ApiError::internal(format!("the engine has failed: {error}")),
            EngineState::Running | EngineState::Stopped => ApiError::overloaded("the server is shutting down"),
        }
    }
}

/// What happens to a submission. The engine never waits for whoever reads it: a slow reader's events wait here, at most
/// as many as the submission may make tokens.
pub struct EventStream {
    ticket: u64,
    answers: mpsc::UnboundedReceiver<Answer>,
    commands: mpsc::UnboundedSender<Command>,
    is_over: bool,
}

impl EventStream {
    /// Waits until the engine has taken the submission in: an id for each prompt.
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn accepted(&mut self) -> Result<Vec<RequestId>, ApiError> {
        match self.answers.recv().await {
            Some(Answer::Accepted(ids)) => Ok(ids),
            Some(Answer::Failed(error)) => {
                self.is_over = true;
                Err(error)
            }
            Some(Answer::Event(..)) => unreachable!("what is told first is whether it was accepted"),
            None => Err(ApiError::internal("the engine has ended")),
        }
    }

    /// The next event and the index of its prompt; `None` after the last one.
    ///
    /// # Errors
    /// When the engine has failed.
    pub async fn next(&mut self) -> Option<Result<(usize, Event), ApiError>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// [`EventStream::next`], polled.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<(usize, Event), ApiError>>> {
        self.answers.poll_recv(context).map(|answer| match answer {
            Some(Answer::Event(prompt, event)) => Some(Ok((prompt, event))),
            Some(Answer::Failed(error)) => Some(Err(error)),
            Some(Answer::Accepted(_)) => unreachable!("it is told once, and first"),
            None => {
                self.is_over = true;
                None
            }
        })
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        if !self.is_over {
            // An engine that is no more has nothing to abort.
            let _ = self.commands.send(Command::Abort(self.ticket));
        }
    }
}
