//! Weights in the form in which they go to the device.

use std::borrow::Cow;
use std::fmt;

use super::checkpoint::Checkpoint;
use super::dtype::Dtype;
use super::identity::IdentityHasher;
use super::roles::{LayerRole, Linear, TensorRole};
use crate::backend::{HostWeight, WeightFormat, WeightPart, dequantize_row, quantize_row};

impl Checkpoint {
    /// The same checkpoint, its unquantised matrices to be converted to `dtype` on their way to the device.
    pub fn with_dtype(mut self, dtype: Dtype) -> Self {
        if dtype != Dtype::Auto {
            // Other weights give other keys and values: prefixes must not be mixed up.
            let mut hasher = IdentityHasher::new("converted");
            hasher.add("stored", &self.identity);
            hasher.add("dtype", format!("{dtype:?}").as_bytes());
            self.identity = hasher.finish();
        }
        self.dtype = dtype;
        self
    }

    /// Bytes of all weights as they are uploaded: matrices in their file formats or the chosen [`Dtype`], vectors in F32.
    pub fn weight_bytes(&self) -> u64 {
        TensorRole::all(&self.config).into_iter().map(|role| self.role_bytes(role)).sum()
    }

    /// Bytes of the weights that every step reads: all but a token embedding that is not the output head too, of which
    /// only the rows of the step's tokens are read.
    pub fn weight_bytes_per_step(&self) -> u64 {
        let embedding = if self.config.tie_word_embeddings { 0 } else { self.role_bytes(TensorRole::TokenEmbedding) };
        self.weight_bytes() - embedding
    }

    fn role_bytes(&self, role: TensorRole) -> u64 {
        let (rows, cols) = role.shape(&self.config);
        let format = match role.is_vector() {
            true => Some(WeightFormat::F32),
            false => self.stored_format(role).map(|stored| self.dtype.applied_to(stored)),
        };
        format.and_then(|format| format.row_bytes(cols)).expect("checked at open") as u64 * rows as u64
    }

    /// Tensors stacked by rows into one matrix, each part in its file format or the chosen [`Dtype`].
    ///
    /// # Panics
    /// If a role is not one of [`TensorRole::all`], or the columns differ: a bug of the model builder.
    pub fn matrix(&self, name: impl fmt::Display, roles: &[TensorRole]) -> HostWeight<'_> {
        let cols = roles[0].shape(&self.config).1;
        let parts = roles.iter().map(|&role| {
            let shape = role.shape(&self.config);
            assert_eq!(shape.1, cols, "columns of {role:?}");
            let found = self.find(role).expect("checked at open");
            let format = self.dtype.applied_to(found.format);
            WeightPart { format, rows: shape.0, data: converted(found.data, found.format, format, cols) }
        });
        HostWeight { name: name.to_string(), cols, parts: parts.collect() }
    }

    /// Format in which most matrices are uploaded: that of the first layer's gate.
    pub fn matrix_format(&self) -> WeightFormat {
        let role = TensorRole::Layer(0, LayerRole::Weight(Linear::Gate));
        self.dtype.applied_to(self.find(role).expect("checked at open").format)
    }

    /// Vectors (norm weights, biases) put one after the other and converted to F32.
    ///
    /// # Panics
    /// If a role is not one of [`TensorRole::all`]: a bug of the model builder.
    pub fn vector(&self, name: impl fmt::Display, roles: &[TensorRole]) -> HostWeight<'_> {
        let mut data = Cow::Borrowed([].as_slice());
        for &role in roles {
            let found = self.find(role).expect("checked at open");
            let part = converted(found.data, found.format, WeightFormat::F32, role.shape(&self.config).1);
            if data.is_empty() {
                data = part;
            } else {
                data.to_mut().extend_from_slice(&part);
            }
        }
        let part = WeightPart { format: WeightFormat::F32, rows: 1, data };
        HostWeight { name: name.to_string(), cols: part.data.len() / 4, parts: vec![part] }
    }
}

/// Rows of unquantised elements in another format; borrowed when it is the same.
fn converted(data: Cow<'_, [u8]>, from: WeightFormat, to: WeightFormat, cols: usize) -> Cow<'_, [u8]> {
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
    fn quantised_matrices_stay() {
        use WeightFormat::{Bf16, F16, F32, Q4_1, Q8_0};
        for stored in [F32, F16, Bf16] {
            assert_eq!(Dtype::F16.applied_to(stored), F16);
            assert_eq!(Dtype::Bf16.applied_to(stored), Bf16);
            assert_eq!(Dtype::F32.applied_to(stored), F32);
            assert_eq!(Dtype::Auto.applied_to(stored), stored);
        }
        assert_eq!(Dtype::F16.applied_to(Q8_0), Q8_0);
        assert_eq!(Dtype::F32.applied_to(Q4_1), Q4_1);
    }

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
