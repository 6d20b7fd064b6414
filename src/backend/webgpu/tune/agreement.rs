//! Whether two variants compute the same: what a driver gets wrong must not be taken because it is fast.

/// Largest [`difference`] of variants that agree: cooperative matrices round to f16.
pub(super) const MOST_DIFFERENCE: f32 = 0.05;

/// The largest difference between results of the same steps, each relative to the largest of the step's `expected`; infinite
/// where `found` has what is no number.
pub(super) fn difference(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    let of_step = |(found, expected): (&Vec<f32>, &Vec<f32>)| {
        assert_eq!(found.len(), expected.len(), "results of one step");
        if found.iter().any(|value| !value.is_finite()) {
            return f32::INFINITY;
        }
        let largest = expected.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
        let differences = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs());
        differences.fold(0.0, f32::max) / largest
    };
    found.iter().zip(expected).map(of_step).fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_differs_decides() {
        let expected = [vec![1.0, -4.0], vec![100.0, 0.0]];
        assert_eq!(difference(&expected, &expected), 0.0);
        assert_eq!(difference(&[vec![1.5, -4.0], vec![100.0, 1.0]], &expected), 0.125);
        assert!(difference(&[vec![-4.0, 1.0], vec![100.0, 0.0]], &expected) > MOST_DIFFERENCE);
        assert_eq!(difference(&[vec![1.0, f32::NAN], vec![100.0, 0.0]], &expected), f32::INFINITY);
    }

    #[test]
    fn rounding_to_f16_is_agreement() {
        let values: Vec<f32> = (0..4096).map(|i| (i as f32 * 0.37).sin()).collect();
        let rounded = values.iter().map(|&value| half::f16::from_f32(value).to_f32()).collect();
        assert!(difference(&[rounded], &[values]) < MOST_DIFFERENCE / 10.0);
    }
}
