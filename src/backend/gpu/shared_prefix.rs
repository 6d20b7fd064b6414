//! Which tokens of a step read the same blocks first: those of samples of one prompt, of beams, of hits of the prefix cache,
//! and a sequence's last token with its drafts.

/// Tokens from which on their common blocks are read once for all of them. Below it the partial results that this
/// takes, and their merging, cost about what it saves.
const MIN_READERS: usize = 4;
/// Common keys from which on it is done: two splits of them. Less than one split is a single work item for each token
/// anyway, whose reading is small beside the rest of a step.
const MIN_KEYS: u32 = 512;

/// Tokens whose block tables begin with the same blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    /// Where its members stand in [`SharedPrefixes::members`].
    pub(super) first: usize,
    pub(super) len: usize,
    /// Blocks that all of them begin with.
    pub(super) blocks: u32,
}

/// The groups of a step, found again every step in the same allocations.
#[derive(Debug, Default)]
pub(super) struct SharedPrefixes {
    /// Indices of tokens, group by group.
    pub(super) members: Vec<u32>,
    pub(super) groups: Vec<Group>,
    order: Vec<u32>,
}

impl SharedPrefixes {
    pub(super) fn clear(&mut self) {
        self.members.clear();
        self.groups.clear();
        self.order.clear();
    }

    /// Groups so many tokens, for which `table` gives the blocks that each may read together with others.
    ///
    /// A token is in one group at most. Of the ways to split tokens with a common start (all of them over what all
    /// share, or some of them over more) the one is taken that leaves the fewest blocks to read.
    pub(super) fn find<'a>(&mut self, num_tokens: u32, table: impl Fn(u32) -> &'a [u32], block_size: u32) {
        self.clear();
        let min_blocks = MIN_KEYS.div_ceil(block_size) as usize;
        self.order.extend((0..num_tokens).filter(|&token| table(token).len() >= min_blocks));
        if self.order.len() < MIN_READERS {
            return;
        }
        // Then tokens with a common start stand together, and what a run of them has in common is what its ends have.
        self.order.sort_by(|&a, &b| table(a).cmp(table(b)));
        let order = std::mem::take(&mut self.order);
        for run in order.chunk_by(|&a, &b| table(a)[..min_blocks] == table(b)[..min_blocks]) {
            self.split(run, &table);
        }
        self.order = order;
    }

    /// Adds the best groups of a run; returns the blocks that they save reading.
    fn split<'a>(&mut self, run: &[u32], table: &impl Fn(u32) -> &'a [u32]) -> usize {
        if run.len() < MIN_READERS {
            return 0;
        }
        let (first, last) = (table(run[0]), table(run[run.len() - 1]));
        let common = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        let together = (run.len() - 1) * common;
        let (members, groups) = (self.members.len(), self.groups.len());
        let mut apart = 0;
        for part in run.chunk_by(|&a, &b| table(a).get(common) == table(b).get(common)) {
            // Those that end here share nothing more, and a part of all is this run again.
            if table(part[0]).len() > common && part.len() < run.len() {
                apart += self.split(part, table);
            }
        }
        if apart > together {
            return apart;
        }
        self.members.truncate(members);
        self.groups.truncate(groups);
        self.groups.push(Group { first: members, len: run.len(), blocks: common as u32 });
        self.members.extend(run);
        together
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The groups of these tables as (tokens, blocks), in blocks of 16 tokens.
    fn groups(tables: &[Vec<u32>]) -> Vec<(Vec<u32>, u32)> {
        let mut found = SharedPrefixes::default();
        found.find(tables.len() as u32, |token| &tables[token as usize], 16);
        let group = |group: &Group| {
            let mut members = found.members[group.first..group.first + group.len].to_vec();
            members.sort_unstable();
            (members, group.blocks)
        };
        found.groups.iter().map(group).collect()
    }

    /// `common` blocks from 1000 on, then `own` that nobody else has.
    fn table(common: u32, own: u32, seq: u32) -> Vec<u32> {
        (1000..1000 + common).chain((0..own).map(|i| 10_000 + 100 * seq + i)).collect()
    }

    #[test]
    fn sequences_with_a_long_common_start_are_a_group() {
        let mut tables: Vec<Vec<u32>> = (0..6).map(|seq| table(40, seq, seq)).collect();
        tables.insert(2, table(0, 50, 9));
        assert_eq!(groups(&tables), [(vec![0, 1, 3, 4, 5, 6], 40)]);
    }

    #[test]
    fn few_sequences_and_short_starts_are_none() {
        assert_eq!(groups(&[table(40, 1, 0), table(40, 1, 1), table(40, 1, 2)]), []);
        assert_eq!(groups(&(0..8).map(|seq| table(31, 20, seq)).collect::<Vec<_>>()), []);
        assert_eq!(groups(&(0..8).map(|seq| table(32, 20, seq)).collect::<Vec<_>>()).len(), 1);
        assert_eq!(groups(&[]), []);
    }

    #[test]
    fn samples_of_one_prompt_are_not_held_back_by_others_with_its_start() {
        // Eight share 100 blocks, and one more the first 32 of them: 7 * 100 blocks saved against 8 * 32.
        let mut tables: Vec<Vec<u32>> = (0..8).map(|seq| table(100, 3, seq)).collect();
        tables.push(table(32, 3, 8));
        assert_eq!(groups(&tables), [((0..8).collect(), 100)]);
        // Two prompts with a common start of 90 blocks: all eight together, 7 * 90 against 2 * 3 * 100.
        let tables: Vec<Vec<u32>> = (0..8u32)
            .map(|seq| table(90, 0, 0).into_iter().chain((0..10).map(|i| 2000 + seq % 2 * 50 + i)).collect())
            .collect();
        assert_eq!(groups(&tables), [((0..8).collect(), 90)]);
        // Of 60 blocks: four and four, 2 * 3 * 100 against 7 * 60.
        let tables: Vec<Vec<u32>> = (0..8u32)
            .map(|seq| table(60, 0, 0).into_iter().chain((0..40).map(|i| 2000 + seq % 2 * 50 + i)).collect())
            .collect();
        assert_eq!(groups(&tables), [(vec![0, 2, 4, 6], 100), (vec![1, 3, 5, 7], 100)]);
    }

    #[test]
    fn equal_tables_are_shared_to_their_end() {
        assert_eq!(groups(&vec![table(35, 0, 0); 5]), [((0..5).collect(), 35)]);
    }
}
