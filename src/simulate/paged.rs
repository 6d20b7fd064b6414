//! The engine's own scheduler, run over a workload with no device: every block, hit, copy and preemption is real.

use super::Setup;
use super::cost::StepWork;
use super::queue::Queue;
use super::random::{Random, Stream};
use super::report::{PagedCounts, Report, Tally};
use super::timeline::Moment;
use super::workload::{Arrival, Workload};
use crate::engine::{
    Policy, Request, RequestId, RequestParams, SampledToken, Scheduler, SchedulerConfig, SeqId, Stats, TokenId,
};

/// First token id that no shared prefix has.
const FIRST_OWN_TOKEN: TokenId = 1 << 30;

/// Runs `workload` with blocks of `block_size` tokens.
pub fn run(workload: &Workload, setup: &Setup, block_size: u32) -> Report {
    let mut run = Run::new(workload, setup, block_size);
    loop {
        run.feed();
        if !run.step() && !run.queue.skip_to_next() {
            return run.report();
        }
    }
}

struct Run<'a> {
    workload: &'a Workload,
    setup: &'a Setup,
    scheduler: Scheduler,
    queue: Queue<'a>,
    random: Random,
    tally: Tally,
    peak_used_blocks: u32,
    /// With beams: the next free sequence index of each request; 0 before its prompt is computed.
    next_beam: Vec<u32>,
    beam_draws: u64,
    sampled: Vec<SampledToken>,
    events: Vec<crate::engine::TokenEvent>,
}

impl<'a> Run<'a> {
    fn new(workload: &'a Workload, setup: &'a Setup, block_size: u32) -> Self {
        let num_blocks = u32::try_from(setup.num_slots / u64::from(block_size)).expect("checked by Setup");
        let config = SchedulerConfig {
            num_blocks: num_blocks.max(1),
            num_host_blocks: 0,
            block_size,
            max_num_seqs: setup.max_num_seqs,
            max_num_batched_tokens: setup.max_num_batched_tokens,
            max_model_len: setup.max_model_len,
            max_num_logits_rows: setup.max_num_seqs,
            enable_prefix_caching: setup.enable_prefix_caching,
            long_prefill_token_threshold: 0,
            policy: Policy::Fcfs,
            drafts: None,
        };
        Run {
            workload,
            setup,
            scheduler: Scheduler::new(config, b"simulate"),
            queue: Queue::new(workload, setup.cost),
            random: Random::new(setup.seed),
            tally: Tally::default(),
            peak_used_blocks: 0,
            next_beam: if setup.beam_width > 1 { vec![0; workload.arrivals.len()] } else { Vec::new() },
            beam_draws: 0,
            sampled: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Hands requests to the scheduler: never fewer than it could admit in one step, and no more, as each is its prompt
    /// of tokens from now on.
    fn feed(&mut self) {
        let limits = self.scheduler.config().limits();
        while self.scheduler.num_waiting() <= self.setup.max_num_seqs as usize {
            let Some((i, arrival)) = self.queue.take() else { return };
            let params = RequestParams {
                max_tokens: Some(arrival.output_tokens),
                num_samples: self.setup.n,
                max_sequences: if self.setup.beam_width > 1 { self.setup.beam_width } else { 0 },
                ..RequestParams::default()
            };
            match Request::new(RequestId(i as u64), self.prompt(i, arrival), params, &limits) {
                Ok(request) => self.scheduler.add(request),
                Err(_) => self.tally.refused += 1,
            }
        }
    }

    /// Only which tokens are equal matters: those of a shared prefix, and no others.
    fn prompt(&self, i: usize, arrival: &Arrival) -> Vec<TokenId> {
        let shared = arrival.prefix.map_or(0, |prefix| self.workload.prefixes[prefix as usize]);
        let own = FIRST_OWN_TOKEN + i as u32;
        let token = |at| if at < shared { arrival.prefix.unwrap_or(0) } else { own };
        (0..arrival.prompt_tokens).map(token).collect()
    }

    /// One step; `false` when there is nothing to do.
    fn step(&mut self) -> bool {
        let Some(batch) = self.scheduler.schedule() else { return false };
        let mut work = StepWork::default();
        for (lens, &seq_len) in batch.query_start_loc.windows(2).zip(&batch.seq_lens) {
            work.add(lens[1] - lens[0], seq_len);
        }
        self.tally.computed_tokens += batch.token_ids.len() as u64;
        let duration = self.queue.duration(work);
        self.look(duration);
        self.sample();
        self.events.clear();
        self.scheduler.update(&self.sampled, &mut self.events);
        self.queue.pass(duration);
        for ended in self.scheduler.ended_requests() {
            let arrival = &self.workload.arrivals[ended.request.0 as usize];
            let num_seqs = self.setup.seqs_per_request();
            self.tally.finish(arrival.at, self.queue.now, arrival.output_tokens, num_seqs);
        }
        true
    }

    fn look(&mut self, duration: f64) {
        let pool = self.scheduler.blocks().pool();
        self.peak_used_blocks = self.peak_used_blocks.max(pool.num_blocks() - pool.num_free());
        let requests = self.scheduler.num_running() as u32;
        self.tally.peak_requests = self.tally.peak_requests.max(requests);
        self.tally.peak_seqs = self.tally.peak_seqs.max(self.scheduler.batch().seqs.len() as u32);
        let (scheduler, queue) = (&self.scheduler, &self.queue);
        self.tally.timeline.step(duration, || moment(&scheduler.stats(), queue, scheduler.config().block_size));
    }

    /// A token for everyone who is due one; beams fork and drop first.
    fn sample(&mut self) {
        self.sampled.clear();
        let random = self.random;
        let rows = self.scheduler.batch().sample_rows.iter();
        self.sampled.extend(rows.map(|row| SampledToken { seq: row.seq, token: own_token(random, row.seq) }));
        if self.setup.beam_width <= 1 {
            return;
        }
        let seqs: Vec<SeqId> = self.sampled.iter().map(|sampled| sampled.seq).collect();
        for beams in seqs.chunk_by(|a, b| a.request == b.request) {
            self.search(beams);
        }
    }

    /// One step of a beam search: what matters to memory is who descends from whom.
    fn search(&mut self, beams: &[SeqId]) {
        let width = self.setup.beam_width;
        let next = self.next_beam[beams[0].request.0 as usize];
        if next == 0 {
            for index in 1..width {
                self.fork(beams[0], index);
            }
            self.next_beam[beams[0].request.0 as usize] = width;
            return;
        }
        // Beams that resume after preemption need not all be due in one step.
        if beams.len() < width as usize {
            return;
        }
        let mut dropped = vec![false; beams.len()];
        for at in 0..beams.len() {
            self.beam_draws += 2;
            let (chance, choice) = (self.beam_draws, self.beam_draws + 1);
            let parent = self.random.below(Stream::Beam, choice, width) as usize;
            let replaced = self.random.uniform(Stream::Beam, chance) < self.setup.beam_replacement;
            if !replaced || parent == at || dropped[parent] {
                continue;
            }
            dropped[at] = true;
            let index = self.next_beam[beams[at].request.0 as usize];
            self.next_beam[beams[at].request.0 as usize] += 1;
            self.fork(beams[parent], index);
        }
        for (beam, _) in beams.iter().zip(&dropped).filter(|(_, dropped)| **dropped) {
            self.scheduler.drop_seq(*beam);
        }
    }

    fn fork(&mut self, parent: SeqId, index: u32) {
        let seq = self.scheduler.fork(parent, index);
        self.sampled.push(SampledToken { seq, token: own_token(self.random, seq) });
    }

    fn report(self) -> Report {
        let stats = self.scheduler.stats();
        assert_eq!(stats.used_blocks, 0, "all requests have ended, and blocks are still used");
        let means = self.tally.timeline.means();
        let counts = PagedCounts::new(&stats, self.peak_used_blocks, &means);
        let block_size = self.scheduler.config().block_size;
        let num_slots = u64::from(stats.num_blocks) * u64::from(block_size);
        let mut report = self.tally.report("paged", num_slots, self.workload.arrivals.len(), self.queue.now);
        report.block_size = Some(block_size);
        report.paged = Some(counts);
        report
    }
}

/// A made-up token that no other sequence draws: what is shared is shared by forks and prefixes alone.
fn own_token(random: Random, seq: SeqId) -> TokenId {
    let counter = seq.request.0 << 24 | u64::from(seq.index);
    FIRST_OWN_TOKEN | (random.bits(Stream::Token, counter) >> 34) as u32
}

fn moment(stats: &Stats, queue: &Queue, block_size: u32) -> Moment {
    let slots = u64::from(stats.used_blocks) * u64::from(block_size);
    let internal_slots = stats.unused_slots.min(slots);
    Moment {
        time: queue.now,
        running_requests: stats.running_requests,
        running_seqs: stats.running_seqs,
        waiting_requests: stats.waiting_requests + queue.len() as u32,
        token_slots: slots - internal_slots,
        reserved_slots: 0,
        internal_slots,
        external_slots: 0,
        block_table_entries: stats.block_table_entries,
        used_blocks: u64::from(stats.used_blocks),
    }
}
