//! Memory that invocations share, and what they did to it.

use std::fmt;

/// Who touches a word, and when: barriers begin epochs of a workgroup.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who {
    pub(crate) workgroup: u32,
    pub(crate) lane: Lane,
    pub(crate) epoch: u32,
}

/// One invocation of a workgroup, or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    One(u32),
    Several,
}

/// A buffer, or a workgroup's memory.
pub(crate) struct Shared<'a> {
    name: String,
    words: &'a mut [u32],
    /// What was done to each word; empty where nobody writes.
    tracks: Vec<Track>,
    /// Whether reading a word that was not written is a fault.
    begins_undefined: bool,
}

#[derive(Clone, Copy, Default)]
struct Track {
    written: Access,
    read: Access,
}

/// The last access to a word, or several of one kind.
#[derive(Clone, Copy, Default)]
struct Access {
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

impl Default for Lane {
    fn default() -> Self {
        Self::One(0)
    }
}

impl Access {
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
        match (self.by, other.by) {
            (By::Nobody, _) => other,
            (mine, others) if mine != others => Self { by: By::Workgroups, ..other },
            _ if self.epoch < other.epoch || self.lane == other.lane => other,
            _ => Self { lane: Lane::Several, ..other },
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(lane) => write!(f, "invocation {lane}"),
            Self::Several => f.write_str("more than one invocation"),
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by {
            By::Workgroup(workgroup) => write!(f, "{} of workgroup {workgroup}", self.lane),
            _ => f.write_str("more than one workgroup"),
        }
    }
}

impl<'a> Shared<'a> {
    /// A buffer that the kernel only reads.
    pub(crate) fn read_only(name: String, words: &'a mut [u32]) -> Self {
        Self { name, words, tracks: Vec::new(), begins_undefined: false }
    }

    /// A buffer that the kernel writes.
    pub(crate) fn written(name: String, words: &'a mut [u32]) -> Self {
        let tracks = vec![Track::default(); words.len()];
        Self { name, words, tracks, begins_undefined: false }
    }

    /// A workgroup's memory, which holds anything.
    pub(crate) fn undefined(name: String, words: &'a mut [u32]) -> Self {
        Self { begins_undefined: true, ..Self::written(name, words) }
    }

    /// Another workgroup begins.
    pub(crate) fn forget(&mut self) {
        self.tracks.fill(Track::default());
    }

    #[inline]
    fn check(&self, at: u32) -> Result<usize, String> {
        let len = self.words.len();
        if at as usize >= len {
            return Err(format!("word {at} of {}, which has {len}", self.name));
        }
        Ok(at as usize)
    }

    fn race(&self, at: usize, what: &str, who: Who, before: &str, other: Access) -> String {
        format!(
            "data race: {} of workgroup {} {what} word {at} of {}, which {other} {before} with no barrier between",
            who.lane, who.workgroup, self.name
        )
    }

    #[inline]
    pub(crate) fn read(&mut self, at: u32, who: Who) -> Result<u32, String> {
        let at = self.check(at)?;
        if let Some(track) = self.tracks.get(at) {
            if track.written.races_with(who, false) {
                return Err(self.race(at, "reads", who, "wrote", track.written));
            }
            if self.begins_undefined && track.written.by == By::Nobody {
                return Err(format!("word {at} of {} is read and was never written", self.name));
            }
            self.tracks[at].read = track.read.and(Access::new(who, false));
        }
        Ok(self.words[at])
    }

    pub(crate) fn write(&mut self, at: u32, who: Who, bits: u32) -> Result<(), String> {
        let at = self.check(at)?;
        self.own(at, who, false)?;
        self.words[at] = bits;
        Ok(())
    }

    /// What was there before.
    pub(crate) fn update(&mut self, at: u32, who: Who, f: impl FnOnce(u32) -> u32) -> Result<u32, String> {
        let at = self.check(at)?;
        self.own(at, who, true)?;
        let before = self.words[at];
        self.words[at] = f(before);
        Ok(before)
    }

    fn own(&mut self, at: usize, who: Who, atomic: bool) -> Result<(), String> {
        let Some(track) = self.tracks.get(at).copied() else {
            return Err(format!("{} is written and was bound to be read", self.name));
        };
        if track.written.races_with(who, atomic) {
            return Err(self.race(at, "writes", who, "wrote", track.written));
        }
        if track.read.races_with(who, atomic) {
            return Err(self.race(at, "writes", who, "read", track.read));
        }
        self.tracks[at].written = track.written.and(Access::new(who, atomic));
        Ok(())
    }
}
