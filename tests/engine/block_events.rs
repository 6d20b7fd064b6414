//! What an index of the cached blocks is told (vLLM: test_kv_cache_events and its neighbours in
//! test_prefix_caching.py).

use bindery::engine::{BlockEvent, BlockHash, SchedulerConfig};

use super::{Driver, common_prefix_and, config, max_tokens, seq};

fn recording(num_blocks: u32) -> Driver {
    let sizes = SchedulerConfig { num_blocks, max_model_len: num_blocks * 16, enable_prefix_caching: true, ..config() };
    let mut driver = Driver::new(sizes);
    driver.scheduler.record_block_events();
    driver
}

fn events(driver: &mut Driver) -> Vec<BlockEvent> {
    let mut events = Vec::new();
    driver.scheduler.take_block_events(&mut events);
    events
}

fn stored(events: &[BlockEvent]) -> Vec<(usize, bool, usize)> {
    let stored = events.iter().filter_map(|event| match event {
        BlockEvent::Stored { hashes, parent, token_ids } => Some((hashes.len(), parent.is_some(), token_ids.len())),
        _ => None,
    });
    stored.collect()
}

fn removed(events: &[BlockEvent]) -> Vec<BlockHash> {
    let removed = events.iter().filter_map(|event| match event {
        BlockEvent::Removed { hash } => Some(*hash),
        _ => None,
    });
    removed.collect()
}

#[test]
fn test_kv_cache_events() {
    let mut driver = recording(5);
    driver.add(0, (0..79).collect(), max_tokens(1));
    driver.drain();
    let first = events(&mut driver);
    let [BlockEvent::Stored { hashes, parent: None, token_ids }] = &first[..] else { panic!("{first:?}") };
    assert_eq!((hashes.len(), &token_ids[..]), (4, &(0..64).collect::<Vec<u32>>()[..]));
    // Other tokens take all five blocks: the four that were full are found no more, the last one first.
    driver.add(1, (1000..1079).collect(), max_tokens(1));
    driver.drain();
    let second = events(&mut driver);
    let mut reversed = hashes.clone();
    reversed.reverse();
    assert_eq!(removed(&second), reversed);
    assert_eq!(stored(&second), [(4, false, 64)]);
    assert!(matches!(second.last(), Some(BlockEvent::Stored { .. })), "{second:?}");
    assert!(driver.scheduler.reset_prefix_cache());
    assert_eq!(events(&mut driver), [BlockEvent::Cleared]);
    assert_eq!(events(&mut driver), [], "each is told once");
}

#[test]
fn blocks_that_come_later_name_the_block_before_them() {
    let mut driver = recording(20);
    driver.add(0, common_prefix_and(7, 10), max_tokens(30));
    driver.step();
    let first = events(&mut driver);
    let BlockEvent::Stored { hashes, .. } = &first[0] else { panic!("{first:?}") };
    let last = hashes[2];
    while driver.scheduler.tokens(seq(0)).is_some() {
        driver.step();
    }
    let later = events(&mut driver);
    assert_eq!(stored(&later), [(2, true, 32)], "they follow each other, and nothing came between");
    assert!(matches!(later[0], BlockEvent::Stored { parent: Some(parent), .. } if parent == last));
}

#[test]
fn a_hash_is_stored_with_its_first_block_and_removed_with_its_last() {
    let mut driver = recording(4);
    // Side by side, with one token to compute at least, both fill the same two blocks: the second computes its last.
    driver.add(0, (0..32).collect(), max_tokens(1));
    driver.add(1, (0..32).collect(), max_tokens(1));
    driver.drain();
    let both = events(&mut driver);
    assert_eq!((stored(&both), removed(&both)), (vec![(2, false, 32)], vec![]));
    assert_eq!(driver.scheduler.stats().cached_blocks, 3);
    // One of the two blocks under the hash goes, then all.
    driver.add(2, (1000..1020).collect(), max_tokens(1));
    driver.drain();
    assert_eq!(removed(&events(&mut driver)), []);
    driver.add(3, (2000..2060).collect(), max_tokens(1));
    driver.drain();
    let all = events(&mut driver);
    let BlockEvent::Stored { hashes, .. } = &both[0] else { panic!("{both:?}") };
    assert!(hashes.iter().all(|hash| removed(&all).contains(hash)), "{all:?}");
}

#[test]
fn what_is_taken_back_from_a_step_is_removed_again() {
    let mut driver = recording(6);
    driver.add(0, (0..47).collect(), max_tokens(20));
    driver.add(1, (100..147).collect(), max_tokens(20));
    while driver.scheduler.stats().preemptions == 0 {
        driver.step();
    }
    let mut known: Vec<BlockHash> = Vec::new();
    for event in events(&mut driver) {
        match event {
            BlockEvent::Stored { hashes, .. } => known.extend(hashes),
            BlockEvent::Removed { hash } => known.retain(|other| *other != hash),
            BlockEvent::Cleared => known.clear(),
        }
    }
    assert_eq!(known.len() as u32, driver.scheduler.stats().cached_blocks, "the index knows what can be found");
}

#[test]
fn nobody_listens_unless_asked() {
    let mut driver = Driver::new(SchedulerConfig { enable_prefix_caching: true, ..config() });
    driver.add(0, (0..79).collect(), max_tokens(1));
    driver.drain();
    assert_eq!(events(&mut driver), []);
}
