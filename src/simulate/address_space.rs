//! A contiguous KV memory: ranges of slots, first fit, with neighbours joined when they fall free.

use std::collections::BTreeMap;

/// How ranges are laid out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Layout {
    /// As long as asked for, in the first hole that is long enough.
    #[default]
    FirstFit,
    /// As a buddy allocator does: powers of two, each at a multiple of its length. The PagedAttention paper assumes this
    /// one of the systems it compares with.
    Buddy,
}

/// Free and given-away ranges of slots.
#[derive(Debug, Clone)]
pub struct AddressSpace {
    layout: Layout,
    num_slots: u64,
    num_free: u64,
    /// Start and length of each hole; no two of them touch.
    holes: BTreeMap<u64, u64>,
}

/// A range given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Its first slot.
    pub start: u64,
    /// Its length, in slots.
    pub len: u64,
}

impl AddressSpace {
    /// One hole of `num_slots` slots.
    pub fn new(num_slots: u64, layout: Layout) -> Self {
        AddressSpace { layout, num_slots, num_free: num_slots, holes: BTreeMap::from([(0, num_slots)]) }
    }

    /// Slots that are free, in whatever holes.
    pub fn num_free(&self) -> u64 {
        self.num_free
    }

    /// A range of at least `len` slots, or `None` when no hole is long enough.
    pub fn allocate(&mut self, len: u64) -> Option<Range> {
        assert!(len > 0, "a range holds at least one slot");
        let (len, align) = match self.layout {
            Layout::FirstFit => (len, 1),
            Layout::Buddy => (len.next_power_of_two(), len.next_power_of_two()),
        };
        let fit = |(&hole, &size): (&u64, &u64)| {
            let start = hole.next_multiple_of(align);
            (start + len <= hole + size).then_some((hole, size, start))
        };
        let (hole, size, start) = self.holes.iter().find_map(fit)?;
        self.holes.remove(&hole);
        if start > hole {
            self.holes.insert(hole, start - hole);
        }
        let (end, hole_end) = (start + len, hole + size);
        if end < hole_end {
            self.holes.insert(end, hole_end - end);
        }
        self.num_free -= len;
        Some(Range { start, len })
    }

    /// Takes a range back.
    pub fn free(&mut self, range: Range) {
        let Range { mut start, mut len } = range;
        self.num_free += len;
        if let Some((&before, &size)) = self.holes.range(..start).next_back() {
            assert!(before + size <= start, "slots {start}.. are free already");
            if before + size == start {
                (start, len) = (before, size + len);
            }
        }
        if let Some((&after, &size)) = self.holes.range(range.start..).next() {
            assert!(range.start + range.len <= after, "slots {after}.. are free already");
            if after == range.start + range.len {
                self.holes.remove(&after);
                len += size;
            }
        }
        self.holes.insert(start, len);
    }

    /// That holes lie inside, apart, and add up.
    ///
    /// # Panics
    /// When they do not: a bug.
    pub fn check_invariants(&self) {
        let mut end_of_last = None;
        let mut free = 0;
        for (&start, &len) in &self.holes {
            assert!(len > 0 && start + len <= self.num_slots, "a hole lies outside");
            assert!(end_of_last.is_none_or(|end| end < start), "two holes touch or overlap");
            end_of_last = Some(start + len);
            free += len;
        }
        assert_eq!(free, self.num_free, "free slots are miscounted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::random::{Random, Stream};

    #[test]
    fn ranges_never_overlap_and_come_back() {
        for layout in [Layout::FirstFit, Layout::Buddy] {
            let random = Random::new(3);
            let mut space = AddressSpace::new(1000, layout);
            let mut held: Vec<Range> = Vec::new();
            for i in 0..20_000 {
                if random.below(Stream::Token, 2 * i, 2) == 0 && !held.is_empty() {
                    let at = random.below(Stream::Prompt, i, held.len() as u32) as usize;
                    space.free(held.swap_remove(at));
                } else if let Some(range) = space.allocate(1 + u64::from(random.below(Stream::Output, i, 120))) {
                    assert!(range.start + range.len <= 1000);
                    assert!(layout == Layout::FirstFit || range.start.is_multiple_of(range.len));
                    let apart = |other: &Range| {
                        range.start + range.len <= other.start || other.start + other.len <= range.start
                    };
                    assert!(held.iter().all(apart), "{range:?} overlaps");
                    held.push(range);
                }
                space.check_invariants();
                let taken: u64 = held.iter().map(|range| range.len).sum();
                assert_eq!(space.num_free() + taken, 1000);
            }
            held.into_iter().for_each(|range| space.free(range));
            assert_eq!(space.allocate(512), Some(Range { start: 0, len: 512 }));
        }
    }

    #[test]
    fn enough_in_all_may_be_too_little_in_one_piece() {
        let mut space = AddressSpace::new(300, Layout::FirstFit);
        let ranges: Vec<Range> = (0..3).map(|_| space.allocate(100).expect("room")).collect();
        space.free(ranges[0]);
        space.free(ranges[2]);
        assert_eq!((space.num_free(), space.allocate(101)), (200, None));
        space.free(ranges[1]);
        assert!(space.allocate(300).is_some());
    }
}
