//! Beam searches by hand. Token 0 is the end of a sequence.

use super::*;

fn search(width: u32, max_tokens: u32, edit: impl FnOnce(&mut SamplingParams)) -> BeamSearch {
    let mut params =
        SamplingParams { use_beam_search: true, beam_width: Some(width), n: 1, ..SamplingParams::default() };
    edit(&mut params);
    BeamSearch::new(&params, max_tokens, vec![0])
}

/// A beam's candidates from `(token, logprob)`.
fn row(pairs: &[(TokenId, f32)]) -> Vec<TokenLogprob> {
    let candidate = |(rank, &(token, logprob)): (u32, &(TokenId, f32))| TokenLogprob { token, logprob, rank };
    (1..).zip(pairs).map(candidate).collect()
}

fn pairs(next: &[Continuation]) -> Vec<(usize, TokenId)> {
    next.iter().map(|c| (c.parent, c.token)).collect()
}

fn results(search: BeamSearch) -> Vec<(Vec<TokenId>, f64)> {
    assert!(search.is_done());
    search.hypotheses().iter().map(|h| (h.token_ids.clone(), h.score)).collect()
}

#[test]
fn beams_fork_and_drop_by_their_sums() {
    let mut search = search(2, 3, |_| ());
    assert_eq!(pairs(&search.advance(&[row(&[(5, -0.5), (7, -1.0), (8, -3.0)])])), [(0, 5), (0, 7)]);
    // Both continuations of the first beam beat those of the second: it forks, the other is dropped.
    let candidates = [row(&[(1, -0.25), (2, -0.25), (3, -4.0)]), row(&[(4, -0.5), (1, -2.0), (2, -2.5)])];
    assert_eq!(pairs(&search.advance(&candidates)), [(0, 1), (0, 2)]);
    // Equal sums: the better beam's candidate comes first.
    let candidates = [row(&[(3, -1.0), (4, -2.0), (5, -2.0)]), row(&[(6, -1.0), (4, -3.0), (5, -3.0)])];
    assert!(search.advance(&candidates).is_empty());
    let score = -1.75 / 3.0;
    assert_eq!(results(search), [(vec![5, 1, 3], score), (vec![5, 2, 6], score)]);
}

#[test]
fn only_the_first_ranks_finish_and_stops_do_not_take_a_live_place() {
    let mut search = search(2, 9, |_| ());
    let next = search.advance(&[row(&[(5, -0.5), (0, -0.75), (6, -1.0), (7, -9.0)])]);
    assert_eq!(pairs(&next), [(0, 5), (0, 6)]);
    assert_eq!(search.finished[0].token_ids, [0]);
    assert_eq!(search.finished[0].score, -0.75);
    // A stop token in the third rank is lost.
    let next = search.advance(&[row(&[(5, -0.1), (6, -0.2), (0, -0.3)]), row(&[(1, -4.0), (2, -5.0), (0, -6.0)])]);
    assert_eq!(pairs(&next), [(0, 5), (0, 6)]);
    assert_eq!(search.finished.len(), 1);
}

#[test]
fn with_the_last_token_the_first_ranks_finish_whatever_they_are() {
    let mut search = search(2, 1, |_| ());
    assert!(search.advance(&[row(&[(0, -0.5), (6, -1.0), (7, -1.5), (8, -2.0)])]).is_empty());
    let hypotheses = search.hypotheses();
    assert_eq!(hypotheses.iter().map(|h| (h.token_ids[0], h.stopped)).collect::<Vec<_>>(), [(0, true), (6, false)]);
}

/// One beam finishes at -1, then the other lives on with sums of -1.5 after two tokens, -1.75 after three.
fn after_two_steps(edit: impl FnOnce(&mut SamplingParams)) -> BeamSearch {
    let mut search = search(1, 8, edit);
    // Width 1: the stop token must be first to count.
    let next = search.advance(&[row(&[(0, -1.0), (5, -1.25)])]);
    if !search.is_done() {
        assert_eq!(pairs(&next), [(0, 5)]);
        search.advance(&[row(&[(5, -0.25), (6, -9.0)])]);
    }
    search
}

#[test]
fn early_stopping_decides_when_a_full_set_is_enough() {
    let length = |edit: fn(&mut SamplingParams)| {
        let search = after_two_steps(edit);
        (search.is_done(), search.num_tokens)
    };
    // -1.25 / 1 does not beat -1.
    assert_eq!(length(|_| ()), (true, 1));
    assert_eq!(length(|p| p.early_stopping = EarlyStopping::Immediate), (true, 1));
    // Eight tokens of sum -1.25 would score -0.16.
    assert_eq!(length(|p| p.early_stopping = EarlyStopping::Never), (false, 2));
    // Without a length penalty the sum can only fall.
    assert_eq!(length(|p| (p.early_stopping, p.length_penalty) = (EarlyStopping::Never, 0.0)), (true, 1));
}

#[test]
fn the_heuristic_goes_on_while_the_best_live_beam_is_ahead() {
    let mut search = search(2, 9, |p| p.length_penalty = 2.0);
    let next = search.advance(&[row(&[(0, -2.0), (5, -2.1), (6, -2.2)])]);
    assert_eq!((pairs(&next), search.is_done()), (vec![(0, 5), (0, 6)], false));
    // Two finish: of three hypotheses the best two stay, -2.2 / 4 and -2.3 / 4; the live beam has -3.1 / 4.
    let candidates = [row(&[(0, -0.1), (5, -1.0), (6, -2.0)]), row(&[(0, -0.1), (5, -5.0), (6, -6.0)])];
    assert!(search.advance(&candidates).is_empty());
    let results = results(search);
    let sums: Vec<f64> = results.iter().map(|(_, score)| (score * 40.0).round()).collect();
    assert_eq!(sums, [-22.0, -23.0]);
    assert_eq!(results[0].0, [5, 0]);
}

#[test]
fn stop_tokens_are_out_of_the_question_before_min_tokens() {
    let mut search = search(1, 4, |p| p.min_tokens = 1);
    assert_eq!(pairs(&search.advance(&[row(&[(0, -0.1), (5, -3.0)])])), [(0, 5)]);
    assert!(search.advance(&[row(&[(0, -0.1), (5, -3.0)])]).is_empty());
    assert_eq!(results(search)[0].0, [5, 0]);
}

#[test]
fn logprobs_follow_their_beam() {
    let mut search = search(2, 2, |p| p.logprobs = Some(1));
    search.advance(&[row(&[(5, -0.5), (7, -1.0), (8, -3.0)])]);
    search.advance(&[row(&[(1, -2.0), (2, -2.5), (3, -4.0)]), row(&[(4, -0.5), (1, -2.0), (2, -2.5)])]);
    let best = &search.hypotheses()[0];
    assert_eq!(best.token_ids, [7, 4]);
    let chosen: Vec<_> =
        best.logprobs.iter().map(|l| (l.chosen.token, l.chosen.rank, l.top.len(), l.top[0].token)).collect();
    assert_eq!(chosen, [(7, 2, 1, 5), (4, 1, 1, 4)]);
}
