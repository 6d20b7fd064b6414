//! Numbers of the kernels that suit one adapter and model better than another.

use super::Variant;
use std::fmt;
use std::thread::available_parallelism;

/// How kernels are cut. None of it changes what a kernel computes beyond the order of its sums; in batch-invariant mode the
/// defaults hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Tuning {
    /// Most rows that `matvec` is used for, 1 to 8; `matmul` takes more of them.
    pub matvec_rows: u32,
    /// Rows of the weight of one workgroup of `matvec`, a power of two up to 8: kernels halve it.
    pub matvec_cols: u32,
    /// Workgroups of a product that is split along the columns of x, at most `MOST_SPLIT_WORKGROUPS`; 0 splits none.
    pub split_workgroups: u32,
    /// Most query heads of one workgroup of the attention; they share one KV head, and read its keys once.
    pub attention_heads: u32,
    /// Keys of one decode work item: longer sequences are split, and their parts merged.
    pub attention_split: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            matvec_rows: 8,
            matvec_cols: 4,
            split_workgroups: MOST_SPLIT_WORKGROUPS,
            attention_heads: u32::MAX,
            attention_split: 256,
        }
    }
}

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { matvec_rows, matvec_cols, split_workgroups, attention_heads, attention_split } = self;
        write!(f, "matvec up to {matvec_rows} rows, {matvec_cols} columns; ")?;
        match split_workgroups {
            0 => f.write_str("no product split; attention ")?,
            most => write!(f, "products split into up to {most} workgroups; attention ")?,
        }
        match attention_heads {
            &u32::MAX => f.write_str("with as many heads as fit")?,
            heads => write!(f, "with up to {heads} heads")?,
        }
        write!(f, ", split at {attention_split} keys")
    }
}

/// Most workgroups of a product that is split along the columns of x: two for each multiprocessor of a large GPU.
pub(super) const MOST_SPLIT_WORKGROUPS: u32 = 256;

/// Keys of a decode work item of the `cpu` kernels, which need no memory for scores.
const CPU_SPLITS: std::ops::RangeInclusive<u32> = 256..=1024;

impl Tuning {
    /// What holds for a variant where nothing was measured.
    ///
    /// Work items of the `cpu` kernels are as long as they may be without leaving cores of this machine idle: to merge the
    /// parts of a sequence is a dispatch more, and costs as much as some hundred keys.
    pub fn by_rule(variant: Variant) -> Self {
        match variant {
            Variant::Cpu => {
                let cores = available_parallelism().map_or(1, usize::from) as u32;
                let split = 2048 / cores.next_power_of_two();
                Self { attention_split: split.clamp(*CPU_SPLITS.start(), *CPU_SPLITS.end()), ..Self::default() }
            }
            Variant::Matrix | Variant::Subgroup | Variant::Plain => Self::default(),
        }
    }

    /// Whether kernels of this variant can be built with these numbers: what comes from a file may be anything.
    pub fn is_usable(&self, variant: Variant) -> bool {
        let most_keys = if variant == Variant::Cpu { *CPU_SPLITS.end() } else { 512 };
        (1..=8).contains(&self.matvec_rows)
            && self.matvec_cols.is_power_of_two()
            && self.matvec_cols <= 8
            && self.split_workgroups <= MOST_SPLIT_WORKGROUPS
            && self.attention_heads >= 1
            && (16..=most_keys).contains(&self.attention_split)
            && self.attention_split.is_multiple_of(16)
    }
}
