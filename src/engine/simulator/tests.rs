use std::panic::catch_unwind;

use super::{SimReport, simulate};
use crate::engine::planted::{PlantedBug, plant};

const STEPS_PER_EPISODE: u64 = 500;

#[test]
fn many_seeds_hold_all_invariants() {
    let mut total = SimReport::default();
    for seed in 0..200 {
        total += simulate(seed, STEPS_PER_EPISODE);
    }
    println!("{total}");
    assert!(total.preemptions > 1000, "too few preemptions to show anything");
    assert!(total.swaps > 1000 && total.preemptions - total.swaps > 1000, "too few of either preemption");
    assert!(total.cow_copies > 1000, "too few copies on write to show anything");
    assert!(total.prefix_hit_tokens > 5_000, "too few prefix hits to show anything");
    assert!(total.ahead > 10_000, "too few steps ahead to show anything");
    let wrong = total.draft_tokens - total.accepted_draft_tokens;
    assert!(total.accepted_draft_tokens > 3_000 && wrong > 5_000, "too few drafts to show anything");
    assert!(total.deferred > 100, "too few beams that waited to show anything");
    assert!(total.finished > 1000 && total.aborted > 100 && total.forks > 1000);
}

/// A beam that waits is preempted, and its siblings, farther along thanks to prefix hits, have their logits before it.
#[test]
fn a_beam_preempted_while_it_waits_is_waited_for() {
    assert!(simulate(20_262_571, 2000).deferred > 0);
}

#[test]
fn a_seed_replays() {
    assert_eq!(simulate(7, 1000), simulate(7, 1000));
}

/// Plants `bug` and returns how many steps were simulated until it was found, in episodes of increasing seed.
fn steps_until_found(bug: PlantedBug) -> u64 {
    plant(Some(bug));
    let mut found = None;
    let mut steps = 0;
    for seed in 0..200 {
        // The failing episode counts in full: the step of the panic is not known outside.
        steps += STEPS_PER_EPISODE;
        if let Err(panic) = catch_unwind(|| simulate(seed, STEPS_PER_EPISODE)) {
            let message = panic.downcast_ref::<String>().cloned();
            let message = message.or_else(|| panic.downcast_ref::<&str>().map(|message| message.to_string()));
            println!("{bug:?}: seed {seed}, within {steps} steps: {}", message.unwrap_or_default());
            found = Some(steps);
            break;
        }
    }
    plant(None);
    found.unwrap_or_else(|| panic!("{bug:?} was not found in {steps} steps"))
}

#[test]
fn finds_a_fork_that_forgets_a_reference() {
    assert!(steps_until_found(PlantedBug::ForkForgetsReference) <= 5_000);
}

#[test]
fn finds_a_skipped_copy_on_write() {
    assert!(steps_until_found(PlantedBug::CopyOnWriteSkipped) <= 5_000);
}

#[test]
fn finds_a_slot_off_by_one_block() {
    assert!(steps_until_found(PlantedBug::SlotOffByOneBlock) <= 5_000);
}

#[test]
fn finds_computed_tokens_that_survive_preemption() {
    assert!(steps_until_found(PlantedBug::PreemptionKeepsComputedTokens) <= 5_000);
}

#[test]
fn finds_an_evicted_block_that_keeps_its_hash() {
    assert!(steps_until_found(PlantedBug::EvictedBlockKeepsHash) <= 5_000);
}

#[test]
fn finds_a_block_forgotten_when_swapping_out() {
    assert!(steps_until_found(PlantedBug::SwapOutForgetsBlock) <= 5_000);
}

#[test]
fn finds_a_token_fed_from_a_neighbour() {
    assert!(steps_until_found(PlantedBug::FedTokenOfNeighbour) <= 5_000);
}

#[test]
fn finds_wrong_drafts_that_stay() {
    assert!(steps_until_found(PlantedBug::WrongDraftsStay) <= 5_000);
}

#[test]
fn finds_an_ignored_salt() {
    assert!(steps_until_found(PlantedBug::SaltIgnored) <= 5_000);
}
