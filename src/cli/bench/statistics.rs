//! Medians and percentiles.

/// The middle value, or the mean of the two in the middle; NaN for none.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    percentile(values, 50.0)
}

/// The `p`-th percentile, interpolated linearly as numpy's default does; NaN for none.
pub(super) fn percentile(values: impl IntoIterator<Item = f64>, p: f64) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = p / 100.0 * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_numpy_does() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(percentile([1.0, 2.0, 3.0, 4.0, 5.0], 99.0), 4.96);
        assert!(median([]).is_nan());
    }
}
