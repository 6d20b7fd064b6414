//! Whether two variants compute the same: what a driver gets wrong must not be taken because it is fast.

/// Results of a variant: of the same steps, one after the other.
pub(super) type Results = Vec<Vec<f32>>;

/// Largest difference of variants that agree, relative to the largest of a step's values: cooperative matrices round to f16.
const MOST_DIFFERENCE: f32 = 0.05;

/// Which variants to trust: those that agree with another, or else only the last, which asks least of the driver.
pub(super) fn trusted(all: &[Results]) -> Vec<bool> {
    let agrees = |&index: &usize| {
        let others = all.iter().enumerate().filter(|&(other, _)| other != index);
        others.map(|(_, other)| other).any(|other| agree(&all[index], other))
    };
    let agreeing: Vec<bool> = (0..all.len()).map(|index| agrees(&index)).collect();
    match agreeing.contains(&true) {
        true => agreeing,
        false => (1..=all.len()).map(|place| place == all.len()).collect(),
    }
}

/// Values that are not finite agree with none.
fn agree(one: &Results, other: &Results) -> bool {
    one.iter().zip(other).all(|(one, other)| {
        assert_eq!(one.len(), other.len(), "results of one step");
        let largest = one.iter().chain(other).fold(0.0, |largest: f32, value| largest.max(value.abs()));
        largest.is_finite()
            && one.iter().zip(other).all(|(one, other)| (one - other).abs() <= MOST_DIFFERENCE * largest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: [[f32; 2]; 2] = [[1.0, -4.0], [100.0, 0.0]];

    fn results(steps: [[f32; 2]; 2]) -> Results {
        steps.map(Vec::from).to_vec()
    }

    #[test]
    fn what_differs_from_two_that_agree_is_not_trusted() {
        let [right, near] = [results(RIGHT), results([[1.01, -4.0], [99.0, 1.0]])];
        let swapped = results([[-4.0, 1.0], RIGHT[1]]);
        for wrong in
            [swapped, results([[1.0, f32::NAN], RIGHT[1]]), results([[f32::INFINITY; 2]; 2]), results([[0.0; 2]; 2])]
        {
            assert_eq!(trusted(&[wrong.clone(), right.clone(), near.clone()]), [false, true, true], "{wrong:?}");
            assert_eq!(trusted(&[right.clone(), near.clone(), wrong.clone()]), [true, true, false], "{wrong:?}");
            assert_eq!(trusted(&[wrong.clone(), right.clone()]), [false, true], "{wrong:?}");
        }
        assert_eq!(trusted(&[right.clone(), near]), [true, true]);
        assert_eq!(trusted(&[right]), [true]);
    }

    #[test]
    fn rounding_to_f16_is_agreement() {
        let values: Vec<f32> = (0..4096).map(|i| (i as f32 * 0.37).sin()).collect();
        let rounded = values.iter().map(|&value| half::f16::from_f32(value).to_f32()).collect();
        assert_eq!(trusted(&[vec![rounded], vec![values]]), [true, true]);
    }
}
