//! Memory that invocations share, and what they did to it.

use std::fmt;

/// Who touches a word, and when: barriers begin epochs of a workgroup.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who {
    pub(crate) workgroup: u32,
    pub(crate) lane: Lane,
    pub(crate) epoch: u32,
}

/// One of a workgroup's invocations, or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    One(u32),
    /// One of a subgroup's, but nobody knows which: so its invocations share the elements of a matrix.
    OfSubgroup(u32),
    Several,
}

impl Default for Lane {
    fn default() -> Self {
        Self::One(0)
    }
}

/// A buffer, or a variable of a workgroup.
pub(crate) struct Shared<'a> {
    name: String,
    words: Words<'a>,
    /// Whether it is a workgroup's: other barriers order it, and what nobody wrote is undefined.
    pub(crate) is_of_workgroup: bool,
    /// How many of what it has a number for are one word of memory.
    pub(crate) cells_per_word: u32,
}

enum Words<'a> {
    /// Of a buffer that the kernel only reads.
    Constant(&'a [u32]),
    /// And what was done to each.
    Written(&'a mut [u32], Vec<Track>),
}

#[derive(Clone, Copy, Default)]
struct Track {
    written: Touch,
    read: Touch,
}

/// The last who read or wrote a word, or several of them.
#[derive(Clone, Copy, Default)]
struct Touch {
    by: By,
    lane: Lane,
    epoch: u32,
    atomic: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum By {
    #[default]
    Nobody,
    Workgroup(u32),
    Workgroups,
}

impl Touch {
    fn new(who: Who, atomic: bool) -> Self {
        Self { by: By::Workgroup(who.workgroup), lane: who.lane, epoch: who.epoch, atomic }
    }

    /// Whether nothing orders this access before one of `who`.
    #[inline]
    fn races_with(&self, who: Who, atomic: bool) -> bool {
        match self.by {
            By::Nobody => false,
            _ if self.atomic && atomic => false,
            By::Workgroups => true,
            By::Workgroup(workgroup) if workgroup != who.workgroup => true,
            By::Workgroup(_) => (self.lane != who.lane || self.lane == Lane::Several) && self.epoch >= who.epoch,
        }
    }

    /// This one and another of the same kind.
    #[inline]
    fn and(&self, other: Self) -> Self {
        let atomic = self.atomic && other.atomic;
        match (self.by, other.by) {
            (By::Nobody, _) => other,
            (mine, others) if mine != others => Self { by: By::Workgroups, atomic, ..other },
            _ if self.epoch < other.epoch => other,
            _ if self.lane == other.lane => Self { atomic, ..other },
            _ => Self { lane: Lane::Several, atomic, ..other },
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(lane) => write!(f, "invocation {lane}"),
            Self::OfSubgroup(subgroup) => write!(f, "some invocation of subgroup {subgroup}"),
            Self::Several => f.write_str("more than one invocation"),
        }
    }
}

impl fmt::Display for Touch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by {
            By::Workgroup(workgroup) => write!(f, "{} of workgroup {workgroup}", self.lane),
            _ => f.write_str("more than one workgroup"),
        }
    }
}

impl<'a> Shared<'a> {
    /// A buffer that the kernel only reads.
    pub(crate) fn constant(name: String, words: &'a [u32]) -> Self {
        Self { name, words: Words::Constant(words), is_of_workgroup: false, cells_per_word: 1 }
    }

    /// A buffer that the kernel writes.
    pub(crate) fn written(name: String, words: &'a mut [u32]) -> Self {
        let tracks = vec![Track::default(); words.len()];
        Self { name, words: Words::Written(words, tracks), is_of_workgroup: false, cells_per_word: 1 }
    }

    /// A workgroup's variable, which holds anything: a cell for each scalar.
    pub(crate) fn of_workgroup(name: String, cells: &'a mut [u32], cells_per_word: u32) -> Self {
        Self { is_of_workgroup: true, cells_per_word, ..Self::written(name, cells) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Another workgroup begins.
    pub(crate) fn forget(&mut self) {
        if let Words::Written(_, tracks) = &mut self.words {
            tracks.fill(Track::default());
        }
    }

    fn race(&self, at: u32, what: &str, who: Who, before: &str, other: Touch) -> String {
        format!(
            "data race: {} of workgroup {} {what} word {at} of {}, which {other} {before} with no barrier between",
            who.lane, who.workgroup, self.name
        )
    }

    fn beyond(&self, at: u32) -> String {
        let len = match &self.words {
            Words::Constant(words) => words.len(),
            Words::Written(words, _) => words.len(),
        };
        format!("word {at} of {}, which has {len}", self.name)
    }

    #[inline]
    pub(crate) fn read(&mut self, at: u32, who: Who, atomic: bool) -> Result<u32, String> {
        match &mut self.words {
            Words::Constant(words) => words.get(at as usize).copied().ok_or_else(|| self.beyond(at)),
            Words::Written(words, tracks) => {
                let Some(track) = tracks.get_mut(at as usize) else { return Err(self.beyond(at)) };
                let written = track.written;
                if written.races_with(who, atomic) {
                    return Err(self.race(at, "reads", who, "wrote", written));
                }
                if self.is_of_workgroup && written.by == By::Nobody {
                    return Err(format!("word {at} of {} is read and was never written", self.name));
                }
                track.read = track.read.and(Touch::new(who, atomic));
                Ok(words[at as usize])
            }
        }
    }

    pub(crate) fn write(&mut self, at: u32, who: Who, atomic: bool, bits: u32) -> Result<(), String> {
        let Words::Written(words, tracks) = &mut self.words else { panic!("naga takes no such store") };
        let Some(track) = tracks.get_mut(at as usize) else { return Err(self.beyond(at)) };
        let Track { written, read } = *track;
        if written.races_with(who, atomic) {
            return Err(self.race(at, "writes", who, "wrote", written));
        }
        if read.races_with(who, atomic) {
            return Err(self.race(at, "writes", who, "read", read));
        }
        track.written = written.and(Touch::new(who, atomic));
        words[at as usize] = bits;
        Ok(())
    }

    /// An atomic operation; what was there before.
    pub(crate) fn update(&mut self, at: u32, who: Who, after: impl FnOnce(u32) -> u32) -> Result<u32, String> {
        let before = self.read(at, who, true)?;
        self.write(at, who, true, after(before))?;
        Ok(before)
    }
}
