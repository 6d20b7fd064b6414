//! The scheduler's invariants, by name. Those of one operation are asserted where it happens (I4 and I10 in full, I6 by
//! the type of the block table); these look at everything at once.

use super::{Batch, Scheduler, UNKNOWN_TOKEN};

impl Scheduler {
    /// Checks I1, I2, I3, I8 and I9, and I5 and I7 of the step in flight, in O(everything).
    ///
    /// # Panics
    /// When one does not hold: a bug.
    pub fn check_invariants(&self) {
        self.blocks.pool().check_invariants();
        self.check_tables();
        self.check_queues();
        for batch in [&self.older, &self.batch].into_iter().rev().take(self.steps_in_flight as usize) {
            check_batch(batch);
            for scheduled in &batch.seqs {
                let state = &self.requests[&scheduled.seq.request];
                assert!(state.running, "request {} is in a batch, but does not run", scheduled.seq.request);
            }
        }
    }

    fn check_tables(&self) {
        let mut references = vec![0; self.config.num_blocks as usize];
        let mut host_references = vec![0; self.config.num_host_blocks as usize];
        let queued = self.running.iter().map(|(_, id)| id).chain(self.waiting.values());
        for state in queued.map(|id| &self.requests[id]) {
            assert!(!state.seqs.is_empty(), "request {} has no sequence left", state.id());
            for (at, seq) in state.seqs.iter().enumerate() {
                seq.table.blocks().iter().for_each(|block| references[block.0 as usize] += 1);
                seq.host_table.blocks().iter().for_each(|block| host_references[block.0 as usize] += 1);
                let reserved = seq.num_reserved_tokens();
                let blocks = reserved.div_ceil(self.config.block_size);
                assert_eq!(
                    seq.table.len() + seq.host_table.len(),
                    blocks,
                    "I3: table of {} for {reserved} tokens",
                    state.seq_id(at)
                );
                let known = seq.num_tokens() + seq.drafts.len() as u32;
                assert!(reserved <= known, "sequence {} computes tokens it lacks", state.seq_id(at));
                assert!(state.running || seq.table.is_empty(), "waiting sequence {} holds blocks", state.seq_id(at));
                assert!(
                    !state.running || seq.host_table.is_empty(),
                    "running sequence {} is swapped out",
                    state.seq_id(at)
                );
                assert!(self.is_in_flight() || !seq.is_scheduled(), "sequence {} is left in a step", state.seq_id(at));
                assert!(seq.is_scheduled() || seq.drafts.is_empty(), "sequence {} keeps its drafts", state.seq_id(at));
                let expects = self.steps_in_flight == 2 || seq.pending.is_none();
                assert!(seq.ended || expects, "sequence {} expects a token of no step", state.seq_id(at));
            }
        }
        assert_eq!(references, self.blocks.pool().ref_counts(), "I2: reference counts and block tables disagree");
        if let Some(host) = &self.host {
            host.pool().check_invariants();
            assert_eq!(host_references, host.pool().ref_counts(), "I2: reference counts and host tables disagree");
        }
    }

    fn check_queues(&self) {
        assert_eq!(self.running.len() + self.waiting.len(), self.requests.len(), "a request is in no queue, or in two");
        assert!(self.running.is_sorted_by(|a, b| a.0 < b.0), "I9: running requests are out of order");
        for (order, id) in &self.running {
            assert!(self.requests[id].running && self.requests[id].order == *order, "request {id} is misfiled");
        }
        let last_running = self.running.last();
        for (order, id) in &self.waiting {
            let state = &self.requests[id];
            assert!(!state.running && state.order == *order, "request {id} is misfiled");
            if let (true, Some((last, other))) = (state.preempted, last_running) {
                assert!(last < order, "I9: request {other} keeps blocks while the older {id} is preempted");
            }
        }
        let seats: u32 = self.running.iter().map(|(_, id)| self.requests[id].seats()).sum();
        assert!(seats <= self.config.max_num_seqs, "I8: {seats} sequences run");
    }
}

/// I5 and I7, and that the arrays of the batch fit together.
fn check_batch(batch: &Batch) {
    let (tokens, seqs) = (batch.token_ids.len(), batch.seqs.len());
    assert_eq!(batch.positions.len(), tokens);
    assert_eq!(batch.slot_mapping.len(), tokens);
    assert_eq!(batch.seq_lens.len(), seqs);
    assert_eq!(batch.query_start_loc.len(), seqs + 1);
    assert_eq!(batch.query_start_loc[seqs] as usize, tokens);
    assert_eq!(batch.block_table_start.len(), seqs + 1);
    assert_eq!(batch.block_table_start[seqs] as usize, batch.block_tables.len());
    let unknown = batch.token_ids.iter().filter(|&&token| token == UNKNOWN_TOKEN).count();
    assert_eq!(unknown, batch.fed_tokens.len(), "tokens that nobody knows");
    assert!(batch.fed_tokens.iter().all(|fed| batch.token_ids[fed.token as usize] == UNKNOWN_TOKEN));
    assert!(batch.sample_rows.iter().all(|sample| (sample.row as usize) < batch.logits_indices.len()));

    let mut slots = batch.slot_mapping.clone();
    slots.sort_unstable();
    assert!(slots.is_sorted_by(|a, b| a < b), "I5: a slot is written twice");

    assert!(batch.swap_outs.is_empty() || batch.swap_ins.is_empty(), "I13: blocks are swapped out and in in one step");
    for (i, copy) in batch.block_copies.iter().enumerate() {
        for (j, other) in batch.block_copies.iter().enumerate() {
            assert!(i == j || copy.dst != other.dst, "I7: block {} is copied to twice", copy.dst.0);
            assert!(copy.dst != other.src, "I7: block {} is copied to and from", copy.dst.0);
        }
    }
}
