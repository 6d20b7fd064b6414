//! Preemption by swap: the blocks of the victim wait in the host pool (vLLM until 0.8: test_block_manager.py's swap
//! cases). Host blocks are numbered apart, from 0.

use bindery::engine::{BlockSwap, PreemptionCosts, RequestId, RequestParams, SchedulerConfig, SeqId};

use super::{Driver, config, max_tokens, seq};

fn swaps(swaps: &[BlockSwap]) -> Vec<(u32, u32)> {
    swaps.iter().map(|swap| (swap.device.0, swap.host.0)).collect()
}

fn sizes(num_blocks: u32, num_host_blocks: u32) -> SchedulerConfig {
    SchedulerConfig { num_blocks, num_host_blocks, max_model_len: num_blocks * 16, ..config() }
}

/// Two requests of five full blocks each in a pool of ten.
fn full_pool(num_host_blocks: u32) -> Driver {
    let mut driver = Driver::new(sizes(10, num_host_blocks));
    driver.add(0, vec![0; 80], max_tokens(20));
    driver.add(1, vec![1; 80], max_tokens(20));
    driver.step();
    driver
}

#[test]
fn a_victim_leaves_for_the_host_and_comes_back_without_computing_anything_again() {
    let mut driver = full_pool(5);
    let (batch, scheduled) = driver.schedule();
    assert_eq!(scheduled, [(0, 1)]);
    assert_eq!(swaps(&batch.swap_outs), [(5, 0), (6, 1), (7, 2), (8, 3), (9, 4)]);
    driver.update(|_| 0);
    let stats = driver.scheduler.stats();
    assert_eq!((stats.preemptions, stats.swaps, stats.swapped_blocks, stats.used_host_blocks), (1, 1, 5, 5));
    while driver.scheduler.tokens(seq(0)).is_some() {
        assert_eq!(driver.step(), [(0, 1)]);
    }
    let (batch, scheduled) = driver.schedule();
    assert_eq!(scheduled, [(1, 1)], "only the token that it had drawn is computed");
    let back: Vec<u32> = swaps(&batch.swap_ins).into_iter().map(|(_, host)| host).collect();
    assert_eq!((batch.swap_outs.len(), back), (0, vec![0, 1, 2, 3, 4]));
    assert_eq!(driver.scheduler.stats().used_host_blocks, 0);
    driver.update(|_| 0);
    assert_eq!(driver.scheduler.accounting(RequestId(1)).expect("it is alive").blocks_swapped, 5);
    driver.drain();
}

#[test]
fn a_victim_that_finds_no_room_on_the_host_is_computed_again() {
    let mut driver = full_pool(4);
    let (batch, _) = driver.schedule();
    assert!(batch.swap_outs.is_empty());
    driver.update(|_| 0);
    let stats = driver.scheduler.stats();
    assert_eq!((stats.preemptions, stats.swaps, stats.used_host_blocks), (1, 0, 0));
    driver.drain();
}

#[test]
fn the_cheaper_way_is_taken() {
    // Five blocks there and back, against 80 tokens.
    for (copy_block, swapped) in [(7, 1), (8, 0)] {
        let mut driver = full_pool(5);
        driver.scheduler.set_preemption_costs(PreemptionCosts { compute_token: 1, copy_block });
        driver.step();
        let stats = driver.scheduler.stats();
        assert_eq!((stats.preemptions, stats.swaps), (1, swapped), "a copy costs as much as {copy_block} tokens");
        driver.drain();
    }
}

#[test]
fn what_others_keep_in_the_prefix_cache_need_not_be_computed_again() {
    // Four of the victim's five blocks are those of the first request: 16 tokens are lost, for five copies and back.
    for (copy_block, swapped) in [(1, 1), (2, 0)] {
        let mut driver = Driver::new(SchedulerConfig { enable_prefix_caching: true, ..sizes(6, 6) });
        driver.scheduler.set_preemption_costs(PreemptionCosts { compute_token: 1, copy_block });
        driver.add(0, vec![0; 79], max_tokens(10));
        driver.add(1, vec![0; 79], max_tokens(10));
        driver.step();
        driver.step();
        // 80 tokens are computed in each: the first takes a block of the second's.
        driver.step();
        let stats = driver.scheduler.stats();
        assert_eq!((stats.preemptions, stats.swaps), (1, swapped), "a copy costs as much as {copy_block} tokens");
        driver.drain();
    }
}

#[test]
fn samples_share_their_blocks_on_the_host_too() {
    let mut driver = Driver::new(sizes(8, 8));
    driver.add(1, vec![9; 60], max_tokens(40));
    driver.add(0, (0..20).collect(), RequestParams { num_samples: 3, ..max_tokens(12) });
    // Four blocks, and one full one shared by three samples whose second block is copied twice: eight.
    driver.step();
    driver.step();
    assert_eq!(driver.scheduler.stats().free_blocks, 0);
    let mut outs = Vec::new();
    while outs.is_empty() {
        let (batch, _) = driver.schedule();
        outs = swaps(&batch.swap_outs);
        driver.update(|_| 0);
    }
    assert_eq!(outs.len(), 4, "the shared block leaves once: {outs:?}");
    let mut ins = Vec::new();
    while ins.is_empty() {
        let (batch, _) = driver.schedule();
        ins = swaps(&batch.swap_ins);
        driver.update(|_| 0);
    }
    assert_eq!(ins.len(), 4);
    let first = |index| {
        let seq = SeqId { request: RequestId(0), index };
        driver.scheduler.block_table(seq).expect("it is alive")[0]
    };
    assert!(first(0) == first(1) && first(1) == first(2));
    assert_eq!(driver.scheduler.blocks().pool().ref_count(first(0)), 3);
    driver.drain();
}

#[test]
fn an_aborted_request_gives_its_host_blocks_back() {
    let mut driver = full_pool(5);
    driver.step();
    assert!(!driver.scheduler.reset_prefix_cache(), "blocks are in use");
    assert!(driver.scheduler.abort(RequestId(1)));
    driver.scheduler.check_invariants();
    assert_eq!(driver.scheduler.stats().used_host_blocks, 0);
    driver.drain();
    assert!(driver.scheduler.reset_prefix_cache());
}
