//! Parallel samples and beams: one prompt, many sequences.

use bindery::engine::{BlockCopy, RequestId, RequestParams, SampleRow, SampledToken, SchedulerConfig, SeqId};

use super::{Driver, config, ids, max_tokens};

fn nth(index: u32) -> SeqId {
    SeqId { request: RequestId(0), index }
}

#[test]
fn parallel_samples_compute_the_prompt_once_and_draw_from_one_row() {
    let mut driver = Driver::new(config());
    driver.add(0, (0..20).collect(), RequestParams { num_samples: 3, ..max_tokens(3) });
    let (batch, scheduled) = driver.schedule();
    assert_eq!(scheduled, [(0, 20)]);
    assert_eq!(batch.logits_indices, [19]);
    assert_eq!(batch.sample_rows, [0, 1, 2].map(|index| SampleRow { seq: nth(index), row: 0 }));
    let events = driver.update(|seq| 100 + seq.index);
    assert_eq!(
        events.iter().map(|event| (event.seq.index, event.token)).collect::<Vec<_>>(),
        [(0, 100), (1, 101), (2, 102)]
    );
    assert_eq!(driver.scheduler.stats().used_blocks, 2, "all blocks are shared");
    assert_eq!(driver.scheduler.blocks().pool().ref_counts()[..2], [3, 3]);

    // The last, partly filled block is copied on the first write; the last holder keeps the original.
    let (batch, _) = driver.schedule();
    assert_eq!(batch.block_copies.len(), 2);
    let tables = [0, 1, 2].map(|index| ids(driver.scheduler.block_table(nth(index)).expect("it is alive")));
    assert_eq!(tables, [[0, 2], [0, 3], [0, 1]]);
    assert_eq!(batch.seqs.iter().map(|seq| (seq.context_len, seq.query_len)).collect::<Vec<_>>(), [(20, 1); 3]);
    driver.update(|_| 0);
    let cost = driver.scheduler.accounting(RequestId(0)).expect("it is alive");
    assert_eq!((cost.blocks_allocated, cost.blocks_shared, cost.blocks_copied), (4, 4, 2));
    driver.drain();
    assert_eq!(driver.scheduler.stats().free_blocks, 10_000);
}

#[test]
fn samples_that_end_leave_the_others_alone() {
    let mut driver = Driver::new(config());
    let params = RequestParams { num_samples: 3, stop_token_ids: vec![7], ..max_tokens(4) };
    driver.add(0, (0..20).collect(), params);
    driver.schedule();
    driver.update(|seq| if seq.index == 0 { 7 } else { 1 });
    assert_eq!(driver.scheduler.sequences(RequestId(0)).collect::<Vec<_>>(), [nth(1), nth(2)]);
    assert_eq!(driver.step(), [(0, 1), (0, 1)]);
    assert!(driver.scheduler.finish_seq(nth(2)));
    assert_eq!(driver.step(), [(0, 1)]);
    driver.drain();
}

#[test]
fn seats_are_kept_for_all_samples() {
    let mut driver = Driver::new(SchedulerConfig { max_num_seqs: 4, max_num_batched_tokens: 8, ..config() });
    driver.add(0, vec![0; 12], RequestParams { num_samples: 3, ..max_tokens(4) });
    driver.add(1, vec![1; 4], RequestParams { num_samples: 2, ..max_tokens(4) });
    assert_eq!(driver.step(), [(0, 8)]);
    // Two more samples are to come: there is no seat for two others.
    assert_eq!(driver.step(), [(0, 4)]);
    assert_eq!(driver.step(), [(0, 1); 3]);
    driver.drain();
}

#[test]
fn a_preempted_group_comes_back_with_all_its_samples() {
    let mut driver = Driver::new(SchedulerConfig { num_blocks: 8, max_model_len: 128, ..config() });
    driver.add(1, vec![9; 60], max_tokens(40));
    driver.add(0, (0..20).collect(), RequestParams { num_samples: 2, ..max_tokens(28) });
    let mut emitted = [vec![], vec![]];
    while !driver.scheduler.is_idle() {
        let step = driver.schedule().0.step as u32;
        for event in driver.update(|seq| 1000 * seq.index + step) {
            if event.seq.request.0 == 0 {
                emitted[event.seq.index as usize].push(event.token);
            }
        }
    }
    assert!(driver.scheduler.stats().preemptions > 0);
    assert_eq!(emitted.each_ref().map(Vec::len), [28, 28]);
    assert!(emitted[1].iter().all(|&token| token > 1000) && emitted[0].iter().all(|&token| token < 1000));
    assert!(emitted.iter().all(|tokens| tokens.is_sorted_by(|a, b| a < b)), "nothing is emitted twice");
}

#[test]
fn beams_fork_during_a_step_and_share_blocks() {
    let mut driver = Driver::new(SchedulerConfig { block_size: 4, ..config() });
    driver.add(0, (0..6).collect(), RequestParams { max_sequences: 2, ..max_tokens(10) });
    driver.schedule();
    // The best two tokens after the prompt make two beams.
    assert_eq!(driver.scheduler.fork(nth(0), 1), nth(1));
    let mut events = Vec::new();
    driver
        .scheduler
        .update(&[SampledToken { seq: nth(0), token: 50 }, SampledToken { seq: nth(1), token: 51 }], &mut events);
    assert_eq!(events.len(), 2);
    driver.scheduler.check_invariants();
    assert_eq!(driver.scheduler.blocks().pool().ref_counts()[..2], [2, 2]);

    let (batch, _) = driver.schedule();
    assert_eq!(batch.block_copies.len(), 1);
    let BlockCopy { src, dst } = batch.block_copies[0];
    assert_eq!((src.0, dst.0), (1, 2));
    // Beam 1 continues twice, beam 0 not at all.
    driver.scheduler.fork(nth(1), 2);
    assert!(driver.scheduler.drop_seq(nth(0)));
    driver.scheduler.check_invariants();
    let tokens = [SampledToken { seq: nth(1), token: 60 }, SampledToken { seq: nth(2), token: 61 }];
    driver.scheduler.update(&tokens, &mut events);
    driver.scheduler.check_invariants();
    assert_eq!(driver.scheduler.tokens(nth(1)), Some(&[0, 1, 2, 3, 4, 5, 51, 60][..]));
    assert_eq!(driver.scheduler.tokens(nth(2)), Some(&[0, 1, 2, 3, 4, 5, 51, 61][..]));
    assert_eq!(driver.scheduler.stats().used_blocks, 2);
    driver.drain();
    assert_eq!(driver.scheduler.stats().used_blocks, 0);
}

#[test]
fn a_beam_waits_for_the_logits_of_its_siblings() {
    let mut driver = Driver::new(SchedulerConfig { block_size: 4, max_num_batched_tokens: 2, ..config() });
    driver.add(0, vec![9, 8], RequestParams { max_sequences: 3, ..max_tokens(10) });
    driver.schedule();
    driver.scheduler.fork(nth(0), 1);
    driver.scheduler.fork(nth(0), 2);
    let tokens = |first: u32| [0, 1, 2].map(|index| SampledToken { seq: nth(index), token: first + index });
    let mut events = Vec::new();
    driver.scheduler.update(&tokens(50), &mut events);

    // The budget is for two of the three; they get no token until the third has its logits.
    let (batch, _) = driver.schedule();
    assert_eq!(batch.sample_rows.iter().map(|sample| sample.seq).collect::<Vec<_>>(), [nth(0), nth(1)]);
    driver.scheduler.update(&[], &mut events);
    driver.scheduler.check_invariants();
    let (batch, _) = driver.schedule();
    assert_eq!(batch.sample_rows.iter().map(|sample| sample.seq).collect::<Vec<_>>(), [nth(2)]);
    // A beam that has waited may fork, and be dropped, like any other.
    driver.scheduler.fork(nth(1), 3);
    driver.scheduler.drop_seq(nth(0));
    events.clear();
    let tokens = [1, 2, 3].map(|index| SampledToken { seq: nth(index), token: 60 + index });
    driver.scheduler.update(&tokens, &mut events);
    driver.scheduler.check_invariants();
    assert_eq!(events.len(), 3);
    assert_eq!(driver.scheduler.tokens(nth(3)), Some(&[9, 8, 51, 63][..]));
}

#[test]
#[should_panic(expected = "got no token")]
fn beams_that_all_wait_are_a_bug() {
    let mut driver = Driver::new(config());
    driver.add(0, vec![0; 4], RequestParams { max_sequences: 2, ..max_tokens(10) });
    driver.schedule();
    driver.scheduler.update(&[], &mut Vec::new());
}

#[test]
#[should_panic(expected = "more than the 2 it was granted")]
fn more_beams_than_granted_are_a_bug() {
    let mut driver = Driver::new(config());
    driver.add(0, vec![0; 4], RequestParams { max_sequences: 2, ..max_tokens(10) });
    driver.step();
    driver.scheduler.fork(nth(0), 1);
    driver.scheduler.fork(nth(0), 2);
    driver.scheduler.schedule();
}

#[test]
fn a_request_accounts_for_its_blocks() {
    let mut driver = Driver::new(SchedulerConfig { block_size: 4, ..config() });
    driver.add(0, (0..6).collect(), RequestParams { num_samples: 2, ..max_tokens(4) });
    let mut ended = None;
    while ended.is_none() {
        driver.step();
        ended = driver.scheduler.ended_requests().first().map(|ended| ended.accounting);
    }
    // Two blocks for the prompt; both are shared by the fork, the second is copied, and each sample needs a third block
    // for the ninth of its ten tokens: the last is never computed. That leaves three slots in each.
    let accounting = ended.expect("just seen");
    assert_eq!((accounting.blocks_allocated, accounting.blocks_shared, accounting.blocks_copied), (5, 2, 1));
    assert_eq!(accounting.unused_slots, 6);
}
