//! Weights from their file format into the planes that the kernels read.
//!
//! ggml's blocks interleave scales and quants at odd byte offsets; the device gets aligned planes instead. Q4_0 becomes
//! Q4_1: its minimum, -8 d, is exact in f16. Nothing is dequantised.

use super::super::WeightFormat;

/// Elements of a quantised block, and of the unit by which kernels walk every format.
pub(in crate::backend) const BLOCK: usize = 32;

/// How a weight lies on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::backend) enum DeviceFormat {
    F32,
    F16,
    Bf16,
    /// Q8_0 in planes.
    Q8,
    /// Q4_0 and Q4_1 in planes.
    Q4,
}

impl DeviceFormat {
    #[cfg(any(test, feature = "cuda"))]
    pub(in crate::backend) const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Bf16, Self::Q8, Self::Q4];

    /// Whether there is a second plane, of scales.
    pub(in crate::backend) fn has_scales(self) -> bool {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => false,
            Self::Q8 | Self::Q4 => true,
        }
    }
}

/// Where a format of a file ends up.
pub(in crate::backend) fn device_format(format: WeightFormat) -> DeviceFormat {
    match format {
        WeightFormat::F32 => DeviceFormat::F32,
        WeightFormat::F16 => DeviceFormat::F16,
        WeightFormat::Bf16 => DeviceFormat::Bf16,
        WeightFormat::Q8_0 => DeviceFormat::Q8,
        WeightFormat::Q4_0 | WeightFormat::Q4_1 => DeviceFormat::Q4,
    }
}

/// Bytes of one block of 32 elements: values, scales.
pub(in crate::backend) fn block_bytes(format: DeviceFormat) -> (u64, u64) {
    match format {
        DeviceFormat::F32 => (128, 0),
        DeviceFormat::F16 | DeviceFormat::Bf16 => (64, 0),
        DeviceFormat::Q8 => (32, 2),
        DeviceFormat::Q4 => (16, 4),
    }
}

/// Appends the blocks in `data` to the planes.
pub(in crate::backend) fn repack(format: WeightFormat, data: &[u8], values: &mut Vec<u8>, scales: &mut Vec<u8>) {
    match format {
        WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16 => values.extend_from_slice(data),
        WeightFormat::Q8_0 => {
            for block in data.chunks_exact(34) {
                scales.extend_from_slice(&block[..2]);
                values.extend_from_slice(&block[2..]);
            }
        }
        WeightFormat::Q4_0 => {
            for block in data.chunks_exact(18) {
                let d = half::f16::from_le_bytes([block[0], block[1]]);
                scales.extend_from_slice(&block[..2]);
                scales.extend_from_slice(&half::f16::from_f32(-8.0 * d.to_f32()).to_le_bytes());
                values.extend_from_slice(&consecutive_nibbles(&block[2..]));
            }
        }
        WeightFormat::Q4_1 => {
            for block in data.chunks_exact(20) {
                scales.extend_from_slice(&block[..4]);
                values.extend_from_slice(&consecutive_nibbles(&block[4..]));
            }
        }
    }
}

/// Reorders a row-major plane of blocks so that `group` rows are interleaved block by block (`block_index` in the WGSL),
/// the last group filled up with zeros.
pub(in crate::backend) fn interleave(
    plane: Vec<u8>,
    blocks_per_row: usize,
    block_bytes: usize,
    group: usize,
) -> Vec<u8> {
    let row_bytes = blocks_per_row * block_bytes;
    if group == 1 || row_bytes == 0 {
        return plane;
    }
    let rows = plane.len() / row_bytes;
    let mut out = vec![0; rows.next_multiple_of(group) * row_bytes];
    for (row, data) in plane.chunks_exact(row_bytes).enumerate() {
        let base = row / group * group * row_bytes + row % group * block_bytes;
        for (block, data) in data.chunks_exact(block_bytes).enumerate() {
            let at = base + block * group * block_bytes;
            out[at..at + block_bytes].copy_from_slice(data);
        }
    }
    out
}

/// ggml keeps element j in the low nibble of byte j and element j + 16 in the high one; here element 2 j is in the low
/// nibble of byte j and element 2 j + 1 in the high one.
fn consecutive_nibbles(block: &[u8]) -> [u8; 16] {
    let nibble = |i: usize| if i < 16 { block[i] & 15 } else { block[i - 16] >> 4 };
    std::array::from_fn(|j| nibble(2 * j) | nibble(2 * j + 1) << 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibbles_become_consecutive() {
        // Element i has the value i % 16: low nibbles 0..16, high nibbles 0..16 again.
        let block: Vec<u8> = (0..16).map(|i| i | i << 4).collect();
        let packed = consecutive_nibbles(&block);
        assert_eq!(packed[..3], [0x10, 0x32, 0x54]);
        assert_eq!(packed[8..11], [0x10, 0x32, 0x54]);
    }

    #[test]
    fn rows_of_a_group_are_interleaved() {
        // Three rows of two blocks of one byte, in groups of two.
        let plane = vec![10, 11, 20, 21, 30, 31];
        assert_eq!(interleave(plane.clone(), 2, 1, 2), [10, 20, 11, 21, 30, 0, 31, 0]);
        assert_eq!(interleave(plane.clone(), 2, 1, 1), plane);
    }

    #[test]
    fn q4_0_gets_an_exact_minimum() {
        let d = half::f16::from_f32(0.0123);
        let mut block = d.to_le_bytes().to_vec();
        block.extend([0u8; 16]);
        let (mut values, mut scales) = (Vec::new(), Vec::new());
        repack(WeightFormat::Q4_0, &block, &mut values, &mut scales);
        let m = half::f16::from_le_bytes([scales[2], scales[3]]);
        assert_eq!(m.to_f32(), -8.0 * d.to_f32());
        assert_eq!((values.len(), scales.len()), (16, 4));
    }
}
