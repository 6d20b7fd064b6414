//! Steps in which every sequence generates a token, or a few with drafts, come again and again: their launches are captured as
//! graphs, one for each size of step, and cost one call.
//!
//! What differs between steps of a size stands in the step's metadata, and the sizes are rounded up: a kernel with a place in
//! the grid beyond the step's counts returns at once, or makes rows that nobody reads.

use super::super::{BackendError, StepLimits};
use super::driver::{Driver, GraphId};
use super::plan::Plan;
use super::step_words::{Items, Round, StepCounts};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most graphs that are kept: sizes of steps change slowly, so that more would hardly be used again.
const MOST: usize = 64;

/// A size of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Size {
    rows: u32,
    decode_items: u32,
    /// Of prefixes that tokens share.
    prefill_items: u32,
    reduce_items: u32,
    draws: u32,
    /// Whether it takes tokens from the step before.
    is_fed: bool,
}

/// Graphs by the size of step that they are for.
pub(super) struct Graphs {
    driver: Arc<dyn Driver>,
    /// With the number of the step that used it last. `None` for a size that was launched once, kernel by kernel: a graph's
    /// kernels must have run before, and a size that does not come again needs none.
    by_size: BTreeMap<Size, (Option<GraphId>, u64)>,
    steps: u64,
    /// Whether the driver captures at all.
    available: bool,
}

impl Graphs {
    pub(super) fn new(driver: Arc<dyn Driver>) -> Self {
        Self { driver, by_size: BTreeMap::new(), steps: 0, available: true }
    }

    /// Runs a step's launches, as a graph where there is one for it.
    pub(super) fn run(&mut self, plan: &Plan, counts: &StepCounts, limits: &StepLimits) -> Result<(), BackendError> {
        self.steps += 1;
        let Some(size) = Size::of(counts, limits).filter(|_| self.available) else {
            return self.launch(plan, counts);
        };
        let rounded = size.counts();
        let graph = match self.by_size.get_mut(&size) {
            None => {
                self.insert(size);
                return self.launch(plan, &rounded);
            }
            Some((graph, used)) => {
                *used = self.steps;
                *graph
            }
        };
        match graph {
            Some(graph) => self.driver.replay(graph),
            // Where capturing fails, as under some profilers, launches do the same.
            None => match self.driver.capture(&plan.launches(&rounded)) {
                Ok(Some(graph)) => {
                    self.by_size.insert(size, (Some(graph), self.steps));
                    self.driver.replay(graph)
                }
                Ok(None) | Err(_) => {
                    self.available = false;
                    self.launch(plan, counts)
                }
            },
        }
    }

    fn launch(&self, plan: &Plan, counts: &StepCounts) -> Result<(), BackendError> {
        plan.launches(counts).iter().try_for_each(|launch| self.driver.launch(launch))
    }

    /// Makes room for a size, at the cost of the one that was not used for the longest time.
    fn insert(&mut self, size: Size) {
        if self.by_size.len() == MOST {
            let oldest = *self.by_size.iter().min_by_key(|(_, (_, used))| used).expect("it is full").0;
            if let Some((Some(graph), _)) = self.by_size.remove(&oldest) {
                self.driver.forget(graph);
            }
        }
        self.by_size.insert(size, (None, self.steps));
    }
}

impl Drop for Graphs {
    fn drop(&mut self) {
        for (graph, _) in self.by_size.values() {
            if let Some(graph) = graph {
                self.driver.forget(*graph);
            }
        }
    }
}

impl Size {
    /// The size of a step that only generates, a row of logits for each token; `None` for any other.
    fn of(counts: &StepCounts, limits: &StepLimits) -> Option<Self> {
        let others = counts.block_copies + counts.top_k_rows + counts.scored;
        let generates = counts.tokens > 0 && counts.logits_rows == counts.tokens && others == 0;
        // Where there are more rounds than one, each is large, and its launches cost little beside it.
        let [round] = counts.rounds[..] else { return None };
        let most_rows = limits.max_tokens.min(limits.max_logits_rows);
        generates.then(|| Self {
            rows: rounded_up(counts.tokens).min(most_rows),
            decode_items: rounded_up(round.decode.count),
            prefill_items: rounded_up(round.prefill.count),
            reduce_items: rounded_up(round.reduce.count),
            draws: rounded_up(counts.draws).min(limits.max_draws),
            is_fed: counts.fed_tokens > 0,
        })
    }

    fn counts(self) -> StepCounts {
        let Self { rows, decode_items, prefill_items, reduce_items, draws, is_fed } = self;
        let fed_tokens = if is_fed { rows } else { 0 };
        let [decode, prefill, reduce] =
            [decode_items, prefill_items, reduce_items].map(|count| Items { first: 0, count });
        let rounds = vec![Round { decode, prefill, reduce, keys: 0 }];
        StepCounts { tokens: rows, logits_rows: rows, draws, fed_tokens, rounds, ..StepCounts::default() }
    }
}

/// To the next number that has zeros after its three leading bits, so that a size is found again while sequences grow.
fn rounded_up(count: u32) -> u32 {
    let bits = 32 - count.leading_zeros();
    count.next_multiple_of(1 << bits.saturating_sub(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: StepLimits = StepLimits {
        max_tokens: 100,
        max_seqs: 90,
        max_logits_rows: 90,
        max_block_table_entries: 1000,
        max_block_copies: 90,
        max_draws: 90,
        max_adjustments: 90,
        batch_invariant: false,
        quantize_activations: false,
        cascade_attention: true,
    };

    #[test]
    fn counts_are_rounded_up_by_less_than_a_quarter() {
        assert_eq!([0, 1, 2, 7, 8, 9, 15, 17, 100].map(rounded_up), [0, 1, 2, 7, 8, 10, 16, 20, 112]);
        assert!((1..5000).all(|n| rounded_up(n) >= n && rounded_up(n) * 4 <= n * 5));
    }

    #[test]
    fn only_steps_that_generate_have_a_size() {
        let counts = |tokens, prefill_items| {
            let items = |count| Items { first: 0, count };
            let round = Round { decode: items(tokens), prefill: items(prefill_items), ..Round::default() };
            StepCounts { tokens, logits_rows: tokens, rounds: vec![round], ..StepCounts::default() }
        };
        let size = Size::of(&counts(9, 0), &LIMITS).expect("it generates");
        assert_eq!((size.rows, size.decode_items, size.reduce_items), (10, 10, 0));
        let most = Size::of(&counts(90, 0), &LIMITS).expect("it generates");
        assert_eq!(most.rows, 90, "no more than there is room for");
        let shared = Size::of(&counts(9, 3), &LIMITS).expect("it generates").counts();
        assert_eq!(shared.rounds[0].prefill.count, 3);
        let one = counts(9, 0);
        for other in [
            StepCounts { block_copies: 1, ..one.clone() },
            StepCounts { top_k_rows: 1, ..one.clone() },
            StepCounts { logits_rows: 8, ..one.clone() },
            StepCounts { scored: 1, ..one.clone() },
            StepCounts { rounds: [&one.rounds[..], &one.rounds].concat(), ..one },
            StepCounts::default(),
        ] {
            assert_eq!(Size::of(&other, &LIMITS), None);
        }
    }
}
