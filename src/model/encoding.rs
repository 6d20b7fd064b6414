//! How the elements of a tensor stand in a file, and in which format they go to the device.

use std::borrow::Cow;

use super::dtype::Dtype;
use super::gguf::GgmlQuant;
use crate::backend::{WeightFormat, dequantize_row, quantize_row};

/// How the elements of a tensor stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// In a format that the kernels read.
    Device(WeightFormat),
    /// In a quantisation that has to be repacked for them.
    Repacked(GgmlQuant),
}

impl Encoding {
    /// The format in which a matrix goes to the device when `dtype` is asked for.
    pub fn uploaded_as(self, dtype: Dtype) -> WeightFormat {
        match self {
            Self::Device(format) => dtype.applied_to(format),
            Self::Repacked(quant) => quant.device_format(),
        }
    }

    /// The format of elements that are not quantised.
    pub(super) fn unquantised(self) -> Option<WeightFormat> {
        match self {
            Self::Device(format) if !format.is_quantised() => Some(format),
            _ => None,
        }
    }

    /// A matrix of `cols` columns as it goes to the device; borrowed when the file has it so.
    pub(super) fn matrix(self, data: Cow<'_, [u8]>, dtype: Dtype, cols: usize) -> Cow<'_, [u8]> {
        match self {
            Self::Device(format) => converted(data, format, dtype.applied_to(format), cols),
            Self::Repacked(quant) => Cow::Owned(quant.repack(&data)),
        }
    }
}

/// Rows of unquantised elements in another format; borrowed when it is the same.
pub(super) fn converted(data: Cow<'_, [u8]>, from: WeightFormat, to: WeightFormat, cols: usize) -> Cow<'_, [u8]> {
    if from == to {
        return data;
    }
    let row_bytes = cols * from.block_bytes();
    let mut out = Vec::with_capacity(data.len() / from.block_bytes() * to.block_bytes());
    let mut row = vec![0f32; cols];
    for bytes in data.chunks_exact(row_bytes) {
        dequantize_row(from, bytes, &mut row);
        if to == WeightFormat::F16 {
            // clamp() keeps NaN: what is broken in the file stays visible.
            row.iter_mut().for_each(|value| *value = value.clamp(-65504.0, 65504.0));
        }
        quantize_row(to, &row, &mut out);
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversion_by_hand() {
        let bf16: Vec<u8> =
            [1.5f32, -2.0, 3e38, 0.0].iter().flat_map(|x| (x.to_bits() >> 16).to_le_bytes()[..2].to_vec()).collect();
        let f16 = converted(Cow::Borrowed(&bf16), WeightFormat::Bf16, WeightFormat::F16, 2);
        assert_eq!(&f16[..], [0x00, 0x3e, 0x00, 0xc0, 0xff, 0x7b, 0x00, 0x00]);
        let same = converted(Cow::Borrowed(&bf16), WeightFormat::Bf16, WeightFormat::Bf16, 2);
        assert!(matches!(same, Cow::Borrowed(_)));
    }
}
