//! Counter-based random numbers: no state, hence nothing that batching, preemption or a fork could disturb (I12).
//!
//! Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011,
//! doi:10.1145/2063384.2063405. It needs 32-bit multiplications only, so a shader can compute the same numbers.

/// Philox4x32 with ten rounds: 128 random bits for a 128-bit counter under a 64-bit key.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let (hi0, lo0) = mul_hi_lo(MULTIPLIERS[0], counter[0]);
        let (hi1, lo1) = mul_hi_lo(MULTIPLIERS[1], counter[2]);
        counter = [hi1 ^ counter[1] ^ key[0], lo1, hi0 ^ counter[3] ^ key[1], lo0];
    }
    counter
}

fn mul_hi_lo(a: u32, b: u32) -> (u32, u32) {
    let product = u64::from(a) * u64::from(b);
    ((product >> 32) as u32, product as u32)
}

/// A uniform number in [0, 1) with 53 random bits, a function of its three arguments only.
///
/// `sample_index` is the sequence's index within its request (0 for the first of `n`), `position` the position in the
/// sequence of the token being drawn. The counter is (position, sample index, 0, 0), the key is the seed.
pub fn uniform(seed: u64, sample_index: u32, position: u32) -> f64 {
    let bits = philox4x32([position, sample_index, 0, 0], [seed as u32, (seed >> 32) as u32]);
    let wide = (u64::from(bits[1]) << 32) | u64::from(bits[0]);
    (wide >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers published with the authors' Random123 library (`kat_vectors`).
    #[test]
    fn philox_known_answers() {
        let all = 0xffff_ffff;
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let table = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([all; 4], [all; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (pi, [0xa409_3822, 0x299f_31d0], [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]),
        ];
        for (counter, key, want) in table {
            assert_eq!(philox4x32(counter, key), want, "counter {counter:x?} key {key:x?}");
        }
    }

    /// Chi-square over 64 cells along each of the three arguments; 63 degrees of freedom, 0.1 % bounds 34.6 .. 105.
    #[test]
    fn uniform_along_every_argument() {
        const N: u32 = 64_000;
        type Draw = fn(u32) -> f64;
        let axes: [(&str, Draw); 3] = [
            ("position", |i| uniform(7, 0, i)),
            ("sample index", |i| uniform(7, i, 3)),
            ("seed", |i| uniform(u64::from(i), 0, 3)),
        ];
        for (name, draw) in axes {
            let mut cells = [0u32; 64];
            let mut mean = 0.0;
            for i in 0..N {
                let u = draw(i);
                assert!((0.0..1.0).contains(&u));
                mean += u / f64::from(N);
                cells[(u * 64.0) as usize] += 1;
            }
            let expected = f64::from(N) / 64.0;
            let chi2: f64 = cells.iter().map(|&c| (f64::from(c) - expected).powi(2) / expected).sum();
            assert!((30.0..110.0).contains(&chi2), "{name}: chi-square {chi2}");
            assert!((mean - 0.5).abs() < 0.005, "{name}: mean {mean}");
        }
    }

    /// Neighbouring positions must not be correlated: draws of one sequence follow each other.
    #[test]
    fn neighbours_are_uncorrelated() {
        let n = 50_000;
        let covariance: f64 =
            (0..n).map(|i| (uniform(1, 0, i) - 0.5) * (uniform(1, 0, i + 1) - 0.5)).sum::<f64>() / f64::from(n);
        assert!(covariance.abs() < 0.002, "covariance {covariance}");
    }
}
