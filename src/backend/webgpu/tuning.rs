//! Numbers of the kernels that suit one adapter and model better than another.

use std::fmt;

/// How kernels are cut. None of it changes what a kernel computes beyond the order of its sums; in batch-invariant mode the
/// defaults hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Tuning {
    /// Most rows that `matvec` is used for, 1 to 8; `matmul` takes more of them.
    pub matvec_rows: u32,
    /// Output columns of one workgroup of `matvec`.
    pub matvec_cols: u32,
    /// Most query heads of one workgroup of the attention; they share one KV head, and read its keys once.
    pub attention_heads: u32,
    /// Keys of one decode work item: longer sequences are split, and their parts merged.
    pub attention_split: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { matvec_rows: 8, matvec_cols: 4, attention_heads: u32::MAX, attention_split: 256 }
    }
}

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { matvec_rows, matvec_cols, attention_heads, attention_split } = self;
        write!(f, "matvec up to {matvec_rows} rows, {matvec_cols} columns; attention ")?;
        match attention_heads {
            &u32::MAX => f.write_str("with as many heads as fit")?,
            heads => write!(f, "with up to {heads} heads")?,
        }
        write!(f, ", split at {attention_split} keys")
    }
}

impl Tuning {
    /// Whether kernels can be built with these numbers: what comes from a file may be anything.
    pub fn is_usable(&self) -> bool {
        (1..=8).contains(&self.matvec_rows)
            && (1..=16).contains(&self.matvec_cols)
            && self.attention_heads >= 1
            && (16..=512).contains(&self.attention_split)
            && self.attention_split.is_multiple_of(16)
    }
}
