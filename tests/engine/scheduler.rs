//! The step: budgets, chunks, order, stops, aborts (vLLM: test_scheduler.py).

use bindery::engine::{FinishReason, RequestId, RequestParams, SampledToken, SchedulerConfig, SeqId, Stats};

use super::{Driver, config, max_tokens, seq};

#[test]
fn test_schedule() {
    for enable_prefix_caching in [false, true] {
        let mut driver = Driver::new(SchedulerConfig { enable_prefix_caching, ..config() });
        for id in 0..10 {
            driver.add(id, vec![id as u32; 10], max_tokens(16));
        }
        let (batch, scheduled) = driver.schedule();
        assert_eq!(scheduled, (0..10).map(|id| (id, 10)).collect::<Vec<_>>());
        assert_eq!(batch.step, 1);
        assert_eq!(batch.query_start_loc, (0..=10).map(|i| i * 10).collect::<Vec<_>>());
        assert_eq!(batch.logits_indices, (0..10).map(|i| i * 10 + 9).collect::<Vec<_>>());
        assert_eq!(batch.seq_lens, [10; 10]);
        assert_eq!(batch.slot_mapping[..11], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16]);
    }
}

#[test]
fn test_schedule_concurrent_partial_requests() {
    for enable_prefix_caching in [false, true] {
        let mut driver = Driver::new(SchedulerConfig {
            max_num_batched_tokens: 1024,
            long_prefill_token_threshold: 400,
            enable_prefix_caching,
            ..config()
        });
        for id in 0..3 {
            driver.add(id, vec![id as u32; 800], max_tokens(16));
        }
        let (batch, scheduled) = driver.schedule();
        assert_eq!(scheduled, [(0, 400), (1, 400), (2, 224)]);
        assert!(batch.sample_rows.is_empty() && batch.logits_indices.is_empty());
        assert_eq!(driver.update(|_| 0), []);
        let (_, scheduled) = driver.schedule();
        assert_eq!(scheduled, [(0, 400), (1, 400), (2, 224)]);
        assert_eq!(driver.update(|_| 0).len(), 2);
        assert_eq!(driver.step(), [(0, 1), (1, 1), (2, 352)]);
        assert_eq!(driver.step(), [(0, 1), (1, 1), (2, 1)]);
    }
}

#[test]
fn test_schedule_partial_requests() {
    let mut driver = Driver::new(SchedulerConfig { max_num_batched_tokens: 1024, ..config() });
    for id in 0..3 {
        driver.add(id, vec![id as u32; 800], max_tokens(16));
    }
    assert_eq!(driver.step(), [(0, 800), (1, 224)]);
    assert_eq!(driver.step(), [(0, 1), (1, 576), (2, 447)]);
    assert_eq!(driver.step(), [(0, 1), (1, 1), (2, 353)]);
}

#[test]
fn test_stop_via_update_from_output() {
    let stops = RequestParams { stop_token_ids: vec![42, 43], ..max_tokens(10) };
    let mut driver = Driver::new(config());
    driver.add(0, vec![1; 5], stops.clone());
    driver.add(1, vec![2; 5], stops);
    driver.add(2, vec![3; 5], max_tokens(2));
    driver.schedule();
    let events = driver.update(|seq| if seq.request.0 == 0 { 42 } else { 7 });
    let finishes: Vec<_> = events.iter().map(|event| (event.token, event.finish)).collect();
    assert_eq!(finishes, [(42, Some(FinishReason::Stop(42))), (7, None), (7, None)]);
    assert_eq!(driver.scheduler.tokens(seq(0)), None);
    assert_eq!(driver.scheduler.tokens(seq(1)), Some(&[2, 2, 2, 2, 2, 7][..]));

    let (_, scheduled) = driver.schedule();
    assert_eq!(scheduled, [(1, 1), (2, 1)]);
    let events = driver.update(|seq| if seq.request.0 == 1 { 43 } else { 42 });
    let finishes: Vec<_> = events.iter().map(|event| event.finish).collect();
    // Request 2 has no stop tokens, and has reached its length.
    assert_eq!(finishes, [Some(FinishReason::Stop(43)), Some(FinishReason::Length)]);
    assert!(driver.scheduler.is_idle());
}

#[test]
fn test_check_stop_min_tokens() {
    let params = RequestParams { min_tokens: 3, stop_token_ids: vec![0], ..max_tokens(10) };
    let mut driver = Driver::new(config());
    driver.add(0, vec![1; 5], params);
    let finishes: Vec<_> = (0..3)
        .map(|_| {
            driver.schedule();
            driver.update(|_| 0)[0].finish
        })
        .collect();
    assert_eq!(finishes, [None, None, Some(FinishReason::Stop(0))]);
}

#[test]
fn a_sequence_ends_at_the_length_of_the_model() {
    let mut driver = Driver::new(SchedulerConfig { max_model_len: 8, ..config() });
    driver.add(0, vec![1; 5], RequestParams::default());
    for last in [false, false, true] {
        driver.schedule();
        assert_eq!(driver.update(|_| 0)[0].finish, last.then_some(FinishReason::Length));
    }
}

#[test]
fn test_memory_leak() {
    let mut driver = Driver::new(SchedulerConfig { enable_prefix_caching: true, ..config() });
    for id in 0..5 {
        driver.add(id, (0..10 * (id as u32 + 1)).collect(), max_tokens(10));
    }
    driver.drain();
    let stats = driver.scheduler.stats();
    assert_eq!((stats.free_blocks, stats.used_blocks, stats.unused_slots), (10_000, 0, 0));
    assert_eq!((stats.running_requests, stats.waiting_requests, stats.running_seqs), (0, 0, 0));
    assert!(driver.scheduler.blocks().pool().ref_counts().iter().all(|&count| count == 0));
}

#[test]
fn test_worker_slot_overflow() {
    let mut driver = Driver::new(SchedulerConfig { max_num_seqs: 3, ..config() });
    for id in 0..7 {
        driver.add(id, vec![1; 4], max_tokens(2 + id as u32 % 3));
    }
    while !driver.scheduler.is_idle() {
        assert!(driver.step().len() <= 3);
    }
}

#[test]
fn nobody_overtakes_the_first_in_line() {
    let mut driver = Driver::new(SchedulerConfig { num_blocks: 4, max_model_len: 64, ..config() });
    driver.add(0, vec![0; 30], max_tokens(3));
    driver.add(1, vec![1; 50], max_tokens(3));
    driver.add(2, vec![2; 5], max_tokens(3));
    // Request 2 would fit, but request 1 was first.
    assert_eq!(driver.step(), [(0, 30)]);
    assert_eq!(driver.step(), [(0, 1)]);
    driver.step();
    assert_eq!(driver.step(), [(1, 50)]);
    driver.drain();
}

#[test]
fn logits_rows_are_a_budget() {
    let mut driver = Driver::new(SchedulerConfig { max_num_logits_rows: 2, ..config() });
    for id in 0..3 {
        driver.add(id, vec![id as u32; 4], max_tokens(2));
    }
    // Two sample; the third, if at all, stops a token short of its logits.
    assert_eq!(driver.step(), [(0, 4), (1, 4)]);
    assert_eq!(driver.step(), [(0, 1), (1, 1)]);
    assert_eq!(driver.step(), [(2, 4)]);
}

#[test]
fn prompt_logits_are_computed_once_for_each_position() {
    let mut driver = Driver::new(SchedulerConfig { max_num_logits_rows: 8, ..config() });
    driver.add(0, vec![0; 4], max_tokens(10));
    driver.step();
    driver.add(1, vec![1; 20], RequestParams { prompt_logits: true, ..max_tokens(2) });
    let mut rows = Vec::new();
    for _ in 0..4 {
        let (batch, _) = driver.schedule();
        rows.push(batch.seqs[1].num_logits_rows);
        assert!(batch.seqs[0].samples, "the decode in front keeps its row");
        driver.update(|_| 0);
    }
    assert_eq!(rows, [7, 7, 6, 1]);
}

#[test]
fn a_decode_behind_a_prompt_with_logits_keeps_its_row() {
    let mut driver = Driver::new(SchedulerConfig { max_num_logits_rows: 3, max_num_batched_tokens: 16, ..config() });
    driver.add(0, vec![0; 9], RequestParams { prompt_logits: true, ..max_tokens(2) });
    driver.add(1, vec![1; 2], max_tokens(9));
    // The first chunk takes all rows; once the other runs, one is kept for it.
    assert_eq!(driver.step(), [(0, 3)]);
    driver.scheduler.check_invariants();
    let scheduled: Vec<_> = (0..3).map(|_| driver.step()).collect();
    assert_eq!(scheduled, [vec![(0, 3)], vec![(0, 3)], vec![(0, 1), (1, 2)]]);
}

#[test]
fn what_is_aborted_in_a_step_is_released_at_its_end() {
    let mut driver = Driver::new(config());
    driver.add(0, vec![0; 20], max_tokens(5));
    driver.add(1, vec![1; 20], max_tokens(5));
    driver.schedule();
    assert!(driver.scheduler.abort(RequestId(0)));
    assert!(!driver.scheduler.abort(RequestId(0)));
    assert_eq!(driver.scheduler.tokens(seq(0)), None);
    assert_eq!(driver.scheduler.stats().used_blocks, 4, "the device may still be writing to them");
    driver.scheduler.check_invariants();
    let events = driver.update(|_| 0);
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [seq(1)]);
    assert_eq!(driver.scheduler.stats().used_blocks, 2);
    let ended: Vec<_> = driver.scheduler.ended_requests().iter().map(|ended| ended.request).collect();
    assert_eq!(ended, [RequestId(0)]);

    assert!(driver.scheduler.abort(RequestId(1)), "between steps, it is released at once");
    assert_eq!(driver.scheduler.stats(), Stats { used_blocks: 0, ..driver.scheduler.stats() });
    assert!(driver.scheduler.is_idle() && driver.scheduler.schedule().is_none());
}

#[test]
fn a_waiting_request_can_be_aborted() {
    let mut driver = Driver::new(SchedulerConfig { max_num_seqs: 1, ..config() });
    driver.add(0, vec![0; 4], max_tokens(2));
    driver.add(1, vec![1; 4], max_tokens(2));
    driver.schedule();
    assert!(driver.scheduler.abort(RequestId(1)));
    assert_eq!(driver.scheduler.stats().waiting_requests, 0);
    driver.update(|_| 0);
    driver.drain();
    assert!(!driver.scheduler.abort(RequestId(1)));
}

#[test]
fn a_sequence_finished_by_the_text_layer_is_gone() {
    let mut driver = Driver::new(config());
    driver.add(0, vec![0; 4], max_tokens(20));
    driver.step();
    assert!(driver.scheduler.finish_seq(seq(0)));
    assert!(!driver.scheduler.finish_seq(seq(0)));
    assert!(driver.scheduler.is_idle());
    let ended = driver.scheduler.ended_requests()[0];
    assert_eq!((ended.request, ended.accounting.computed_tokens), (RequestId(0), 4));
}

#[test]
#[should_panic(expected = "got no token")]
fn every_sequence_that_samples_needs_its_token() {
    let mut driver = Driver::new(config());
    driver.add(0, vec![0; 4], max_tokens(2));
    driver.schedule();
    driver.scheduler.update(&[], &mut Vec::new());
}

#[test]
#[should_panic(expected = "got a token that it did not ask for")]
fn no_sequence_gets_two_tokens() {
    let mut driver = Driver::new(config());
    driver.add(0, vec![0; 4], max_tokens(5));
    driver.schedule();
    let token = SampledToken { seq: SeqId { request: RequestId(0), index: 0 }, token: 1 };
    driver.scheduler.update(&[token, token], &mut Vec::new());
}

/// vLLM: test_can_fit_full_sequence_full_attention_still_gates_oversized. The first chunk would fit, the prompt does not.
#[test]
fn a_prompt_waits_until_all_of_it_fits() {
    let sizes = SchedulerConfig { num_blocks: 10, max_model_len: 160, max_num_batched_tokens: 96, ..config() };
    let mut driver = Driver::new(sizes);
    driver.add(0, vec![0; 80], max_tokens(4));
    driver.add(1, vec![1; 95], max_tokens(4));
    assert_eq!(driver.step(), [(0, 80)]);
    while driver.scheduler.tokens(seq(0)).is_some() {
        assert_eq!(driver.step(), [(0, 1)], "six blocks are not free");
    }
    assert_eq!(driver.step(), [(1, 95)]);
    driver.drain();
}
