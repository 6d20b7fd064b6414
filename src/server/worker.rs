//! The engine's thread: takes submissions in, steps, hands events out.

use super::command::{Answer, Command, EngineState, Submission};
use super::snapshot::{Arrival, StepObserver, StepReport, StepSnapshot};
use crate::engine::RequestId;
use crate::llm::{Event, Llm, LlmError, RequestOptions};
use crate::openai::ApiError;
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;

/// Requests of one submission.
struct Ticket {
    sender: UnboundedSender<Answer>,
    unfinished: Vec<RequestId>,
}

pub(super) struct Worker {
    llm: Llm,
    commands: UnboundedReceiver<Command>,
    max_queued: Option<usize>,
    observers: Vec<Box<dyn StepObserver>>,
    in_transit: Arc<AtomicUsize>,
    snapshot: Arc<ArcSwap<StepSnapshot>>,
    tickets: BTreeMap<u64, Ticket>,
    /// Ticket and index of the prompt.
    owners: HashMap<RequestId, (u64, usize)>,
    arrived: Vec<Arrival>,
    aborted: Vec<RequestId>,
    rejected: u64,
}

impl Worker {
    pub(super) fn new(
        llm: Llm,
        commands: UnboundedReceiver<Command>,
        max_queued: Option<usize>,
        observers: Vec<Box<dyn StepObserver>>,
        in_transit: Arc<AtomicUsize>,
        snapshot: Arc<ArcSwap<StepSnapshot>>,
    ) -> Self {
        Self {
            llm,
            commands,
            max_queued,
            observers,
            in_transit,
            snapshot,
            tickets: BTreeMap::new(),
            owners: HashMap::new(),
            arrived: Vec::new(),
            aborted: Vec::new(),
            rejected: 0,
        }
    }

    /// Runs until it is told to stop, nobody can submit any more, or the device fails.
    pub(super) fn run(mut self, state: &watch::Sender<EngineState>) {
        let end = match self.serve() {
            Ok(()) => EngineState::Stopped,
            Err(error) => {
                let error = error.to_string();
                tracing::error!(%error, "the engine has failed");
                for ticket in std::mem::take(&mut self.tickets).into_values() {
                    let _ = ticket.sender.send(Answer::Failed(ApiError::internal(error.clone())));
                }
                EngineState::Failed(error)
            }
        };
        state.send_replace(end);
    }

    fn serve(&mut self) -> Result<(), LlmError> {
        self.observers.iter_mut().for_each(|observer| observer.start(&mut self.llm));
        let mut events = Vec::new();
        loop {
            if !self.take_commands() {
                return Ok(());
            }
            let began = Instant::now();
            let has_stepped = self.llm.step(&mut events)?;
            let duration = began.elapsed();
            if has_stepped || !self.arrived.is_empty() || !self.aborted.is_empty() || self.rejected > 0 {
                self.observe(has_stepped.then_some(began), duration, &events);
            }
            events.drain(..).for_each(|event| self.hand_out(event));
        }
    }

    /// Takes in what has come; waits for something when there is nothing to do. `false` at the end.
    fn take_commands(&mut self) -> bool {
        let left_waiting = self.llm.stats().waiting_requests as usize;
        if self.llm.is_idle() {
            let Some(command) = self.commands.blocking_recv() else { return false };
            if !self.obey(command, left_waiting) {
                return false;
            }
        }
        while let Ok(command) = self.commands.try_recv() {
            if !self.obey(command, left_waiting) {
                return false;
            }
        }
        true
    }

    fn obey(&mut self, command: Command, left_waiting: usize) -> bool {
        match command {
            Command::Submit { ticket, submission, sender, submitted } => {
                self.in_transit.fetch_sub(1, Ordering::Relaxed);
                let answer = match self.take_in(ticket, &submission, submitted, left_waiting) {
                    Ok(ids) => {
                        self.tickets.insert(ticket, Ticket { sender: sender.clone(), unfinished: ids.clone() });
                        Answer::Accepted(ids)
                    }
                    Err(error) => Answer::Failed(error),
                };
                // Whoever has gone meanwhile has sent an abort too.
                let _ = sender.send(answer);
            }
            Command::Abort(ticket) => {
                for request in self.tickets.remove(&ticket).into_iter().flat_map(|ticket| ticket.unfinished) {
                    self.owners.remove(&request);
                    self.llm.abort(request);
                    self.aborted.push(request);
                }
            }
            Command::ResetPrefixCache => {
                self.llm.reset_prefix_cache();
            }
            Command::Stop => return false,
        }
        true
    }

    /// All prompts of a submission, or none.
    fn take_in(
        &mut self,
        ticket: u64,
        submission: &Submission,
        submitted: Instant,
        left_waiting: usize,
    ) -> Result<Vec<RequestId>, ApiError> {
        self.check_queue(submission.prompts.len(), left_waiting).inspect_err(|_| self.rejected += 1)?;
        let params = &submission.params;
        let mut ids = Vec::with_capacity(submission.prompts.len());
        for prompt in &submission.prompts {
            let options = RequestOptions {
                priority: submission.priority,
                cache_salt: submission.cache_salt.clone(),
                grammar: submission.grammar.clone(),
            };
            match self.llm.add_with(prompt.clone(), params.clone(), options) {
                Ok(id) => ids.push(id),
                Err(error) => {
                    ids.into_iter().for_each(|id| {
                        self.llm.abort(id);
                    });
                    return Err(error.into());
                }
            }
        }
        for (index, (&request, prompt)) in ids.iter().zip(&submission.prompts).enumerate() {
            self.owners.insert(request, (ticket, index));
            let prompt_tokens = prompt.len() as u32;
            let Submission { params, .. } = submission;
            let arrival = Arrival {
                request,
                submitted,
                prompt_tokens,
                n: params.n,
                num_sequences: params.num_sequences(),
                max_tokens: params.max_tokens,
            };
            self.arrived.push(arrival);
        }
        Ok(ids)
    }

    /// Refuses what would wait behind too many others. Those for whom there is a seat do not wait.
    fn check_queue(&self, new: usize, left_waiting: usize) -> Result<(), ApiError> {
        let Some(max) = self.max_queued else { return Ok(()) };
        let stats = self.llm.stats();
        let seats = match left_waiting {
            0 => self.llm.scheduler().config().max_num_seqs.saturating_sub(stats.running_seqs) as usize,
            _ => 0,
        };
        let queued = (stats.waiting_requests as usize + new).saturating_sub(seats);
        if queued > max {
            return Err(ApiError::overloaded(format!(
                "{} requests are waiting, and at most {max} may: try again later",
                stats.waiting_requests
            )));
        }
        Ok(())
    }

    fn observe(&mut self, began: Option<Instant>, duration: Duration, events: &[Event]) {
        let snapshot = StepSnapshot::of(&self.llm);
        self.snapshot.store(Arc::new(snapshot));
        let report = StepReport {
            snapshot,
            began,
            duration,
            events,
            arrived: &self.arrived,
            aborted: &self.aborted,
            rejected: std::mem::take(&mut self.rejected),
        };
        for observer in &mut self.observers {
            observer.after_step(&mut self.llm, &report);
        }
        self.arrived.clear();
        self.aborted.clear();
    }

    fn hand_out(&mut self, event: Event) {
        let request = event.request();
        let is_done = matches!(event, Event::Done { .. });
        let Some(&(id, prompt)) = self.owners.get(&request) else { return };
        let ticket = self.tickets.get_mut(&id).expect("an owner is a ticket");
        // A reader who has gone sends an abort; until it comes, its events go nowhere.
        let _ = ticket.sender.send(Answer::Event(prompt, event));
        if is_done {
            self.owners.remove(&request);
            ticket.unfinished.retain(|unfinished| *unfinished != request);
            if ticket.unfinished.is_empty() {
                self.tickets.remove(&id);
            }
        }
    }
}
