//! Numbers of the kernels that suit one adapter and model better than another.

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
