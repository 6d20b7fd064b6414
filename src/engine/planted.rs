//! Planted bugs: what the simulator must be able to find. They exist in unit tests only.

/// Whether the named bug is planted in this thread; `false`, and no code, outside unit tests.
macro_rules! planted {
    ($bug:ident) => {{
        #[cfg(test)]
        let planted = $crate::engine::planted::is_planted($crate::engine::planted::PlantedBug::$bug);
        #[cfg(not(test))]
        let planted = false;
        planted
    }};
}
pub(crate) use planted;

/// Bugs of the kind that a paged KV cache invites.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlantedBug {
    /// A fork does not raise the reference count of the last block it shares.
    ForkForgetsReference,
    /// A shared, partly filled block is written in place.
    CopyOnWriteSkipped,
    /// The first token of a block is written to the block before.
    SlotOffByOneBlock,
    /// A preempted sequence believes that its tokens are still in the KV cache.
    PreemptionKeepsComputedTokens,
    /// A block that is handed out again is still found under the hash of its old contents.
    EvictedBlockKeepsHash,
    /// The last block of a request that is swapped out is not copied.
    SwapOutForgetsBlock,
    /// A token that is not known yet is fed from the sample row before its own.
    FedTokenOfNeighbour,
    /// Drafts that were wrong are taken to be in the KV cache.
    WrongDraftsStay,
    /// The salt does not enter the block hash.
    SaltIgnored,
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<PlantedBug>> = const { std::cell::Cell::new(None) };
}

/// Plants `bug`, or none, for this thread.
#[cfg(test)]
pub(crate) fn plant(bug: Option<PlantedBug>) {
    PLANTED.set(bug);
}

#[cfg(test)]
pub(crate) fn is_planted(bug: PlantedBug) -> bool {
    PLANTED.get() == Some(bug)
}
