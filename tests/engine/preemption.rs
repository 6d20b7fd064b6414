//! Preemption by recompute, and priorities (vLLM: test_scheduler.py, test_priority_scheduler*.py).

use bindery::engine::{Policy, RequestId, RequestParams, SchedulerConfig, TokenId};

use super::{Driver, config, max_tokens, seq};

fn priority(priority: i32, tokens: u32) -> RequestParams {
    RequestParams { priority, ..max_tokens(tokens) }
}

fn tokens(driver: &Driver, id: u64) -> Vec<TokenId> {
    driver.scheduler.tokens(seq(id)).expect("it is alive").to_vec()
}

#[test]
fn test_preempt_during_execution() {
    let mut driver = Driver::new(SchedulerConfig { num_blocks: 10, max_model_len: 160, ..config() });
    driver.add(0, vec![0; 80], max_tokens(20));
    driver.add(1, vec![1; 80], max_tokens(20));
    driver.schedule();
    driver.update(|_| 42);
    // The first needs a sixth block: the second gives up its five, and keeps the token it has emitted.
    let (_, scheduled) = driver.schedule();
    assert_eq!(scheduled, [(0, 1)]);
    assert_eq!(driver.running(0..2), [0]);
    assert_eq!(tokens(&driver, 1)[79..], [1, 42]);
    driver.update(|_| 43);
    let stats = driver.scheduler.stats();
    assert_eq!((stats.preemptions, stats.waiting_requests, stats.used_blocks), (1, 1, 6));
    while driver.running(0..2) == [0] {
        driver.schedule();
        driver.update(|_| 44);
    }
    // Back again, it computes its prompt and its token, and emits only what is new.
    driver.scheduler.check_invariants();
    let (batch, scheduled) = driver.schedule();
    assert_eq!((scheduled, batch.seqs[0].samples), (vec![(1, 81)], true));
    assert_eq!(driver.update(|_| 45).len(), 1);
    assert_eq!(tokens(&driver, 1)[79..], [1, 42, 45]);
    driver.drain();
}

#[test]
fn preempted_requests_resume_before_those_that_never_ran() {
    let mut driver = Driver::new(SchedulerConfig { num_blocks: 6, max_model_len: 96, ..config() });
    for id in 0..3 {
        driver.add(id, vec![id as u32; 31], max_tokens(20));
    }
    driver.add(3, vec![3; 3], max_tokens(20));
    assert_eq!(driver.step(), [(0, 31), (1, 31), (2, 31)]);
    driver.step();
    // 32 tokens are computed and two blocks full in each: the third block of the first two costs the last its blocks.
    assert_eq!(driver.step(), [(0, 1), (1, 1)]);
    assert_eq!(driver.running(0..4), [0, 1]);
    while driver.scheduler.tokens(seq(0)).is_some() {
        assert_eq!(driver.running(0..4).first(), Some(&0), "the oldest is never preempted");
        driver.step();
    }
    let (_, scheduled) = driver.schedule();
    assert!(!scheduled.is_empty() && scheduled[0].0 <= 2);
    driver.update(|_| 0);
    driver.drain();
    assert_eq!(driver.scheduler.stats().free_blocks, 6);
}

#[test]
fn resumed_requests_find_their_own_blocks_again() {
    let sizes = SchedulerConfig { num_blocks: 10, max_model_len: 160, enable_prefix_caching: true, ..config() };
    let mut driver = Driver::new(sizes);
    driver.add(0, vec![0; 80], max_tokens(2));
    driver.add(1, vec![1; 80], max_tokens(20));
    driver.step();
    assert_eq!(driver.step(), [(0, 1)]);
    // One of its five blocks was evicted meanwhile, the last one.
    assert_eq!(driver.step(), [(1, 81 - 64)]);
    let stats = driver.scheduler.stats();
    assert_eq!((stats.resumed_query_tokens, stats.resumed_hit_tokens), (81, 64));
}

#[test]
fn test_priority_scheduling_basic_ordering() {
    let mut driver = Driver::new(SchedulerConfig { policy: Policy::Priority, max_num_seqs: 1, ..config() });
    for (id, urgency) in [(0, 2), (1, 0), (2, 1), (3, 0)] {
        driver.add(id, vec![0; 4], priority(urgency, 1));
    }
    let served: Vec<_> = (0..4).map(|_| driver.step()[0].0).collect();
    assert_eq!(served, [1, 3, 2, 0], "priority first, then arrival");
}

#[test]
fn fcfs_ignores_priorities() {
    let mut driver = Driver::new(SchedulerConfig { max_num_seqs: 1, ..config() });
    for (id, urgency) in [(0, 2), (1, 0)] {
        driver.add(id, vec![0; 4], priority(urgency, 1));
    }
    assert_eq!((driver.step()[0].0, driver.step()[0].0), (0, 1));
}

#[test]
fn test_priority_scheduling_preemption() {
    let sizes = SchedulerConfig { num_blocks: 5, max_model_len: 80, policy: Policy::Priority, ..config() };
    let mut driver = Driver::new(sizes);
    driver.add(0, vec![0; 32], priority(5, 10));
    driver.add(1, vec![1; 32], priority(0, 10));
    assert_eq!(driver.step(), [(1, 32), (0, 32)]);
    // One block is left for two third blocks: the less urgent one goes, though it came first.
    assert_eq!(driver.step(), [(1, 1)]);
    assert_eq!(driver.running(0..2), [1]);
    driver.drain();
}

#[test]
fn test_priority_scheduling_preemption_victim_selection() {
    let sizes = SchedulerConfig { num_blocks: 6, max_model_len: 96, policy: Policy::Priority, ..config() };
    let mut driver = Driver::new(sizes);
    for (id, urgency) in [(0, 3), (1, 1), (2, 2)] {
        driver.add(id, vec![id as u32; 32], priority(urgency, 10));
    }
    driver.step();
    driver.step();
    assert_eq!(driver.running(0..3), [1, 2], "the least urgent one is preempted");
    driver.drain();
}

#[test]
fn test_priority_scheduling_equal_priority_preemption() {
    let sizes = SchedulerConfig { num_blocks: 6, max_model_len: 96, policy: Policy::Priority, ..config() };
    let mut driver = Driver::new(sizes);
    for id in 0..3 {
        driver.add(id, vec![id as u32; 32], priority(1, 10));
    }
    driver.step();
    driver.step();
    assert_eq!(driver.running(0..3), [0, 1], "among equals, the youngest is preempted");
    driver.drain();
}

#[test]
fn test_priority_scheduling_preemption_and_resumption_when_out_of_kv() {
    let sizes = SchedulerConfig { num_blocks: 5, max_model_len: 80, policy: Policy::Priority, ..config() };
    let mut driver = Driver::new(sizes);
    driver.add(0, vec![0; 30], priority(1, 10));
    driver.step();
    driver.add(1, vec![1; 30], priority(0, 6));
    driver.step();
    assert_eq!(driver.running(0..2), [0, 1]);
    driver.step();
    driver.step();
    driver.step();
    assert_eq!(driver.running(0..2), [1], "the low-priority one has given up its blocks");
    assert_eq!(tokens(&driver, 0).len(), 34, "but not its tokens");
    while driver.scheduler.tokens(seq(1)).is_some() {
        driver.step();
    }
    assert_eq!(driver.step(), [(0, 34)]);
    driver.drain();
}

#[test]
fn test_priority_scheduling_blast() {
    let sizes = SchedulerConfig { num_blocks: 30, max_model_len: 200, policy: Policy::Priority, ..config() };
    for enable_prefix_caching in [false, true] {
        let mut driver = Driver::new(SchedulerConfig { enable_prefix_caching, ..sizes.clone() });
        for id in 0..80_u64 {
            let len = 5 + (id * 37) % 60;
            driver.add(id, (0..len as u32).collect(), priority((id * 7 % 5) as i32, 1 + (id * 13 % 40) as u32));
            if id % 3 == 0 {
                driver.step();
            }
        }
        driver.drain();
        assert!(driver.scheduler.stats().preemptions > 0);
        assert_eq!(driver.scheduler.stats().free_blocks, 30);
    }
}

#[test]
fn a_preempted_request_can_be_aborted() {
    let mut driver = Driver::new(SchedulerConfig { num_blocks: 10, max_model_len: 160, ..config() });
    driver.add(0, vec![0; 80], max_tokens(20));
    driver.add(1, vec![1; 80], max_tokens(20));
    driver.step();
    driver.schedule();
    assert!(driver.scheduler.abort(RequestId(1)));
    assert_eq!(driver.scheduler.stats().waiting_requests, 0);
    driver.update(|_| 0);
    driver.drain();
}
