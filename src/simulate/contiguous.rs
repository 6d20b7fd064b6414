//! What engines without paging do: each sequence gets one contiguous range of slots when it is admitted, and keeps it
//! to its end. The policies are those that the PagedAttention paper compares with (arXiv 2309.06180, section 6.1).

use super::Setup;
use super::address_space::{AddressSpace, Range};
use super::cost::StepWork;
use super::queue::Queue;
use super::report::{Report, Tally};
use super::timeline::Moment;
use super::workload::{Arrival, Workload};

/// How many slots a sequence gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// As many as the longest possible sequence needs.
    Max,
    /// Its prompt, and the next power of two of its output: it knows the length up to a factor of two.
    PowerOfTwo,
    /// What it will need: it knows the output length.
    Oracle,
}

impl Reserve {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Reserve::Max => "max",
            Reserve::PowerOfTwo => "pow2",
            Reserve::Oracle => "oracle",
        }
    }

    fn slots(self, arrival: &Arrival, max_model_len: u32) -> u64 {
        let slots = match self {
            Reserve::Max => max_model_len,
            Reserve::PowerOfTwo => arrival.prompt_tokens + arrival.output_tokens.next_power_of_two(),
            Reserve::Oracle => arrival.prompt_tokens + arrival.output_tokens,
        };
        u64::from(slots.min(max_model_len))
    }
}

/// A request being served.
struct Served<'a> {
    arrival: &'a Arrival,
    ranges: Vec<Range>,
    /// Tokens of each sequence whose keys and values are in memory.
    computed: u32,
}

impl Served<'_> {
    /// Slots that each sequence will have written at its end: the last token's are never computed.
    fn final_slots(&self) -> u32 {
        self.arrival.prompt_tokens + self.arrival.output_tokens - 1
    }
}

/// Runs `workload` with continuous batching, first come, first served, and no preemption. Nothing is shared: each of a
/// request's sequences has a range, into which the prompt's keys and values are copied.
pub fn run(workload: &Workload, setup: &Setup, reserve: Reserve) -> Report {
    let mut queue = Queue::new(workload, setup.cost);
    let mut space = AddressSpace::new(setup.num_slots, setup.layout);
    let mut served: Vec<Served> = Vec::new();
    let mut tally = Tally::default();
    loop {
        admit(&mut queue, &mut space, &mut served, &mut tally, setup, reserve);
        if served.is_empty() {
            if queue.skip_to_next() {
                continue;
            }
            return tally.report(reserve.name(), setup.num_slots, workload.arrivals.len(), queue.now);
        }
        let work = step(&mut served, setup);
        tally.computed_tokens += work.tokens;
        let duration = queue.duration(work);
        tally.peak_requests = tally.peak_requests.max(served.len() as u32);
        tally.peak_seqs = tally.peak_seqs.max(served.len() as u32 * setup.seqs_per_request());
        tally.timeline.step(duration, || moment(&served, &space, &queue, setup));
        queue.pass(duration);
        served.retain_mut(|request| {
            let ended = request.computed == request.final_slots();
            if ended {
                request.ranges.drain(..).for_each(|range| space.free(range));
                let arrival = request.arrival;
                tally.finish(arrival.at, queue.now, arrival.output_tokens, setup.seqs_per_request());
            }
            !ended
        });
    }
}

/// Admits whoever fits, strictly in order.
fn admit<'a>(
    queue: &mut Queue<'a>,
    space: &mut AddressSpace,
    served: &mut Vec<Served<'a>>,
    tally: &mut Tally,
    setup: &Setup,
    reserve: Reserve,
) {
    let num_seqs = setup.seqs_per_request();
    while let Some((_, arrival)) = queue.peek() {
        if (served.len() as u32 + 1) * num_seqs > setup.max_num_seqs {
            return;
        }
        let slots = reserve.slots(arrival, setup.max_model_len);
        let mut ranges = Vec::with_capacity(num_seqs as usize);
        while let Some(range) = (ranges.len() < num_seqs as usize).then(|| space.allocate(slots)).flatten() {
            ranges.push(range);
        }
        if ranges.len() == num_seqs as usize {
            queue.take();
            served.push(Served { arrival, ranges, computed: 0 });
            continue;
        }
        ranges.into_iter().for_each(|range| space.free(range));
        if !served.is_empty() {
            return;
        }
        // The memory is empty, and it does not fit.
        queue.take();
        tally.refused += 1;
    }
}

/// One step: everyone's next token, or as much of a prompt as the token budget allows.
fn step(served: &mut [Served], setup: &Setup) -> StepWork {
    let mut work = StepWork::default();
    let mut budget = setup.max_num_batched_tokens;
    let num_seqs = setup.seqs_per_request();
    for request in served {
        let prompt_left = request.arrival.prompt_tokens.saturating_sub(request.computed);
        // The prompt is computed once for all sequences of the request.
        let (query_len, count) = if prompt_left > 0 { (prompt_left.min(budget), 1) } else { (1, num_seqs) };
        if query_len == 0 || budget < count {
            break;
        }
        budget -= query_len * count;
        request.computed += query_len;
        (0..count).for_each(|_| work.add(query_len, request.computed));
    }
    work
}

fn moment(served: &[Served], space: &AddressSpace, queue: &Queue, setup: &Setup) -> Moment {
    let (mut tokens, mut to_come, mut given) = (0, 0, 0);
    for request in served {
        let num_seqs = request.ranges.len() as u64;
        tokens += u64::from(request.computed) * num_seqs;
        to_come += u64::from(request.final_slots() - request.computed) * num_seqs;
        given += request.ranges.iter().map(|range| range.len).sum::<u64>();
    }
    let waiting = queue.len() as u32;
    let seats_left = setup.max_num_seqs - served.len() as u32 * setup.seqs_per_request();
    let waits_for_memory = waiting > 0 && seats_left >= setup.seqs_per_request();
    Moment {
        time: queue.now,
        running_requests: served.len() as u32,
        running_seqs: served.len() as u32 * setup.seqs_per_request(),
        waiting_requests: waiting,
        token_slots: tokens,
        reserved_slots: to_come,
        internal_slots: given - tokens - to_come,
        external_slots: if waits_for_memory { space.num_free() } else { 0 },
        block_table_entries: 0,
        used_blocks: 0,
    }
}
