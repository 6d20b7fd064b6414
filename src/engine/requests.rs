//! The requests that are alive, by id.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Index;

use super::RequestId;
use super::echo::mix;
use super::request_state::RequestState;

/// Looked up many times for every token, so a hash map; and never walked, so that nothing depends on its order. Those
/// who visit all requests go through the queues.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests {
    by_id: HashMap<RequestId, Box<RequestState>, BuildHasherDefault<IdHasher>>,
}

impl Requests {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub fn get(&self, id: &RequestId) -> Option<&RequestState> {
        self.by_id.get(id).map(|state| &**state)
    }

    pub fn get_mut(&mut self, id: &RequestId) -> Option<&mut RequestState> {
        self.by_id.get_mut(id).map(|state| &mut **state)
    }

    /// Adds a request; returns whether its id was free.
    #[must_use]
    pub fn insert(&mut self, id: RequestId, state: Box<RequestState>) -> bool {
        self.by_id.insert(id, state).is_none()
    }

    pub fn remove(&mut self, id: &RequestId) -> Option<Box<RequestState>> {
        self.by_id.remove(id)
    }
}

impl Index<&RequestId> for Requests {
    type Output = RequestState;

    fn index(&self, id: &RequestId) -> &RequestState {
        self.get(id).expect("requests in a queue are alive")
    }
}

/// Ids are numbers that clients do not choose: mixing their bits is enough.
#[derive(Debug, Clone, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = mix(self.0 ^ number);
    }
}
