//! How sequences are born and end: tokens, forks, finishes, aborts.

use super::request_state::RequestState;
use super::{EndedRequest, FinishReason, RequestId, Scheduler, SeqId, TokenId};

impl RequestState {
    /// Appends the token that the step has yielded for the sequence at `at`, or puts it where a later step expects it; says
    /// whether it was the last.
    pub(super) fn push_token(&mut self, at: usize, token: TokenId) -> Option<FinishReason> {
        let id = self.seq_id(at);
        let prompt_len = self.prompt_len();
        let seq = &mut self.seqs[at];
        seq.expected.clear();
        if seq.pending.take().is_some() {
            *seq.token_ids.last_mut().expect("one is pending") = token;
        } else {
            assert!(seq.samples, "sequence {id} got a token that it did not ask for");
            seq.token_ids.push(token);
            seq.samples = seq.check_draft(token);
        }
        let completion_tokens = seq.num_tokens() - prompt_len;
        let params = &self.request.params;
        let finish = if completion_tokens >= params.min_tokens && params.stop_token_ids.contains(&token) {
            Some(FinishReason::Stop(token))
        } else if completion_tokens >= self.request.max_tokens {
            Some(FinishReason::Length)
        } else {
            None
        };
        seq.ended = finish.is_some();
        assert!(!seq.ended || seq.drafts.is_empty(), "sequence {id} has drafts behind its last token");
        finish
    }
}

impl Scheduler {
    /// Ends a request and all its sequences. `false` if there is none of this id.
    pub fn abort(&mut self, request: RequestId) -> bool {
        let Some(state) = self.requests.get_mut(&request) else { return false };
        let alive = state.seqs.iter().any(|seq| !seq.ended);
        state.seqs.iter_mut().for_each(|seq| seq.ended = true);
        self.release_unless_in_flight(request);
        alive
    }

    /// Ends one sequence (the text layer has found a stop string, or a beam search has dropped a beam); the request
    /// ends with its last one. `false` if there is no such sequence.
    pub fn finish_seq(&mut self, seq: SeqId) -> bool {
        let Some(state) = self.requests.get_mut(&seq.request) else { return false };
        let Some(at) = state.position(seq.index) else { return false };
        state.seqs[at].ended = true;
        self.release_unless_in_flight(seq.request);
        true
    }

    /// Drops a beam: [`Scheduler::finish_seq`] by another name.
    pub fn drop_seq(&mut self, seq: SeqId) -> bool {
        self.finish_seq(seq)
    }

    /// Forks `parent`: the sequence `child_index` of the same request has the same tokens and shares all blocks; the
    /// last, partly filled one is copied by whoever writes first.
    ///
    /// Forked while a step is in flight, the child shares the parent's part in it, and needs its own token in
    /// [`Scheduler::update`]: that is how one beam continues in two ways. At the next [`Scheduler::schedule`] at most
    /// [`super::RequestParams::max_sequences`] may be alive.
    ///
    /// # Panics
    /// When the parent is not alive, has not computed its prompt yet, or when the child is.
    pub fn fork(&mut self, parent: SeqId, child_index: u32) -> SeqId {
        let child_id = SeqId { request: parent.request, index: child_index };
        let state = self.requests.get_mut(&parent.request).expect("a fork of a request that is not alive");
        let at = state.position(parent.index).expect("a fork of a sequence that is not alive");
        assert!(state.forked, "sequence {parent} cannot fork before its prompt is computed");
        let place = state.seqs.binary_search_by_key(&child_index, |seq| seq.index);
        let Err(place) = place else { panic!("sequence {child_id} is already alive") };
        let table = self.blocks.fork(&state.seqs[at].table);
        state.accounting.blocks_shared += u64::from(table.len());
        let mut child = state.seqs[at].fork(child_index, table);
        if let Some(host) = &mut self.host {
            child.host_table = host.fork(&state.seqs[at].host_table);
        }
        state.seqs.insert(place, child);
        child_id
    }

    /// Releases what ended sequences hold, at the end of a step; those that a later one computes have to wait for its end.
    pub(super) fn release_ended(&mut self) {
        let mut any_gone = false;
        for (_, id) in &self.running {
            let state = self.requests.get_mut(id).expect("running requests are alive");
            let waits = state.is_beam_search() && state.seqs.iter().any(|seq| !seq.ended && !seq.samples);
            for seq in &mut state.seqs {
                let is_answered = seq.pending.is_none() && (!seq.samples || seq.is_scheduled() || waits);
                assert!(seq.ended || is_answered, "sequence {id}.{} got no token", seq.index);
                if seq.ended && !seq.is_scheduled() {
                    state.accounting.unused_slots += seq.num_unused_slots(self.config.block_size);
                    self.blocks.free(&mut seq.table);
                }
            }
            state.seqs.retain(|seq| !seq.ended || seq.is_scheduled());
            any_gone |= state.seqs.is_empty();
        }
        if !any_gone {
            return;
        }
        let (requests, ended) = (&mut self.requests, &mut self.ended);
        self.running.retain(|(_, id)| {
            let gone = requests[id].seqs.is_empty();
            if gone {
                let accounting = requests.remove(id).expect("just seen").accounting;
                ended.push(EndedRequest { request: *id, accounting });
            }
            !gone
        });
    }

    /// Releases what ended sequences of `id` hold, unless the device may still be writing to it.
    fn release_unless_in_flight(&mut self, id: RequestId) {
        let in_flight = self.is_in_flight();
        let state = self.requests.get_mut(&id).expect("the caller has found it");
        if state.running && in_flight {
            return;
        }
        for seq in state.seqs.iter_mut().filter(|seq| seq.ended) {
            state.accounting.unused_slots += seq.num_unused_slots(self.config.block_size);
            self.blocks.free(&mut seq.table);
            if let Some(host) = &mut self.host {
                host.free(&mut seq.host_table);
            }
        }
        state.seqs.retain(|seq| !seq.ended);
        if !state.seqs.is_empty() {
            return;
        }
        let state = self.requests.remove(&id).expect("just seen");
        if state.running {
            self.running.retain(|&(_, other)| other != id);
        } else {
            self.waiting.remove(&state.order);
        }
        self.ended.push(EndedRequest { request: id, accounting: state.accounting });
    }
}
