//! Drafts: tokens that a sequence may go on with, computed before it is known whether it does.
//!
//! Speculative decoding (Leviathan et al. 2023, arXiv:2211.17192), with drafts by prompt lookup (Saxena 2023): what followed
//! the last few tokens when they stood in the sequence before; or what the caller [expects](Scheduler::expect), which knows
//! the grammar of a sequence, for example. A step computes a sequence's last token and its drafts
//! together, and each of them gives logits, from which the token after it is drawn as ever: by the request's seed and the
//! token's position (I12). As long as what is drawn is the next draft, the token after that is known as well; the
//! first that is not stands in the draft's place, and the drafts from there on are forgotten. So the tokens are those of
//! a sequence without drafts.
//!
//! A draft never takes a block: drafts go to slots that the sequence's last block has left. Those of forgotten ones
//! are written again by the tokens that come instead, and neither block tables nor the pool ever notice.

use super::request_state::RequestState;
use super::{RequestId, Scheduler, SeqId, Sequence, TokenId};

/// How many drafts there are, and what they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DraftConfig {
    /// Drafts of one sequence in a step, at most.
    pub num_tokens: u32,
    /// Sequences that run while there are drafts, at most: with more of them the device has enough to do.
    pub max_num_seqs: u32,
    /// Tokens at the end of a sequence that must have stood in it before, at least.
    pub lookup_min: u32,
    /// How many of them are compared, at most: the place where the most are the same is taken.
    pub lookup_max: u32,
}

impl DraftConfig {
    /// Drafts of all sequences of a step, at most: so many rows of logits more than without.
    pub fn max_rows(&self) -> u32 {
        self.max_num_seqs.saturating_mul(self.num_tokens)
    }

    pub(super) fn assert_valid(&self) {
        assert!(self.num_tokens > 0, "num_tokens of drafts must not be 0");
        assert!(self.max_num_seqs > 0, "max_num_seqs of drafts must not be 0");
        assert!(self.lookup_min > 0, "lookup_min must not be 0");
        assert!(self.lookup_min <= self.lookup_max, "lookup_min must not be above lookup_max");
    }
}

impl Scheduler {
    /// Drafts that the next step may have, of all sequences together: no more than half of its tokens, so that prompts go on and
    /// waiting requests are admitted.
    pub(super) fn drafts_of_a_step(&self) -> u32 {
        let running = || self.running.iter().map(|(_, id)| self.requests[id].seqs.len() as u32).sum::<u32>();
        self.config
            .drafts
            .filter(|drafts| running() <= drafts.max_num_seqs)
            .map_or(0, |drafts| drafts.max_rows().min(self.config.max_num_batched_tokens / 2))
    }

    /// Whether the next step has to wait for the tokens of the one in flight: how far a sequence with drafts has come is not known
    /// before, nor what the next ones are looked up by.
    pub(super) fn waits_for_tokens_to_draft(&self) -> bool {
        let takes_drafts = |state: &RequestState| state.seqs.iter().any(|seq| !seq.ended && state.takes_drafts(seq));
        self.batch.seqs.iter().any(|seq| seq.num_drafts > 0)
            || self.drafts_of_a_step() > 0 && self.running.iter().any(|(_, id)| takes_drafts(&self.requests[id]))
    }

    /// Says what a sequence will most likely go on with after its last token: what a grammar leaves it no choice in, for example.
    /// The next step drafts it, if there are drafts, unless what is looked up begins the same and is longer. It is forgotten
    /// with the sequence's next token, and for a sequence that is not alive or has no drafts from the start.
    pub fn expect(&mut self, seq: SeqId, token_ids: &[TokenId]) {
        let Some(config) = self.config.drafts else { return };
        let Some(state) = self.requests.get_mut(&seq.request).filter(|state| state.request.params.drafts) else {
            return;
        };
        let Some(at) = state.position(seq.index) else { return };
        let expected = &mut state.seqs[at].expected;
        expected.clear();
        expected.extend(token_ids.iter().take(config.num_tokens as usize));
    }

    /// Drafts for a sequence that has been given all of its tokens in this step, and slots for them: at most `most` of them.
    /// Returns how many there are.
    pub(super) fn draft(&mut self, id: RequestId, at: usize, most: u32) -> u32 {
        let Some(config) = self.config.drafts else { return 0 };
        let state = self.requests.get_mut(&id).expect("scheduled requests are alive");
        if !state.takes_drafts(&state.seqs[at]) {
            return 0;
        }
        let tokens_to_come = state.request.max_tokens - state.completion_tokens(&state.seqs[at]);
        let stop_token_ids = &state.request.params.stop_token_ids;
        let seq = &mut state.seqs[at];
        let of_a_sequence = match self.config.long_prefill_token_threshold {
            0 => u32::MAX,
            threshold => threshold - seq.num_scheduled_tokens,
        };
        // The last token to come is drawn behind the last draft.
        let most = most
            .min(self.drafts_left)
            .min(config.num_tokens)
            .min(of_a_sequence)
            .min(seq.table.len() * self.config.block_size - seq.num_reserved_tokens())
            .min(tokens_to_come.saturating_sub(1));
        // Once, and no more.
        seq.drafts.reserve_exact(config.num_tokens as usize);
        look_up(&seq.token_ids, &config, most.min(seq.drafts_limit), &mut seq.drafts);
        let expected = &seq.expected[..seq.expected.len().min(most as usize)];
        if !seq.drafts.starts_with(expected) {
            seq.drafts.clear();
            seq.drafts.extend_from_slice(expected);
        }
        if let Some(end) = seq.drafts.iter().position(|token| stop_token_ids.contains(token)) {
            // If it is drawn, nothing comes behind it.
            seq.drafts.truncate(end);
        }
        let num_drafts = seq.drafts.len() as u32;
        self.drafts_left -= num_drafts;
        num_drafts
    }
}

impl RequestState {
    /// Whether a sequence may have drafts: one that generates, and nothing but the logits decides on its tokens.
    fn takes_drafts(&self, seq: &Sequence) -> bool {
        let params = &self.request.params;
        let is_generating = self.forked && !self.wants_prompt_logits();
        params.drafts && is_generating && !self.is_beam_search() && self.completion_tokens(seq) >= params.min_tokens
    }
}

impl Sequence {
    /// Compares the first draft with the token that has been drawn in its place, and says whether it was right: then the
    /// token after it has been drawn, too. If not, it is forgotten with those behind it.
    pub(super) fn check_draft(&mut self, token: TokenId) -> bool {
        let is_right = self.drafts.first() == Some(&token);
        match is_right {
            true => {
                self.drafts.remove(0);
                self.num_right_drafts += 1;
            }
            false => self.forget_drafts(),
        }
        is_right
    }

    /// Forgets the drafts that are left of the step that has just ended.
    pub(super) fn forget_drafts(&mut self) {
        let num_right = std::mem::take(&mut self.num_right_drafts);
        if num_right > 0 || !self.drafts.is_empty() {
            // A few more than have just been right: where they are seldom right, few are computed for nothing.
            self.drafts_limit = 2 * (num_right + 1);
        }
        if !super::planted::planted!(WrongDraftsStay) {
            self.num_computed_tokens -= self.drafts.len() as u32;
        }
        self.drafts.clear();
    }
}

/// What followed the last tokens when they stood in `token_ids` before, at most `most` tokens, into `drafts`. Of all such
/// places the one is taken where the most tokens before it are the same, and of those the last. Where what followed runs
/// into the end, it goes on with itself.
fn look_up(token_ids: &[TokenId], config: &DraftConfig, most: u32, drafts: &mut Vec<TokenId>) {
    drafts.clear();
    let Some((last, before)) = token_ids.split_last() else { return };
    let (mut longest, mut found) = (config.lookup_min as usize - 1, None);
    if most == 0 || before.len() <= longest {
        return;
    }
    for at in (0..before.len()).rev().filter(|&at| before[at] == *last) {
        let same = before[..at].iter().rev().zip(before.iter().rev()).take(config.lookup_max as usize - 1);
        let len = 1 + same.take_while(|(a, b)| a == b).count();
        if len > longest {
            (longest, found) = (len, Some(at + 1));
            if len == config.lookup_max as usize {
                break;
            }
        }
    }
    let Some(start) = found else { return };
    for i in 0..most as usize {
        let token = token_ids.get(start + i).copied();
        drafts.push(token.unwrap_or_else(|| drafts[start + i - token_ids.len()]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [TokenId; 0] = [];

    fn drafts_of(token_ids: &[TokenId], lookup: (u32, u32), most: u32) -> Vec<TokenId> {
        let config = DraftConfig { num_tokens: most, max_num_seqs: 1, lookup_min: lookup.0, lookup_max: lookup.1 };
        let mut drafts = vec![99];
        look_up(token_ids, &config, most, &mut drafts);
        drafts
    }

    #[test]
    fn what_followed_the_last_tokens_is_drafted() {
        assert_eq!(drafts_of(&[1, 2, 3, 4, 5, 1, 2], (2, 4), 3), [3, 4, 5]);
        assert_eq!(drafts_of(&[1, 2, 3, 4, 5, 1, 2], (2, 4), 1), [3]);
        assert_eq!(drafts_of(&[1, 2, 3, 4, 5, 1, 2], (2, 4), 0), NONE);
        assert_eq!(drafts_of(&[1, 2, 3, 4, 5, 7, 2], (2, 4), 3), NONE, "one token is too few");
        assert_eq!(drafts_of(&[1, 2, 3, 4, 5, 7, 2], (1, 4), 3), [3, 4, 5]);
        assert_eq!(drafts_of(&[1, 2], (2, 4), 3), NONE);
        assert_eq!(drafts_of(&[1], (1, 4), 3), NONE);
        assert_eq!(drafts_of(&[], (1, 4), 3), NONE);
    }

    #[test]
    fn the_longest_and_then_the_last_place_is_taken() {
        // 8 9 stands there twice, and 7 8 9 only once, before that.
        assert_eq!(drafts_of(&[7, 8, 9, 1, 8, 9, 2, 7, 8, 9], (2, 3), 1), [1]);
        assert_eq!(drafts_of(&[7, 8, 9, 1, 8, 9, 2, 7, 8, 9], (2, 2), 1), [2], "and no more than two are compared");
    }

    #[test]
    fn what_repeats_goes_on_repeating() {
        assert_eq!(drafts_of(&[5, 5, 5], (2, 4), 4), [5, 5, 5, 5]);
        assert_eq!(drafts_of(&[1, 2, 3, 1, 2, 3], (2, 3), 7), [1, 2, 3, 1, 2, 3, 1]);
    }
}
