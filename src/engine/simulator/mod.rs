//! The simulator: random traffic on a tiny pool, every step of it checked.
//!
//! A seed gives sizes (pools of 3 to 12 blocks), requests (shared prefixes, parallel samples, beams, salts, priorities),
//! drafts and misfortunes (aborts in the middle of a step). The [`EchoDevice`] reads back what the scheduler wrote, the
//! invariants are checked before and after each step, and the tokens against those of the same request alone.

mod mirror;
mod report;
mod rng;
mod traffic;

use std::collections::VecDeque;

use self::mirror::{Mirror, MirrorSeq};
pub use self::report::SimReport;
pub use self::rng::Rng;
use self::traffic::{Traffic, random_config, random_drafts};
use super::echo::{EchoDevice, EchoHash, EchoHistory};
use super::{
    BlockId, PreemptionCosts, Request, RequestId, RequestParams, SampledToken, Scheduler, SchedulerConfig, SeqId,
    TokenEvent, TokenId,
};

/// Runs one episode of about `steps` steps: the traffic of `seed`, then everything still alive to its end.
///
/// # Panics
/// When an invariant does not hold or a token is wrong; the seed replays it.
pub fn simulate(seed: u64, steps: u64) -> SimReport {
    let mut episode = Episode::new(seed);
    while episode.report.steps < steps {
        episode.arrivals();
        episode.between_steps();
        episode.step();
    }
    episode.drain();
    episode.report
}

struct Episode {
    rng: Rng,
    traffic: Traffic,
    scheduler: Scheduler,
    device: EchoDevice,
    /// In ascending order of their id.
    mirrors: VecDeque<Mirror>,
    next_id: u64,
    /// Of every request so far, by its id.
    tags: Vec<u32>,
    report: SimReport,
    rows: Vec<EchoHash>,
    sampled: Vec<SampledToken>,
    /// The token of each sample row of the last step, as the device has them.
    fed: Vec<TokenId>,
    /// How often in 1000 times the next step is scheduled ahead, where possible.
    ahead_rate: u32,
    /// Decides it. Drawn apart, as the host pool.
    ahead: Rng,
    /// Decides which requests have drafts. Drawn apart, too.
    drafts: Rng,
    /// Whether a step is scheduled that the device has not run.
    device_is_behind: bool,
    /// Tokens of beams that wait for their siblings.
    held: Vec<SampledToken>,
    events: Vec<TokenEvent>,
}

impl Episode {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        // Drawn apart: a seed keeps the traffic that it had before there was a host pool.
        let mut swap = Rng::new(!seed);
        let num_host_blocks = swap.pick(&[0, 0, 2, 4, 12]);
        let costs = PreemptionCosts { compute_token: 2, copy_block: swap.pick(&[0, 1, 4]) };
        let mut drafts = Rng::new(seed.rotate_left(16) ^ 0xD4AF7);
        let config = SchedulerConfig { num_host_blocks, drafts: random_drafts(&mut drafts), ..random_config(&mut rng) };
        let mut ahead = Rng::new(seed.rotate_left(32) ^ 0x5EED);
        let mut scheduler = Scheduler::new(config.clone(), b"echo");
        scheduler.set_preemption_costs(costs);
        Episode {
            traffic: Traffic::random(&mut rng, &config),
            device: EchoDevice::with_host_pool(config.num_blocks, config.block_size, config.num_host_blocks),
            scheduler,
            mirrors: VecDeque::new(),
            next_id: 0,
            tags: Vec::new(),
            report: SimReport { episodes: 1, ..SimReport::default() },
            rows: Vec::new(),
            sampled: Vec::new(),
            fed: Vec::new(),
            ahead_rate: ahead.pick(&[0, 500, 1000]),
            ahead,
            drafts,
            device_is_behind: false,
            held: Vec::new(),
            events: Vec::new(),
            rng,
        }
    }

    /// Adds requests; at least one where there would be nothing to do.
    fn arrivals(&mut self) {
        while self.mirrors.is_empty()
            || (self.mirrors.len() < self.traffic.max_alive as usize && self.rng.chance(self.traffic.arrival_rate))
        {
            let id = RequestId(self.next_id);
            self.next_id += 1;
            self.report.requests += 1;
            let limits = self.scheduler.config().limits();
            let prompt = self.traffic.prompt(&mut self.rng);
            let params = RequestParams { drafts: self.drafts.chance(800), ..self.traffic.params(&mut self.rng) };
            match Request::new(id, prompt, params, &limits) {
                Ok(request) => {
                    let mirror = Mirror::new(&request);
                    self.tags.push(mirror.tag);
                    self.mirrors.push_back(mirror);
                    self.scheduler.add(request);
                }
                Err(_) => {
                    self.tags.push(0);
                    self.report.refused += 1;
                }
            }
        }
    }

    /// What a client or the text layer may do at any time, here between steps.
    fn between_steps(&mut self) {
        self.misfortunes();
        self.expectations();
        if self.rng.chance(self.traffic.reset_rate) {
            let stats = self.scheduler.stats();
            let unused = stats.used_blocks == 0 && stats.used_host_blocks == 0;
            assert_eq!(self.scheduler.reset_prefix_cache(), unused, "the prefix cache is reset only when unused");
        }
    }

    /// One step, all the way round; the next may have been scheduled before it ends.
    fn step(&mut self) {
        if !self.scheduler.is_in_flight() {
            if self.scheduler.schedule().is_none() {
                assert!(self.mirrors.is_empty(), "I10: requests are alive, but there is no step");
                return;
            }
            self.scheduled();
        }
        self.forward();
        self.poison_free_blocks();
        self.hold_back();
        self.beams();
        if self.ahead.chance(self.ahead_rate) && self.scheduler.schedule_ahead().is_some() {
            self.scheduled();
            self.device_is_behind = true;
        }
        self.misfortunes();
        if self.sampled.len() > 1 && self.rng.chance(100) {
            let len = self.sampled.len() as u32;
            let (a, b) = (self.rng.below(len) as usize, self.rng.below(len) as usize);
            // Those of one sequence are in order.
            if self.scheduler.batch().seqs.iter().all(|seq| seq.num_drafts == 0) {
                self.sampled.swap(a, b);
            }
        }
        self.update();
        self.scheduler.check_invariants();
        if !self.scheduler.is_in_flight() {
            self.poison_free_blocks();
        }
    }

    /// Checks and books a step that has just been scheduled.
    fn scheduled(&mut self) {
        self.report.steps += 1;
        self.scheduler.check_invariants();
        self.check_block_tables();
        for sample in &self.scheduler.newest_batch().sample_rows {
            let at = position(&self.mirrors, sample.seq.request).expect("a scheduled request is alive");
            let mirror = &mut self.mirrors[at];
            if mirror.seq(sample.seq.index).is_none() {
                mirror.fork(0, sample.seq.index);
                self.report.forks += 1;
            }
        }
        for mirror in &mut self.mirrors {
            for seq in &mut mirror.seqs {
                let id = SeqId { request: mirror.id, index: seq.index };
                let table = self.scheduler.block_table(id).expect("the sequence is alive");
                seq.table.clear();
                seq.table.extend(table.iter().map(|block| block.0));
            }
        }
    }

    /// Runs the device, and draws a token from each row that asks for one. What was scheduled ahead may have ended since.
    fn forward(&mut self) {
        let mirrors = &self.mirrors;
        let batch = self.scheduler.batch();
        let history = |seq: SeqId| {
            let alive = position(mirrors, seq.request).and_then(|at| mirrors[at].seq(seq.index));
            EchoHistory { token_ids: alive.map(|seq| &seq.token_ids[..]), tag: self.tags[seq.request.0 as usize] }
        };
        self.device_is_behind = false;
        self.device.forward(batch, &self.fed, history, &mut self.rows);
        for scheduled in &batch.seqs {
            let Some(at) = position(&self.mirrors, scheduled.seq.request) else { continue };
            let mirror = &mut self.mirrors[at];
            if mirror.params.prompt_logits {
                let seq_len = scheduled.context_len + scheduled.query_len;
                let first = seq_len - scheduled.num_logits_rows;
                mirror.prompt_logits_rows += mirror.prompt_len.min(seq_len).saturating_sub(first);
            }
        }
        self.sampled.clear();
        self.fed.clear();
        let mut next = 0;
        for (index, sample) in batch.sample_rows.iter().enumerate() {
            let hash = self.rows[sample.row as usize];
            let token = hash.next_token(sample.seq.index, self.traffic.vocab_size);
            self.fed.push(token);
            if index < next {
                // It stands behind a wrong draft.
                continue;
            }
            next = batch.next_sample(index, token);
            self.sampled.push(SampledToken { seq: sample.seq, token });
            let Some(at) = position(&self.mirrors, sample.seq.request) else { continue };
            let Some(seq) = self.mirrors[at].seq(sample.seq.index) else { continue };
            let drafted = self.sampled.iter().rev().skip(1).take_while(|sampled| sampled.seq == sample.seq).count();
            let drafted = &self.sampled[self.sampled.len() - 1 - drafted..self.sampled.len() - 1];
            let expected = drafted.iter().fold(seq.hash, |hash, sampled| hash.push(sampled.token));
            assert_eq!(hash, expected, "sequence {} samples from a foreign row", sample.seq);
        }
    }

    /// Invariant I6: the blocks that a sequence holds for its context are those it held before, the last one replaced
    /// at most by a copy of itself.
    fn check_block_tables(&mut self) {
        let batch = self.scheduler.newest_batch();
        for (i, scheduled) in batch.seqs.iter().enumerate() {
            let at = position(&self.mirrors, scheduled.seq.request).expect("a scheduled request is alive");
            let Some(seq) = self.mirrors[at].seq_mut(scheduled.seq.index) else { continue };
            let range = batch.block_table_start[i] as usize..batch.block_table_start[i + 1] as usize;
            let now = &batch.block_tables[range];
            for (j, (&before, &after)) in seq.table.iter().zip(now).enumerate() {
                let copied =
                    || batch.block_copies.iter().any(|copy| copy.src == BlockId(before) && copy.dst == BlockId(after));
                let last = j + 1 == seq.table.len();
                assert!(before == after || (last && copied()), "I6: block {j} of {} has changed", scheduled.seq);
            }
            assert!(seq.table.len() <= now.len(), "I6: the table of {} has shrunk", scheduled.seq);
        }
    }

    /// In lock step, keeps the tokens of beams until all beams of the request have one.
    fn hold_back(&mut self) {
        if !self.traffic.lock_step {
            return;
        }
        let (mirrors, held) = (&self.mirrors, &mut self.held);
        held.retain(|held| position(mirrors, held.seq.request).is_some());
        self.report.deferred += held.len() as u64;
        self.sampled.retain(|&sampled| {
            let Some(at) = position(mirrors, sampled.seq.request) else { return true };
            if !mirrors[at].is_beam_search() {
                return true;
            }
            // A preempted beam that has waited is computed again, to the same end.
            match held.iter().find(|other| other.seq == sampled.seq) {
                Some(other) => assert_eq!(*other, sampled, "I11: recomputed"),
                None => held.push(sampled),
            }
            false
        });
        for mirror in mirrors.iter().filter(|mirror| mirror.is_beam_search()) {
            let is_of = |token: &SampledToken| token.seq.request == mirror.id;
            let scheduler = &self.scheduler;
            let awaits = |seq: &MirrorSeq| scheduler.awaits_token(SeqId { request: mirror.id, index: seq.index });
            if mirror.seqs.iter().all(awaits) {
                self.sampled.extend(held.iter().copied().filter(is_of));
                held.retain(|token| !is_of(token));
            }
        }
    }

    /// Forks and drops beams as a beam search does: during the step, once the logits are there.
    fn beams(&mut self) {
        for drawn in 0..self.sampled.len() {
            let parent = self.sampled[drawn].seq;
            let Some(at) = position(&self.mirrors, parent.request) else { continue };
            let alive = self.mirrors[at].seq(parent.index).is_some();
            if !alive || !self.mirrors[at].is_beam_search() || !self.rng.chance(self.traffic.fork_rate) {
                continue;
            }
            let child = self.mirrors[at].next_child;
            self.mirrors[at].next_child += 1;
            let child_id = self.scheduler.fork(parent, child);
            self.mirrors[at].fork(parent.index, child);
            self.report.forks += 1;
            let hash = self.mirrors[at].seq(child).expect("just forked").hash;
            let token = hash.next_token(child, self.traffic.vocab_size);
            self.sampled.push(SampledToken { seq: child_id, token });
            while self.mirrors[at].seqs.len() > self.mirrors[at].params.max_sequences as usize {
                let beams = &self.mirrors[at].seqs;
                let index = beams[self.rng.below(beams.len() as u32) as usize].index;
                self.drop_seq(at, index);
            }
        }
    }

    /// What a caller may say of tokens to come, most of it right.
    fn expectations(&mut self) {
        let vocab_size = self.traffic.vocab_size;
        for mirror in &self.mirrors {
            for seq in &mirror.seqs {
                if !self.drafts.chance(200) {
                    continue;
                }
                let (mut hash, drafts) = (seq.hash, &mut self.drafts);
                let expected: Vec<TokenId> = (0..drafts.below(10))
                    .map(|_| {
                        let is_right = drafts.chance(900);
                        let token =
                            if is_right { hash.next_token(seq.index, vocab_size) } else { drafts.below(vocab_size) };
                        hash = hash.push(token);
                        token
                    })
                    .collect();
                self.scheduler.expect(SeqId { request: mirror.id, index: seq.index }, &expected);
            }
        }
    }

    /// Aborts and stop strings, with or without a step in flight.
    fn misfortunes(&mut self) {
        if !self.mirrors.is_empty() && self.rng.chance(self.traffic.abort_rate) {
            let at = self.rng.below(self.mirrors.len() as u32) as usize;
            let mirror = self.mirrors.remove(at).expect("in range");
            assert!(self.scheduler.abort(mirror.id), "request {} was alive", mirror.id);
            assert!(!self.scheduler.abort(mirror.id), "request {} was aborted twice", mirror.id);
            self.report.aborted += 1;
        }
        if !self.mirrors.is_empty() && self.rng.chance(self.traffic.finish_rate) {
            let at = self.rng.below(self.mirrors.len() as u32) as usize;
            let seqs = &self.mirrors[at].seqs;
            let seq = &seqs[self.rng.below(seqs.len() as u32) as usize];
            let (index, has_token) = (seq.index, seq.token_ids.len() as u32 > self.mirrors[at].prompt_len);
            // Dropping the one that the others wait for is up to who makes them wait; and the one that they are about to fork
            // from has given nobody a reason yet.
            let is_waited_for = self.held.iter().any(|held| held.seq.request == self.mirrors[at].id);
            if !is_waited_for && (has_token || !self.device_is_behind) {
                self.drop_seq(at, index);
                self.forget_if_ended(at);
            }
        }
    }

    fn drop_seq(&mut self, at: usize, index: u32) {
        let seq = SeqId { request: self.mirrors[at].id, index };
        assert!(self.scheduler.drop_seq(seq), "sequence {seq} was alive");
        assert!(self.scheduler.tokens(seq).is_none(), "sequence {seq} is still alive");
        self.mirrors[at].remove(index);
        self.report.dropped += 1;
    }

    fn forget_if_ended(&mut self, at: usize) {
        if self.mirrors[at].seqs.is_empty() {
            self.mirrors.remove(at);
            self.report.finished += 1;
        }
    }

    /// Ends the step, and checks that every live sequence that sampled emits its tokens, once, up to the one that ends it, and
    /// nobody else.
    fn update(&mut self) {
        self.events.clear();
        self.scheduler.update(&self.sampled, &mut self.events);
        let mirrors = &self.mirrors;
        let alive = |seq: SeqId| position(mirrors, seq.request).is_some_and(|at| mirrors[at].seq(seq.index).is_some());
        let mut events = self.events.iter();
        let mut ended = None;
        for &SampledToken { seq, token } in self.sampled.iter().filter(|sampled| alive(sampled.seq)) {
            if ended == Some(seq) {
                continue;
            }
            let event = events.next().expect("a token was lost");
            assert_eq!((event.seq, event.token), (seq, token), "a token was lost");
            ended = event.finish.map(|_| seq);
        }
        assert_eq!(events.next(), None, "a token was emitted twice");
        for i in 0..self.events.len() {
            self.book(self.events[i]);
        }
        for mirror in &self.mirrors {
            for seq in &mirror.seqs {
                let id = SeqId { request: mirror.id, index: seq.index };
                assert_eq!(self.scheduler.tokens(id), Some(&seq.token_ids[..]), "tokens of sequence {id}");
            }
        }
    }

    fn book(&mut self, event: TokenEvent) {
        self.report.emitted_tokens += 1;
        let at = position(&self.mirrors, event.seq.request).expect("only live requests emit tokens");
        let mirror = &mut self.mirrors[at];
        if mirror.params.prompt_logits {
            assert_eq!(mirror.prompt_logits_rows, mirror.prompt_len, "prompt logits rows of {}", mirror.id);
        }
        let at_position = mirror.seq(event.seq.index).map(|seq| seq.token_ids.len() as u32);
        assert_eq!(Some(event.position), at_position, "position of a token of sequence {}", event.seq);
        let finish = mirror.push(event.seq, event.token, self.traffic.vocab_size);
        assert_eq!(event.finish, finish, "finish reason of sequence {}", event.seq);
        if finish.is_some() {
            if !mirror.is_beam_search() {
                mirror.assert_as_if_alone(event.seq.index, self.traffic.vocab_size);
            }
            mirror.remove(event.seq.index);
            self.forget_if_ended(at);
        }
    }

    /// Free blocks that prefix caching cannot find must never be read again, once the device has run all that is scheduled: a
    /// step in flight may still copy from them.
    fn poison_free_blocks(&mut self) {
        let blocks = self.scheduler.blocks();
        for block in (0..self.scheduler.config().num_blocks).map(BlockId) {
            if blocks.pool().ref_count(block) == 0 && !blocks.is_cached(block) {
                self.device.poison(block);
            }
        }
    }

    /// Serves everything still alive to its end, and checks that nothing is left.
    fn drain(&mut self) {
        let mut steps_left = 100_000;
        while !self.scheduler.is_idle() {
            self.step();
            steps_left -= 1;
            assert!(steps_left > 0, "I10: the remaining requests do not end");
        }
        assert!(self.mirrors.is_empty(), "the scheduler has lost a request");
        let stats = self.scheduler.stats();
        assert_eq!(stats.free_blocks, stats.num_blocks, "I1: blocks are lost");
        assert_eq!(stats.used_host_blocks, 0, "I1: host blocks are lost");
        let report = &mut self.report;
        let ended = report.refused + report.finished + report.aborted;
        assert_eq!(report.requests, ended, "every request ends exactly once");
        assert_eq!(stats.steps, report.steps, "steps");
        report.ahead = stats.steps_ahead;
        report.draft_tokens = stats.draft_tokens;
        report.accepted_draft_tokens = stats.accepted_draft_tokens;
        report.computed_tokens = stats.scheduled_tokens;
        report.preemptions = stats.preemptions;
        report.swaps = stats.swaps;
        report.swapped_blocks = stats.swapped_blocks;
        report.cow_copies = stats.cow_copies;
        report.prefix_hit_tokens = stats.prefix_hit_tokens + stats.resumed_hit_tokens;
        report.blocks_allocated = stats.blocks_allocated;
    }
}

/// Where the request `id` stands among `mirrors`.
fn position(mirrors: &VecDeque<Mirror>, id: RequestId) -> Option<usize> {
    mirrors.binary_search_by_key(&id, |mirror| mirror.id).ok()
}

#[cfg(test)]
mod tests;
