//! Drafts: how many, where, and what becomes of right and wrong ones.

use bindery::engine::{DraftConfig, RequestId, RequestParams, SchedulerConfig, SeqId, TokenId};

use super::{Driver, config, max_tokens, seq};

const DRAFTS: DraftConfig = DraftConfig { num_tokens: 4, max_num_seqs: 4, lookup_min: 2, lookup_max: 4 };

fn drafting() -> SchedulerConfig {
    SchedulerConfig { drafts: Some(DRAFTS), ..config() }
}

/// The numbers from 0 to 9, again and again.
fn counting(len: u32) -> Vec<TokenId> {
    (0..len).map(|at| at % 10).collect()
}

/// One request whose prompt counts, and has been computed: its first token is on the way.
fn counts(config: SchedulerConfig, prompt: u32, params: RequestParams) -> Driver {
    let mut driver = Driver::new(config);
    driver.add(0, counting(prompt), params);
    let (batch, _) = driver.schedule();
    assert_eq!(batch.seqs[0].num_drafts, 0, "a prompt has none");
    driver.update_rows(&[prompt % 10]);
    driver
}

#[test]
fn right_drafts_are_tokens_and_the_first_wrong_one_is_replaced() {
    let mut driver = counts(drafting(), 32, max_tokens(100));
    let (batch, _) = driver.schedule();
    let scheduled = batch.seqs[0];
    assert_eq!((scheduled.context_len, scheduled.query_len, scheduled.num_drafts), (32, 5, 4));
    assert_eq!((batch.token_ids, batch.positions), (vec![2, 3, 4, 5, 6], vec![32, 33, 34, 35, 36]));
    assert_eq!(batch.logits_indices, [0, 1, 2, 3, 4]);
    assert!(batch.sample_rows.iter().enumerate().all(|(row, sample)| (sample.seq, sample.row) == (seq(0), row as u32)));
    // All of them right, and one more.
    assert_eq!(driver.update_rows(&[3, 4, 5, 6, 7]), [3, 4, 5, 6, 7]);
    assert_eq!(driver.events.iter().map(|event| event.position).collect::<Vec<_>>(), [33, 34, 35, 36, 37]);

    // The second one wrong: the next step goes on behind the token that was drawn in its place.
    let (batch, _) = driver.schedule();
    assert_eq!(batch.token_ids, [7, 8, 9, 0, 1]);
    assert_eq!(driver.update_rows(&[8, 5, 9, 9, 9]), [8, 5]);
    let (batch, scheduled) = driver.schedule();
    assert_eq!((batch.token_ids, batch.positions, scheduled), (vec![5], vec![39], vec![(0, 1)]), "8, 5 is new");
    assert_eq!(driver.update_rows(&[6]), [6]);
    // The slot of a wrong draft is written again: 5, 6 has been there before.
    let (batch, _) = driver.schedule();
    assert_eq!((&batch.token_ids[..2], batch.slot_mapping[0]), (&[6, 7][..], 40));
    let stats = driver.scheduler.stats();
    assert_eq!((stats.drafts, stats.draft_tokens, stats.accepted_draft_tokens), (3, 4 + 4 + 4, 4 + 1));
}

#[test]
fn what_is_expected_is_drafted_unless_more_of_the_same_was_there_before() {
    let drafted = |expected: &[TokenId]| {
        let mut driver = counts(drafting(), 32, max_tokens(100));
        driver.scheduler.expect(seq(0), expected);
        driver.schedule().0.token_ids
    };
    assert_eq!(drafted(&[]), [2, 3, 4, 5, 6]);
    assert_eq!(drafted(&[3, 4]), [2, 3, 4, 5, 6]);
    assert_eq!(drafted(&[3, 7]), [2, 3, 7]);
    assert_eq!(drafted(&[7, 7, 7, 7, 7, 7]), [2, 7, 7, 7, 7], "no more than num_tokens");

    // However few are looked up after wrong ones; and it holds until the next token.
    let mut driver = counts(drafting(), 32, max_tokens(100));
    driver.schedule();
    assert_eq!(driver.update_rows(&[9, 0, 0, 0, 0]), [9]);
    driver.scheduler.expect(seq(0), &[0, 7, 7]);
    assert_eq!(driver.schedule().0.token_ids, [9, 0, 7, 7]);
    assert_eq!(driver.update_rows(&[0, 1, 0, 0]), [0, 1]);
    assert_eq!(driver.schedule().0.token_ids, [1, 2, 9, 0, 1], "what followed 9, 0, 1 last");

    // Nobody is told off who expects something of a sequence that has ended, or is to have no drafts.
    driver.scheduler.expect(seq(7), &[1]);
    let mut driver = counts(drafting(), 32, RequestParams { drafts: false, ..max_tokens(100) });
    driver.scheduler.expect(seq(0), &[3, 4]);
    assert_eq!(driver.schedule().0.token_ids, [2]);
}

#[test]
fn drafts_take_no_block() {
    let mut driver = counts(drafting(), 32, max_tokens(100));
    let mut seen = Vec::new();
    for _ in 0..6 {
        let used = driver.scheduler.stats().used_blocks;
        let (batch, _) = driver.schedule();
        let scheduled = batch.seqs[0];
        seen.push((scheduled.context_len % 16, scheduled.num_drafts));
        let takes = u32::from(scheduled.context_len % 16 == 0);
        assert_eq!(driver.scheduler.stats().used_blocks, used + takes, "one for the token itself");
        let right: Vec<TokenId> = batch.positions.iter().map(|position| (position + 1) % 10).collect();
        assert_eq!(driver.update_rows(&right), right);
    }
    assert_eq!(seen, [(0, 4), (5, 4), (10, 4), (15, 0), (0, 4), (5, 4)]);
}

#[test]
fn a_completion_ends_at_its_length_and_at_its_stop_token() {
    // Three tokens are to come after the first: two drafts, and the one drawn behind them.
    let mut driver = counts(drafting(), 32, max_tokens(4));
    let (batch, _) = driver.schedule();
    assert_eq!(batch.seqs[0].num_drafts, 2);
    assert_eq!(driver.update_rows(&[3, 4, 5]), [3, 4, 5]);
    assert!(driver.scheduler.is_idle());

    // Nothing is drafted from its stop token on.
    let params = RequestParams { stop_token_ids: vec![4], ..max_tokens(100) };
    let mut driver = counts(drafting(), 32, params);
    driver.schedule();
    assert_eq!(driver.update_rows(&[3, 4]), [3, 4]);
    assert!(driver.scheduler.is_idle());
    assert_eq!(driver.scheduler.stats().used_blocks, 0);
}

/// As without drafts, where the step that computes the last token of a block makes it findable.
#[test]
fn blocks_that_drafts_fill_are_found_by_the_next_request() {
    let sizes = SchedulerConfig { enable_prefix_caching: true, ..drafting() };
    // The second block ends with the token at 31, which is a draft; the completion ends behind it.
    let mut driver = counts(sizes, 27, max_tokens(6));
    driver.schedule();
    assert_eq!(driver.update_rows(&[8, 9, 0, 1, 2]), [8, 9, 0, 1, 2]);
    assert!(driver.scheduler.is_idle());
    driver.add(1, counting(33), max_tokens(1));
    let (batch, _) = driver.schedule();
    assert_eq!(batch.seqs[0].context_len, 32);
}

#[test]
fn drafts_count_among_the_tokens_of_one_sequence_in_a_step() {
    for (threshold, num_drafts) in [(1, 0), (3, 2), (16, 4)] {
        let sizes = SchedulerConfig { long_prefill_token_threshold: threshold, ..drafting() };
        let mut driver = Driver::new(sizes);
        driver.add(0, counting(32), max_tokens(100));
        while driver.scheduler.tokens(seq(0)).expect("it is alive").len() < 33 {
            driver.schedule();
            driver.update(|_| 2);
        }
        assert_eq!(driver.schedule().0.seqs[0].num_drafts, num_drafts);
    }
}

#[test]
fn nothing_is_drafted_where_the_choice_of_a_token_counts_those_before_it() {
    let drafted = |params| {
        let mut driver = counts(drafting(), 32, params);
        driver.schedule().0.seqs[0].num_drafts
    };
    assert_eq!(drafted(max_tokens(100)), 4);
    assert_eq!(drafted(RequestParams { drafts: false, ..max_tokens(100) }), 0);
    assert_eq!(drafted(RequestParams { max_sequences: 2, ..max_tokens(100) }), 0, "a beam");
    assert_eq!(drafted(RequestParams { min_tokens: 2, ..max_tokens(100) }), 0, "stop tokens are left out still");
    assert_eq!(drafted(RequestParams { min_tokens: 1, ..max_tokens(100) }), 4);
}

#[test]
fn few_are_drafted_where_they_are_seldom_right() {
    let drafts = Some(DraftConfig { lookup_min: 1, ..DRAFTS });
    let mut driver = counts(SchedulerConfig { drafts, ..config() }, 32, max_tokens(100));
    let mut num_drafts = Vec::new();
    for right in [0, 0, 1, 0, 2, 4] {
        let (batch, _) = driver.schedule();
        num_drafts.push(batch.seqs[0].num_drafts);
        // A digit follows each draft that is right, and another one than the next draft.
        let mut rows = batch.token_ids[1..].to_vec();
        rows.push(0);
        rows[right..].iter_mut().for_each(|token| *token = (*token + 5) % 10);
        driver.update_rows(&rows);
    }
    assert_eq!(num_drafts, [4, 2, 2, 4, 2, 4]);
}

#[test]
fn a_step_ahead_waits_for_tokens_to_draft_from() {
    let mut driver = counts(drafting(), 32, max_tokens(100));
    driver.schedule();
    assert!(driver.scheduler.schedule_ahead().is_none());
    driver.update_rows(&[3, 4, 5, 6, 7]);
    // More sequences than may run for it: the step with drafts ends, and then there are steps ahead.
    driver.schedule();
    for id in 1..5 {
        driver.add(id, vec![50 + id as u32; 20], RequestParams { drafts: false, ..max_tokens(30) });
    }
    assert!(driver.scheduler.schedule_ahead().is_none());
    driver.update_rows(&[8, 9, 0, 1, 2]);
    let (batch, _) = driver.schedule();
    assert_eq!((batch.seqs.len(), batch.seqs[0].num_drafts), (5, 4), "four others are admitted behind it");
    driver.update(|_| 3);
    let (batch, _) = driver.schedule();
    assert!(batch.seqs.iter().all(|seq| seq.num_drafts == 0));
    assert!(driver.scheduler.schedule_ahead().is_some());
}

#[test]
fn others_get_their_rows_and_tokens_first() {
    for (max_num_batched_tokens, max_num_logits_rows) in [(32, 5), (5, 32)] {
        let drafts = Some(DraftConfig { lookup_min: 1, ..DRAFTS });
        let sizes = SchedulerConfig { max_num_batched_tokens, max_num_logits_rows, drafts, ..config() };
        let mut driver = Driver::new(sizes);
        (0..3).for_each(|id| driver.add(id, counting(6), max_tokens(100)));
        // Nothing to draft from, until all of them generate.
        for token in 100..200 {
            let all_generate = driver.schedule().0.seqs.len() == 3;
            driver.update(|_| if all_generate { 2 } else { token });
            if all_generate {
                break;
            }
        }
        let (_, scheduled) = driver.schedule();
        assert_eq!(scheduled, [(0, 3), (1, 1), (2, 1)]);
    }
}

#[test]
fn a_waiting_request_is_admitted_beside_drafts() {
    let drafts = Some(DraftConfig { num_tokens: 7, ..DRAFTS });
    let mut driver = Driver::new(SchedulerConfig { max_num_batched_tokens: 8, drafts, ..config() });
    driver.add(0, vec![1, 2, 3, 4, 1, 2, 3, 4], max_tokens(100));
    driver.schedule();
    driver.update(|_| 1);
    driver.add(1, vec![50; 20], max_tokens(1));
    let (batch, scheduled) = driver.schedule();
    assert_eq!((batch.seqs[0].num_drafts, scheduled), (4, vec![(0, 5), (1, 3)]));
}

#[test]
fn parallel_samples_draft_apart() {
    let params = RequestParams { num_samples: 2, ..max_tokens(100) };
    let mut driver = Driver::new(drafting());
    driver.add(0, counting(40), params);
    driver.schedule();
    driver.update_rows(&[0, 5]);
    let (batch, _) = driver.schedule();
    assert_eq!(batch.seqs.iter().map(|seq| seq.num_drafts).collect::<Vec<_>>(), [4, 0]);
    assert_eq!(batch.block_copies.len(), 1, "the first to write has a block of its own");
    let second = SeqId { request: RequestId(0), index: 1 };
    assert_eq!(driver.update_rows(&[1, 2, 7, 7, 7, 6]), [1, 2, 7, 6]);
    assert_eq!(driver.events.last().map(|event| (event.seq, event.position)), Some((second, 41)));
    driver.drain();
}
