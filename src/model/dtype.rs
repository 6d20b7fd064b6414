//! The element type that unquantised matrices are converted to.

use crate::backend::WeightFormat;

/// Element type of matrices that are not quantised; quantised ones stay as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dtype {
    /// Each matrix as the file has it.
    #[default]
    Auto,
    /// IEEE half; values beyond its range become the greatest it has.
    F16,
    /// bfloat16.
    Bf16,
    /// 32-bit float.
    F32,
}

impl Dtype {
    /// The format that a matrix stored as `stored` is uploaded in.
    pub fn applied_to(self, stored: WeightFormat) -> WeightFormat {
        match (self, stored.block_len()) {
            (Self::F16, 1) => WeightFormat::F16,
            (Self::Bf16, 1) => WeightFormat::Bf16,
            (Self::F32, 1) => WeightFormat::F32,
            _ => stored,
        }
    }
}
