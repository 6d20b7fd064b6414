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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantised_matrices_stay() {
        use WeightFormat::{Bf16, F16, F32, Q4_1, Q8_0};
        for stored in [F32, F16, Bf16] {
            assert_eq!(Dtype::F16.applied_to(stored), F16);
            assert_eq!(Dtype::Bf16.applied_to(stored), Bf16);
            assert_eq!(Dtype::F32.applied_to(stored), F32);
            assert_eq!(Dtype::Auto.applied_to(stored), stored);
        }
        assert_eq!(Dtype::F16.applied_to(Q8_0), Q8_0);
        assert_eq!(Dtype::F32.applied_to(Q4_1), Q4_1);
    }
}
