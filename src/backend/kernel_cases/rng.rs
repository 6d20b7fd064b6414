//! A small deterministic random number generator for test data.

/// SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2714064.2660195).
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator that starts from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator seeded by a name (FNV-1a), so that one case's data does not depend on the other cases.
    pub fn from_name(name: &str) -> Self {
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, hash))
    }

    /// 64 uniform bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..n`; the bias below 2^-32 does not matter here.
    pub const fn below(&mut self, n: u32) -> u32 {
        (((self.next_u64() >> 32) * n as u64) >> 32) as u32
    }

    /// Uniform in `-bound..bound`, 24 random bits.
    pub fn uniform(&mut self, bound: f32) -> f32 {
        ((self.next_u64() >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * bound
    }

    /// `len` values, uniform, mean 0, standard deviation `deviation`.
    pub fn values(&mut self, len: usize, deviation: f32) -> Vec<f32> {
        let bound = deviation * 3.0f32.sqrt();
        (0..len).map(|_| self.uniform(bound)).collect()
    }

    /// The numbers `0..n` in random order (Fisher and Yates).
    pub fn permutation(&mut self, n: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, self.below(last as u32 + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_first_values() {
        let mut rng = SplitMix64::new(1_234_567);
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn values_have_the_deviation_asked_for() {
        let values = SplitMix64::from_name("values").values(10_000, 2.0);
        let mean_square = values.iter().map(|v| v * v).sum::<f32>() / 10_000.0;
        assert!((mean_square - 4.0).abs() < 0.1, "{mean_square}");
    }

    #[test]
    fn a_permutation_has_every_number_once() {
        let mut order = SplitMix64::new(3).permutation(50);
        assert_ne!(order, (0..50).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..50).collect::<Vec<_>>());
    }
}
