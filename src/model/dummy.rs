//! Weights that are made up: for benchmarks and tests of a shape whose checkpoint is not at hand.
//!
//! The output is noise, but finite: each matrix maps vectors of unit mean square to about the same.

use super::config::ModelConfig;
use super::roles::TensorRole;
use crate::backend::kernel_cases::SplitMix64;
use crate::backend::{WeightFormat, fill_with_noise};

/// How weights are made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DummyWeights {
    /// Format of every matrix; vectors are F32.
    pub format: WeightFormat,
    /// Equal seeds give equal weights.
    pub seed: u64,
}

impl Default for DummyWeights {
    fn default() -> Self {
        Self { format: WeightFormat::F16, seed: 0 }
    }
}

impl DummyWeights {
    /// By the name of their format.
    pub(crate) fn of_format(name: &str) -> Option<Self> {
        use WeightFormat::{Bf16, F16, F32, Q4_0, Q4_1, Q8_0};
        let format =
            [F32, F16, Bf16, Q8_0, Q4_0, Q4_1].into_iter().find(|f| format!("{f:?}").eq_ignore_ascii_case(name));
        format.map(|format| Self { format, ..Self::default() })
    }

    /// Format of the tensor of a role.
    pub(crate) fn format_of(self, role: TensorRole) -> WeightFormat {
        if role.is_vector() { WeightFormat::F32 } else { self.format }
    }

    /// The bytes of one tensor: norm weights are 1, the rest is noise around 0.
    ///
    /// # Panics
    /// If a row is not a whole number of blocks (checked when the checkpoint is opened).
    pub(crate) fn generate(self, role: TensorRole, name: &str, config: &ModelConfig) -> Vec<u8> {
        let (rows, cols) = role.shape(config);
        let format = self.format_of(role);
        let bytes = format.row_bytes(cols).expect("checked at open") * rows;
        if role.is_norm() {
            return 1f32.to_le_bytes().repeat(cols);
        }
        let mut data = vec![0; bytes];
        fill_with_noise(format, (cols as f32).sqrt().recip(), &mut stream(self.seed, name), &mut data);
        data
    }
}

/// Equal names and seeds give equal weights (FNV-1a).
fn stream(seed: u64, name: &str) -> SplitMix64 {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    SplitMix64::new(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
