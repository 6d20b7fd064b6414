//! A weight on its way to the device: runs of rows, each of which becomes one pair of planes.

use super::super::{BackendError, HostWeight, WeightFormat};
use super::repack::{self, BLOCK, DeviceFormat};

/// Consecutive rows of a weight that have one format on the device.
pub(in crate::backend) struct WeightRun<'a> {
    pub(in crate::backend) format: DeviceFormat,
    pub(in crate::backend) first_row: usize,
    pub(in crate::backend) rows: usize,
    /// Their bytes, as they are in the file.
    pieces: Vec<(WeightFormat, &'a [u8])>,
}

impl WeightRun<'_> {
    /// The planes of values and scales, row-major; see [`repack`].
    pub(in crate::backend) fn planes(&self) -> (Vec<u8>, Vec<u8>) {
        // Planes that grew would take up to twice the memory.
        let blocks_of = |(format, data): &(WeightFormat, &[u8])| data.len() / format.row_bytes(BLOCK).unwrap_or(1);
        let blocks: usize = self.pieces.iter().map(blocks_of).sum();
        let (value_bytes, scale_bytes) = repack::block_bytes(self.format);
        let mut values = Vec::with_capacity(blocks * value_bytes as usize);
        let mut scales = Vec::with_capacity(blocks * scale_bytes as usize);
        for (format, data) in &self.pieces {
            repack::repack(*format, data, &mut values, &mut scales);
        }
        (values, scales)
    }
}

/// Whether a weight is a norm's or a bias.
pub(in crate::backend) fn is_vector(weight: &HostWeight<'_>) -> bool {
    weight.rows() == 1 && weight.parts[0].format == WeightFormat::F32
}

/// Cuts a weight into runs: neighbouring parts of one device format go together, up to `most_rows`, which is given the bytes
/// of the values in a row.
///
/// # Errors
/// [`BackendError::Unsupported`] where a matrix does not consist of whole blocks of [`BLOCK`] columns, or the bytes are not
/// those of its shape; and those of `most_rows`.
pub(in crate::backend) fn weight_runs<'a>(
    weight: &'a HostWeight<'_>,
    most_rows: impl Fn(u64) -> Result<usize, BackendError>,
) -> Result<Vec<WeightRun<'a>>, BackendError> {
    if !is_vector(weight) && !weight.cols.is_multiple_of(BLOCK) {
        return Err(BackendError::Unsupported(format!(
            "weight {}: {} input features; the kernels need a multiple of {BLOCK}",
            weight.name, weight.cols
        )));
    }
    let mut runs: Vec<WeightRun<'a>> = Vec::new();
    let mut first_row = 0;
    for part in &weight.parts {
        let row_bytes = part.format.row_bytes(weight.cols).unwrap_or(0);
        if row_bytes == 0 || part.data.len() != row_bytes * part.rows {
            return Err(BackendError::Unsupported(format!(
                "weight {}: {} bytes do not make {} rows of {} {:?}",
                weight.name,
                part.data.len(),
                part.rows,
                weight.cols,
                part.format
            )));
        }
        let format = repack::device_format(part.format);
        let most_rows = most_rows(weight.cols.div_ceil(BLOCK) as u64 * repack::block_bytes(format).0)?;
        let mut done = 0;
        while done < part.rows {
            let joins = runs.last().is_some_and(|run| run.format == format && run.rows < most_rows);
            if !joins {
                runs.push(WeightRun { format, first_row: first_row + done, rows: 0, pieces: Vec::new() });
            }
            let run = runs.last_mut().expect("a run was just pushed or joined");
            let rows = (part.rows - done).min(most_rows - run.rows);
            run.pieces.push((part.format, &part.data[done * row_bytes..(done + rows) * row_bytes]));
            run.rows += rows;
            done += rows;
        }
        first_row += part.rows;
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::super::super::WeightPart;
    use super::*;
    use std::borrow::Cow;

    fn runs(parts: &[(WeightFormat, usize)], most_rows: usize) -> Vec<(DeviceFormat, usize, usize)> {
        let part = |&(format, rows): &(WeightFormat, usize)| {
            let data = Cow::Owned(vec![0; rows * format.row_bytes(64).expect("whole blocks")]);
            WeightPart { format, rows, data }
        };
        let weight = HostWeight { name: "w".to_owned(), cols: 64, parts: parts.iter().map(part).collect() };
        let runs = weight_runs(&weight, |_| Ok(most_rows)).expect("the bytes are those of the shape");
        runs.iter()
            .map(|run| {
                let (value_bytes, scale_bytes) = repack::block_bytes(run.format);
                let bytes = |of_block: u64| run.rows * 2 * of_block as usize;
                let (values, scales) = run.planes();
                assert_eq!((values.len(), scales.len()), (bytes(value_bytes), bytes(scale_bytes)));
                (run.format, run.first_row, run.rows)
            })
            .collect()
    }

    #[test]
    fn parts_of_one_device_format_go_together() {
        use WeightFormat::{F16, Q4_0, Q4_1};
        let parts = [(Q4_0, 3), (Q4_1, 2), (F16, 4)];
        assert_eq!(runs(&parts, usize::MAX), [(DeviceFormat::Q4, 0, 5), (DeviceFormat::F16, 5, 4)]);
    }

    #[test]
    fn no_run_has_more_rows_than_fit() {
        use WeightFormat::{F32, Q8_0};
        let parts = [(Q8_0, 3), (Q8_0, 6), (F32, 1)];
        let q8 = |first, rows| (DeviceFormat::Q8, first, rows);
        assert_eq!(runs(&parts, 4), [q8(0, 4), q8(4, 4), q8(8, 1), (DeviceFormat::F32, 9, 1)]);
    }

    #[test]
    fn a_matrix_has_whole_blocks_and_all_its_bytes() {
        let weight = |cols, bytes| {
            let part = WeightPart { format: WeightFormat::F16, rows: 2, data: Cow::Owned(vec![0; bytes]) };
            HostWeight { name: "w".to_owned(), cols, parts: vec![part] }
        };
        for (weight, why) in [(weight(48, 192), "multiple of 32"), (weight(64, 255), "do not make")] {
            let error = weight_runs(&weight, |_| Ok(usize::MAX)).map(|_| ()).expect_err(why);
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
