//! The step after the one in flight: scheduled before anybody knows what that one samples.

use super::request_state::RequestState;
use super::{Batch, Scheduler, UNKNOWN_TOKEN};

impl Scheduler {
    /// Decides on the step after the one in flight, so that the device need not wait for the host between them. Whatever
    /// sequence samples in the one in flight is taken to go on, with a token that the device [feeds](Batch::fed_tokens)
    /// itself; for one that turns out to have ended, what the step computes is for nothing. [`Scheduler::update`] ends the
    /// earlier step first.
    ///
    /// `None`, and nothing has changed, when that is not possible: when a request would have to give its blocks up, when it is
    /// not for the device to sample (beams, prompt logits), when a sequence is to have drafts, or when nothing is left to compute.
    ///
    /// # Panics
    /// When no step is in flight, or two are.
    pub fn schedule_ahead(&mut self) -> Option<&Batch> {
        assert_eq!(self.steps_in_flight, 1, "schedule_ahead() follows schedule() or update()");
        if self.waits_for_tokens_to_draft() || !self.can_go_ahead() {
            return None;
        }
        self.ended.clear();
        self.drafts_left = 0;
        std::mem::swap(&mut self.batch, &mut self.older);
        self.batch.step = self.older.step;
        self.batch.clear();
        self.count_computed_tokens();
        self.expect_tokens();
        let preempted = self.schedule_running();
        assert!(!preempted, "a request was preempted, though the blocks had been counted");
        self.schedule_waiting();
        self.launch();
        self.counters.steps_ahead += 1;
        Some(&self.batch)
    }

    /// Whether some running sequence goes on, and all of those that do find their blocks.
    fn can_go_ahead(&self) -> bool {
        let block_size = self.config.block_size;
        let (mut goes_on, mut blocks) = (false, 0);
        for state in self.running.iter().map(|(_, id)| &self.requests[id]) {
            let is_sampled_elsewhere = state.is_beam_search() && state.seqs.iter().any(|seq| seq.samples);
            if is_sampled_elsewhere || state.wants_prompt_logits() {
                return false;
            }
            for seq in state.seqs.iter().filter(|seq| !seq.ended) {
                let reserved = seq.num_reserved_tokens();
                let tokens = seq.num_tokens() + u32::from(state.expects_token(seq.num_tokens(), seq.samples));
                if tokens == reserved {
                    continue;
                }
                goes_on = true;
                let most = reserved + (tokens - reserved).min(self.config.max_num_batched_tokens);
                let is_shared = |&block: &_| self.blocks.pool().ref_count(block) > 1;
                let copies = !reserved.is_multiple_of(block_size) && seq.table.blocks().last().is_some_and(is_shared);
                blocks += most.div_ceil(block_size) - seq.table.len() + u32::from(copies);
            }
        }
        goes_on && blocks <= self.blocks.pool().num_free()
    }

    /// Gives each sequence that samples in the earlier step, and goes on after it, a token that is yet to be known.
    fn expect_tokens(&mut self) {
        for (row, sample) in self.older.sample_rows.iter().enumerate() {
            let state = self.requests.get_mut(&sample.seq.request).expect("a scheduled request is alive");
            let at = state.seqs.binary_search_by_key(&sample.seq.index, |seq| seq.index).expect("and its sequences");
            let (ended, num_tokens) = (state.seqs[at].ended, state.seqs[at].num_tokens());
            let goes_on = state.expects_token(num_tokens, true);
            let seq = &mut state.seqs[at];
            if goes_on && !ended {
                seq.token_ids.push(UNKNOWN_TOKEN);
                seq.pending = Some(row as u32);
            }
            // One that has reached its length still waits for its last token.
            seq.samples = !goes_on && !ended;
        }
    }
}

impl RequestState {
    /// Whether a sequence of so many tokens that `samples` goes on after the token that it gets, unless that ends it.
    fn expects_token(&self, num_tokens: u32, samples: bool) -> bool {
        samples && num_tokens + 1 - self.prompt_len() < self.request.max_tokens
    }
}
