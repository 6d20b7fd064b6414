//! One step's attention, cut into work items.
//!
//! The tokens of a sequence with few new ones (commonly one: a decode; or one and its drafts) are split over their keys, each
//! split a work item with partial results that are merged at the end; a sequence with more is cut over its query tokens.
//! Decodes whose keys begin with the same blocks, of one sequence or of several, read these together: a work item for several
//! tokens, as in a prefill, that gives a partial result for each of them.
//!
//! Items are dispatched in rounds, commonly one: a round ends where its partial results fill their buffers, which the next
//! one uses again, or where a dispatch would have too many workgroups or take too long.

use super::super::StepInput;
use super::shared_prefix::SharedPrefixes;

/// Words of a `WorkItem`, a `Query` and a `ReduceItem`.
pub(in crate::backend) const ITEM_WORDS: usize = 6;
pub(in crate::backend) const QUERY_WORDS: usize = 2;
pub(in crate::backend) const REDUCE_WORDS: usize = 3;
/// `Query::partials` of a token whose only work item writes its output itself.
pub(in crate::backend) const NO_PARTIAL: u32 = u32::MAX;

/// New tokens of a sequence, at most, that are decodes on GPUs: a last token and a few drafts. As a prefill they would be one
/// workgroup for each KV head, whatever the context.
pub(in crate::backend) const DECODE_TOKENS: u32 = 8;

/// How attention's work is cut up for one device and shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend) struct AttentionTiling {
    /// Query heads of one workgroup; divides the group of heads that share a KV head.
    pub(in crate::backend) heads_per_group: u32,
    /// Query tokens of one prefill work item.
    pub(in crate::backend) prefill_tokens: u32,
    /// Keys that prefill stages in workgroup memory at once; divides the block size.
    pub(in crate::backend) prefill_keys: u32,
    /// Keys of one decode work item.
    pub(in crate::backend) split: u32,
    /// New tokens of a sequence, at most, that are decode work items each; more of them are prefill work items.
    pub(in crate::backend) decode_tokens: u32,
    /// Whether decodes read the blocks that they begin with in common together.
    pub(in crate::backend) share_prefixes: bool,
}

/// What a round has at most; a token's partial results, and the keys of one work item, are never parted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend) struct RoundLimits {
    /// Partial results: at least those of the longest sequence.
    pub(in crate::backend) partials: u32,
    /// Work items of one kind.
    pub(in crate::backend) items: u32,
    /// Keys that tokens attend to, all together.
    pub(in crate::backend) keys: u64,
}

/// Work items of one kind that follow each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::backend) struct Items {
    pub(in crate::backend) first: u32,
    pub(in crate::backend) count: u32,
}

/// What is dispatched at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::backend) struct Round {
    pub(in crate::backend) decode: Items,
    pub(in crate::backend) prefill: Items,
    pub(in crate::backend) reduce: Items,
    /// Keys that tokens attend to, all together.
    pub(in crate::backend) keys: u64,
}

/// A token that is decode work items.
#[derive(Debug, Clone, Copy)]
struct Decode {
    token: u32,
    /// Where the block table of its sequence begins, among those of the step.
    table: u32,
    /// Keys that it attends to.
    num_keys: u32,
}

/// The items, rebuilt every step in the same allocations.
#[derive(Debug, Default)]
pub(super) struct WorkItems {
    pub(super) queries: Vec<[u32; QUERY_WORDS]>,
    pub(super) decode: Vec<[u32; ITEM_WORDS]>,
    pub(super) prefill: Vec<[u32; ITEM_WORDS]>,
    pub(super) reduce: Vec<[u32; REDUCE_WORDS]>,
    pub(super) rounds: Vec<Round>,
    /// Of the round that is under way: its partial results and keys so far, and where its items begin.
    partials: u32,
    keys: u64,
    begin: [u32; 3],
    decodes: Vec<Decode>,
    prefixes: SharedPrefixes,
    /// Which decodes have their work items, as they share a prefix.
    is_shared: Vec<bool>,
}

impl WorkItems {
    /// Cuts the attention of `input`, whose block tables begin at word `tables_at` of the step.
    pub(super) fn cut(
        &mut self,
        input: &StepInput<'_>,
        tables_at: u32,
        block_size: u32,
        tiling: &AttentionTiling,
        limits: &RoundLimits,
    ) {
        self.queries.clear();
        self.decode.clear();
        self.prefill.clear();
        self.reduce.clear();
        self.rounds.clear();
        (self.partials, self.keys, self.begin) = (0, 0, [0; 3]);
        self.find_decodes(input, tiling.decode_tokens);
        if tiling.share_prefixes {
            self.shared_prefixes(input.block_tables, tables_at, block_size, tiling, limits);
        }
        for at in 0..self.decodes.len() {
            if !self.is_shared[at] {
                self.decode_token(self.decodes[at], tables_at, tiling.split, limits);
            }
        }
        for seq in 0..input.seq_lens.len() {
            let first = input.query_start_loc[seq];
            let query_len = input.query_start_loc[seq + 1] - first;
            let table = tables_at + input.block_table_start[seq];
            let context_len = input.seq_lens[seq] - query_len;
            if query_len > tiling.decode_tokens {
                for at in (0..query_len).step_by(tiling.prefill_tokens as usize) {
                    let tokens = tiling.prefill_tokens.min(query_len - at);
                    let keys = context_len + at + tokens;
                    self.make_room(0, 1, u64::from(tokens) * u64::from(keys), limits);
                    let first_query = self.queries.len() as u32;
                    self.queries.extend((0..tokens).map(|token| [first + at + token, NO_PARTIAL]));
                    self.prefill.push([first_query, tokens, table, 0, keys, 0]);
                }
            }
        }
        self.end_round();
    }

    /// Takes so much into the round that is under way, or into a new one if it would have too much.
    fn make_room(&mut self, partials: u32, items: u32, keys: u64, limits: &RoundLimits) {
        let [decode, prefill, _] = self.of_round();
        let is_full = self.partials + partials > limits.partials
            || decode.count.max(prefill.count) + items > limits.items
            || self.keys + keys > limits.keys;
        if is_full && decode.count + prefill.count > 0 {
            self.end_round();
        }
        self.keys += keys;
    }

    /// Items of the round that is under way.
    fn of_round(&self) -> [Items; 3] {
        let counts = [self.decode.len(), self.prefill.len(), self.reduce.len()];
        std::array::from_fn(|kind| Items { first: self.begin[kind], count: counts[kind] as u32 - self.begin[kind] })
    }

    fn end_round(&mut self) {
        let [decode, prefill, reduce] = self.of_round();
        self.rounds.push(Round { decode, prefill, reduce, keys: self.keys });
        (self.partials, self.keys) = (0, 0);
        self.begin = [decode, prefill, reduce].map(|items| items.first + items.count);
    }

    /// The tokens of sequences with at most so many new ones.
    fn find_decodes(&mut self, input: &StepInput<'_>, decode_tokens: u32) {
        self.decodes.clear();
        for (seq, &seq_len) in input.seq_lens.iter().enumerate() {
            let (first, end) = (input.query_start_loc[seq], input.query_start_loc[seq + 1]);
            if end - first <= decode_tokens {
                let table = input.block_table_start[seq];
                self.decodes.extend((first..end).map(|token| Decode {
                    token,
                    table,
                    num_keys: seq_len - (end - 1 - token),
                }));
            }
        }
        self.is_shared.clear();
        self.is_shared.resize(self.decodes.len(), false);
    }

    /// The work items of a token that reads all of its keys for itself.
    fn decode_token(&mut self, decode: Decode, tables_at: u32, split: u32, limits: &RoundLimits) {
        let Decode { token, table, num_keys } = decode;
        let splits = num_keys.div_ceil(split);
        self.make_room(if splits > 1 { splits } else { 0 }, splits, u64::from(num_keys), limits);
        let partials = if splits > 1 { self.partials_of(token, splits) } else { NO_PARTIAL };
        self.queries.push([token, partials]);
        self.splits(self.queries.len() as u32 - 1, tables_at + table, 0..num_keys, split, 0);
    }

    /// Partial results for a token, merged in their order; the row of the first.
    fn partials_of(&mut self, token: u32, count: u32) -> u32 {
        let first = self.partials;
        self.partials += count;
        self.reduce.push([token, first, count]);
        first
    }

    /// One query over some keys; the first split gives its partial result `first_split`.
    fn splits(&mut self, query: u32, table: u32, keys: std::ops::Range<u32>, split: u32, first_split: u32) {
        for i in 0..keys.len().div_ceil(split as usize) as u32 {
            let begin = keys.start + i * split;
            let end = begin.saturating_add(split).min(keys.end);
            self.decode.push([query, 1, table, begin, end, first_split + i]);
        }
    }

    /// Decodes that read common blocks together.
    fn shared_prefixes(
        &mut self,
        block_tables: &[u32],
        tables_at: u32,
        block_size: u32,
        tiling: &AttentionTiling,
        limits: &RoundLimits,
    ) {
        let decodes = std::mem::take(&mut self.decodes);
        // At least the token's own key is left to it.
        let blocks = |decode: u32| {
            let Decode { table, num_keys, .. } = decodes[decode as usize];
            &block_tables[table as usize..][..((num_keys - 1) / block_size) as usize]
        };
        let mut prefixes = std::mem::take(&mut self.prefixes);
        prefixes.find(decodes.len() as u32, blocks, block_size);
        for group in &prefixes.groups {
            let members = &prefixes.members[group.first..group.first + group.len];
            let shared = group.blocks * block_size;
            let shared_splits = shared.div_ceil(tiling.split);
            let own_splits = |decode: &u32| (decodes[*decode as usize].num_keys - shared).div_ceil(tiling.split);
            let longest = shared_splits + members.iter().map(own_splits).max().expect("a group has members");
            // All that reads a stretch of keys together is in one round.
            let together = (limits.partials / longest).clamp(1, tiling.prefill_tokens);
            for members in members.chunks(together as usize) {
                let own_items: u32 = members.iter().map(own_splits).sum();
                let partials = own_items + members.len() as u32 * shared_splits;
                let keys = members.iter().map(|&decode| u64::from(decodes[decode as usize].num_keys)).sum();
                self.make_room(partials, own_items.max(shared_splits), keys, limits);
                let first_query = self.queries.len() as u32;
                for &member in members {
                    self.is_shared[member as usize] = true;
                    let Decode { token, table, num_keys } = decodes[member as usize];
                    let partials = self.partials_of(token, shared_splits + own_splits(&member));
                    self.queries.push([token, partials]);
                    let query = self.queries.len() as u32 - 1;
                    self.splits(query, tables_at + table, shared..num_keys, tiling.split, shared_splits);
                }
                let table = tables_at + decodes[members[0] as usize].table;
                for i in 0..shared_splits {
                    let (begin, end) = (i * tiling.split, shared.min((i + 1) * tiling.split));
                    self.prefill.push([first_query, members.len() as u32, table, begin, end, i]);
                }
            }
        }
        self.decodes = decodes;
        self.prefixes = prefixes;
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::kernel_cases::{SeqPlan, StepData};
    use super::*;

    const TILING: AttentionTiling = AttentionTiling {
        heads_per_group: 1,
        prefill_tokens: 4,
        prefill_keys: 16,
        split: 256,
        decode_tokens: 1,
        share_prefixes: true,
    };

    const ONE_ROUND: RoundLimits = RoundLimits { partials: u32::MAX, items: u32::MAX, keys: u64::MAX };

    fn of<T>(items: Items, all: &[T]) -> &[T] {
        &all[items.first as usize..(items.first + items.count) as usize]
    }

    /// Each query token's keys, from the work items that reach it, sorted; panics where partial results are amiss.
    fn keys_by_token(
        seqs: &[SeqPlan],
        tiling: &AttentionTiling,
        limits: &RoundLimits,
    ) -> (WorkItems, Vec<Vec<(u32, u32)>>) {
        let step = StepData::new(seqs);
        let mut items = WorkItems::default();
        items.cut(&step.input(), 0, 16, tiling, limits);
        let mut keys = vec![Vec::new(); step.token_ids.len()];
        let mut done = [0; 3];
        for round in &items.rounds {
            let mut written = vec![0; limits.partials.min(1000) as usize];
            for item in of(round.decode, &items.decode).iter().chain(of(round.prefill, &items.prefill)) {
                let &[first, count, table, begin, end, split] = item;
                for query in &items.queries[first as usize..(first + count) as usize] {
                    let &[token, partials] = query;
                    let position = step.positions[token as usize];
                    keys[token as usize].extend(
                        (begin..end.min(position + 1)).map(|key| (key, step.block_tables[(table + key / 16) as usize])),
                    );
                    if partials != NO_PARTIAL {
                        written[(partials + split) as usize] += 1;
                    }
                }
            }
            let mut merged = vec![0; written.len()];
            for &[token, first, count] in of(round.reduce, &items.reduce) {
                assert!(items.queries.contains(&[token, first]));
                merged[first as usize..(first + count) as usize].iter_mut().for_each(|merged| *merged += 1);
            }
            assert_eq!(written, merged, "partial results of one round");
            assert!(written.iter().all(|&count| count <= 1), "every partial result is written once: {written:?}");
            let kinds = [round.decode, round.prefill, round.reduce];
            assert_eq!(kinds.map(|items| items.first), done, "rounds follow each other");
            done = kinds.map(|items| items.first + items.count);
        }
        assert_eq!(done.map(|items| items as usize), [items.decode.len(), items.prefill.len(), items.reduce.len()]);
        keys.iter_mut().for_each(|keys| keys.sort_unstable());
        (items, keys)
    }

    /// Sequences of which `sharing` have their first `common` blocks in common.
    fn plans(sharing: u32, common: u32, others: &[(u32, u32)]) -> Vec<SeqPlan> {
        let mut next = 1000;
        let mut own = |blocks: u32| {
            next += blocks;
            next - blocks..next
        };
        let mut seqs = Vec::new();
        for i in 0..sharing {
            let context_len = common * 16 + 300 * i;
            let table = (0..common).chain(own(context_len / 16 + 1 - common)).collect();
            seqs.push(SeqPlan { context_len, query_len: 1, table });
            if let Some(&(context_len, query_len)) = others.get(i as usize) {
                let table = own((context_len + query_len).div_ceil(16)).collect();
                seqs.push(SeqPlan { context_len, query_len, table });
            }
        }
        seqs
    }

    /// Nothing shared, too few to share, and prefixes of several lengths.
    const SHARINGS: [(u32, u32); 6] = [(0, 0), (3, 40), (4, 31), (4, 32), (7, 40), (16, 128)];

    #[test]
    fn every_token_sees_its_keys_once_however_the_work_is_cut() {
        for (sharing, common) in SHARINGS {
            let seqs = plans(sharing, common, &[(600, 1), (33, 17), (0, 5)]);
            let (items, shared) = keys_by_token(&seqs, &TILING, &ONE_ROUND);
            let apart = AttentionTiling { share_prefixes: false, ..TILING };
            let (apart, alone) = keys_by_token(&seqs, &apart, &ONE_ROUND);
            assert_eq!(shared, alone, "{sharing} sequences share {common} blocks");
            let is_cascade = sharing >= 4 && common >= 32;
            assert_eq!(items.prefill.len() > apart.prefill.len(), is_cascade, "{sharing} and {common}");
            assert_eq!(items.queries.len(), shared.len());
            assert_eq!(items.rounds.len(), 1);
        }
    }

    #[test]
    fn a_token_and_its_drafts_read_their_context_together() {
        let tiling = AttentionTiling { decode_tokens: DECODE_TOKENS, ..TILING };
        let apart = AttentionTiling { share_prefixes: false, ..tiling };
        // Two sequences of their own, the second of which has too few tokens for it, or too short a context.
        for (second, num_groups) in [((600, 3), 1), ((400, 6), 1), ((700, 5), 2)] {
            let mut first_block = 0;
            let plan = |(context_len, query_len): (u32, u32)| {
                let blocks = (context_len + query_len).div_ceil(16);
                first_block += blocks;
                SeqPlan { context_len, query_len, table: (first_block - blocks..first_block).collect() }
            };
            let seqs: Vec<SeqPlan> = [(1020, 8), second].map(plan).into();
            let (items, together) = keys_by_token(&seqs, &tiling, &ONE_ROUND);
            let (apart, alone) = keys_by_token(&seqs, &apart, &ONE_ROUND);
            assert_eq!(together, alone);
            assert!(apart.prefill.is_empty());
            // Up to four tokens in an item, for each split of the common context: 1008 keys, and 688 of the second.
            let of_second = if num_groups == 2 { 2 * 3 } else { 0 };
            assert_eq!(items.prefill.len(), 2 * 4 + of_second, "{second:?}");
        }
    }

    #[test]
    fn rounds_keep_to_their_limits_and_change_nothing() {
        let mut more_than_one = 0;
        for (sharing, common) in SHARINGS {
            let seqs = plans(sharing, common, &[(600, 1), (33, 17), (0, 5)]);
            for decode_tokens in [1, DECODE_TOKENS, u32::MAX] {
                let tiling = AttentionTiling { decode_tokens, ..TILING };
                let (whole, at_once) = keys_by_token(&seqs, &tiling, &ONE_ROUND);
                for limits in [
                    RoundLimits { partials: 30, ..ONE_ROUND },
                    RoundLimits { items: 7, ..ONE_ROUND },
                    RoundLimits { keys: 2000, ..ONE_ROUND },
                    RoundLimits { partials: 27, items: 5, keys: 1000 },
                ] {
                    let (items, keys) = keys_by_token(&seqs, &tiling, &limits);
                    assert_eq!(keys, at_once, "{sharing} sequences share {common} blocks, {limits:?}");
                    assert_eq!(items.decode.len(), whole.decode.len());
                    for Round { decode, prefill, reduce, keys } in &items.rounds {
                        let keeps = decode.count.max(prefill.count) <= limits.items && *keys <= limits.keys;
                        // What is not parted: a token's items, or those of up to four that read keys together.
                        let is_whole = (1..=TILING.prefill_tokens).contains(&reduce.count) || prefill.count == 1;
                        assert!(keeps || is_whole, "{decode:?}, {prefill:?}, {reduce:?}, {keys} keys, {limits:?}");
                    }
                    more_than_one += usize::from(items.rounds.len() > 1);
                }
            }
        }
        assert!(more_than_one > 20, "{more_than_one} cuts have more than one round");
    }
}
