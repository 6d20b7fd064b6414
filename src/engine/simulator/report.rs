//! What a simulation has seen.

use std::fmt;
use std::ops::AddAssign;

/// Totals of one or more episodes: a simulation that never preempted has shown nothing about preemption.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SimReport {
    /// Episodes, each with sizes and traffic of its own.
    pub episodes: u64,
    /// Steps scheduled.
    pub steps: u64,
    /// Those of them that were scheduled before the step before them had ended.
    pub ahead: u64,
    /// Tokens drafted.
    pub draft_tokens: u64,
    /// Those of them that were right.
    pub accepted_draft_tokens: u64,
    /// Tokens computed.
    pub computed_tokens: u64,
    /// Tokens emitted.
    pub emitted_tokens: u64,
    /// Requests made.
    pub requests: u64,
    /// Requests refused, as they could never fit.
    pub refused: u64,
    /// Requests all of whose sequences ended by themselves, or by a stop string.
    pub finished: u64,
    /// Requests aborted.
    pub aborted: u64,
    /// Requests preempted.
    pub preemptions: u64,
    /// Those of them that were swapped to the host.
    pub swaps: u64,
    /// Blocks copied to the host.
    pub swapped_blocks: u64,
    /// Sequences forked, for parallel samples and beams.
    pub forks: u64,
    /// Sequences dropped by beam searches and stop strings.
    pub dropped: u64,
    /// Tokens that a beam got in a later step than its logits, waiting for its siblings.
    pub deferred: u64,
    /// Blocks copied on write.
    pub cow_copies: u64,
    /// Tokens found in the prefix cache.
    pub prefix_hit_tokens: u64,
    /// Blocks handed out.
    pub blocks_allocated: u64,
}

impl AddAssign for SimReport {
    fn add_assign(&mut self, other: Self) {
        self.episodes += other.episodes;
        self.steps += other.steps;
        self.ahead += other.ahead;
        self.draft_tokens += other.draft_tokens;
        self.accepted_draft_tokens += other.accepted_draft_tokens;
        self.computed_tokens += other.computed_tokens;
        self.emitted_tokens += other.emitted_tokens;
        self.requests += other.requests;
        self.refused += other.refused;
        self.finished += other.finished;
        self.aborted += other.aborted;
        self.preemptions += other.preemptions;
        self.swaps += other.swaps;
        self.swapped_blocks += other.swapped_blocks;
        self.forks += other.forks;
        self.dropped += other.dropped;
        self.deferred += other.deferred;
        self.cow_copies += other.cow_copies;
        self.prefix_hit_tokens += other.prefix_hit_tokens;
        self.blocks_allocated += other.blocks_allocated;
    }
}

impl fmt::Display for SimReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "episodes            {:>14}", self.episodes)?;
        writeln!(f, "steps               {:>14}", self.steps)?;
        writeln!(f, "  ahead             {:>14}", self.ahead)?;
        writeln!(f, "tokens computed     {:>14}", self.computed_tokens)?;
        writeln!(f, "  drafts            {:>14}", self.draft_tokens)?;
        writeln!(f, "    right           {:>14}", self.accepted_draft_tokens)?;
        writeln!(f, "tokens emitted      {:>14}", self.emitted_tokens)?;
        writeln!(f, "requests            {:>14}", self.requests)?;
        writeln!(f, "  refused           {:>14}", self.refused)?;
        writeln!(f, "  finished          {:>14}", self.finished)?;
        writeln!(f, "  aborted           {:>14}", self.aborted)?;
        writeln!(f, "preemptions         {:>14}", self.preemptions)?;
        writeln!(f, "  by swap           {:>14}", self.swaps)?;
        writeln!(f, "blocks swapped out  {:>14}", self.swapped_blocks)?;
        writeln!(f, "sequences forked    {:>14}", self.forks)?;
        writeln!(f, "sequences dropped   {:>14}", self.dropped)?;
        writeln!(f, "tokens deferred     {:>14}", self.deferred)?;
        writeln!(f, "blocks allocated    {:>14}", self.blocks_allocated)?;
        writeln!(f, "copies on write     {:>14}", self.cow_copies)?;
        write!(f, "prefix hit tokens   {:>14}", self.prefix_hit_tokens)
    }
}
