//! Random numbers as a function of (seed, stream, counter): every draw can be made alone, in any order.

use std::f64::consts::TAU;

/// What a number is drawn for. Streams of one seed have nothing to do with one another.
#[derive(Debug, Clone, Copy)]
pub enum Stream {
    /// Time between arrivals.
    Arrival = 1,
    /// Prompt lengths.
    Prompt,
    /// Output lengths.
    Output,
    /// Whether a request starts with a shared prefix, and with which.
    Prefix,
    /// Which beams a step drops, and which it forks.
    Beam,
    /// Made-up tokens.
    Token,
}

/// A seed, ready to draw from.
#[derive(Debug, Clone, Copy)]
pub struct Random(u64);

impl Random {
    /// The numbers of `seed`.
    pub fn new(seed: u64) -> Self {
        Random(mix(seed ^ 0x6A09_E667_F3BC_C908))
    }

    /// 64 random bits.
    pub fn bits(self, stream: Stream, counter: u64) -> u64 {
        mix(mix(self.0 ^ (stream as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)) ^ counter)
    }

    /// A number in `(0, 1)`.
    pub fn uniform(self, stream: Stream, counter: u64) -> f64 {
        ((self.bits(stream, counter) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// A number in `0..end`.
    pub fn below(self, stream: Stream, counter: u64, end: u32) -> u32 {
        (((self.bits(stream, counter) >> 32) * u64::from(end)) >> 32) as u32
    }

    /// Exponential with the mean 1.
    pub fn exponential(self, stream: Stream, counter: u64) -> f64 {
        -self.uniform(stream, counter).ln()
    }

    /// Log-normal with the mean `mean`, where the logarithm's standard deviation is `sigma`.
    pub fn log_normal(self, stream: Stream, counter: u64, mean: f64, sigma: f64) -> f64 {
        // Box and Muller, 1958.
        let (radius, angle) = (self.uniform(stream, 2 * counter), self.uniform(stream, 2 * counter + 1));
        let normal = (-2.0 * radius.ln()).sqrt() * (TAU * angle).cos();
        (mean.ln() - sigma * sigma / 2.0 + sigma * normal).exp()
    }
}

/// The finaliser of splitmix64 (Steele, Lea and Flood, 2014).
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_as_asked_for() {
        let random = Random::new(1);
        let mean = |draw: &dyn Fn(u64) -> f64| (0..200_000).map(draw).sum::<f64>() / 200_000.0;
        let log_normal = mean(&|i| random.log_normal(Stream::Prompt, i, 161.0, 0.8));
        assert!((log_normal / 161.0 - 1.0).abs() < 0.01, "{log_normal}");
        let exponential = mean(&|i| random.exponential(Stream::Arrival, i));
        assert!((exponential - 1.0).abs() < 0.01, "{exponential}");
        assert!((0..10_000).all(|i| random.below(Stream::Beam, i, 3) < 3));
    }
}
