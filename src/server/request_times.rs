//! When things happened to the requests that are alive.

use super::snapshot::Arrival;
use crate::engine::RequestId;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// One request's times, and what it has made so far.
#[derive(Debug)]
pub(super) struct Times {
    pub(super) arrival: Arrival,
    /// When the first step that computed some of it began.
    pub(super) started: Option<Instant>,
    pub(super) first_token: Option<Instant>,
    pub(super) last_token: Option<Instant>,
    /// Of all its sequences.
    pub(super) tokens: u32,
    /// Of the sequence that ended last.
    pub(super) finish_reason: Option<&'static str>,
    /// When each sequence had its last token, by index.
    last_by_index: Vec<Option<Instant>>,
}

impl Times {
    /// Notes a token; the time since the sequence's token before, if there was one in an earlier step. (A beam search
    /// tells all tokens in one.)
    pub(super) fn token(&mut self, index: u32, now: Instant) -> Option<Duration> {
        self.tokens += 1;
        self.first_token.get_or_insert(now);
        self.last_token = Some(now);
        let index = index as usize;
        if self.last_by_index.len() <= index {
            self.last_by_index.resize(index + 1, None);
        }
        let before = self.last_by_index[index].replace(now)?;
        (before < now).then(|| now - before)
    }
}

/// Those of all requests that are alive.
#[derive(Debug, Default)]
pub(super) struct RequestTimes {
    by_id: HashMap<RequestId, Times>,
}

impl RequestTimes {
    pub(super) fn arrive(&mut self, arrival: Arrival) {
        let times = Times {
            arrival,
            started: None,
            first_token: None,
            last_token: None,
            tokens: 0,
            finish_reason: None,
            last_by_index: Vec::new(),
        };
        self.by_id.insert(arrival.request, times);
    }

    /// A step that computes some of `request` began.
    pub(super) fn start(&mut self, request: RequestId, began: Instant) {
        if let Some(times) = self.by_id.get_mut(&request) {
            times.started.get_or_insert(began);
        }
    }

    pub(super) fn get_mut(&mut self, request: RequestId) -> Option<&mut Times> {
        self.by_id.get_mut(&request)
    }

    pub(super) fn remove(&mut self, request: RequestId) -> Option<Times> {
        self.by_id.remove(&request)
    }
}
