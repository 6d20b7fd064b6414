//! Weights in the form in which they go to the device.

use std::borrow::Cow;
use std::fmt;

use super::checkpoint::Checkpoint;
use super::dtype::Dtype;
use super::encoding::converted;
use super::identity::IdentityHasher;
use super::roles::{LayerRole, Linear, TensorRole};
use crate::backend::{HostWeight, WeightFormat, WeightPart};

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

    /// Bytes of all weights as they are uploaded: matrices as their `Encoding` and the chosen
    /// [`Dtype`] say, vectors in F32.
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
            false => self.stored(role).map(|stored| stored.uploaded_as(self.dtype)),
        };
        format.and_then(|format| format.row_bytes(cols)).expect("checked at open") as u64 * rows as u64
    }

    /// Tensors stacked by rows into one matrix, each part as its `Encoding` and the chosen [`Dtype`] say.
    ///
    /// # Panics
    /// If a role is not one of [`TensorRole::all`], or the columns differ: a bug of the model builder.
    pub fn matrix(&self, name: impl fmt::Display, roles: &[TensorRole]) -> HostWeight<'_> {
        let cols = roles[0].shape(&self.config).1;
        let parts = roles.iter().map(|&role| {
            let shape = role.shape(&self.config);
            assert_eq!(shape.1, cols, "columns of {role:?}");
            let found = self.find(role).expect("checked at open");
            let format = found.stored.uploaded_as(self.dtype);
            WeightPart { format, rows: shape.0, data: found.stored.matrix(found.data, self.dtype, cols) }
        });
        HostWeight { name: name.to_string(), cols, parts: parts.collect() }
    }

    /// Format in which most matrices are uploaded: that of the first layer's gate.
    pub fn matrix_format(&self) -> WeightFormat {
        let role = TensorRole::Layer(0, LayerRole::Weight(Linear::Gate));
        self.stored(role).expect("checked at open").uploaded_as(self.dtype)
    }

    /// Vectors (norm weights, biases) put one after the other and converted to F32.
    ///
    /// # Panics
    /// If a role is not one of [`TensorRole::all`]: a bug of the model builder.
    pub fn vector(&self, name: impl fmt::Display, roles: &[TensorRole]) -> HostWeight<'_> {
        let mut data = Cow::Borrowed([].as_slice());
        for &role in roles {
            let found = self.find(role).expect("checked at open");
            let format = found.stored.unquantised().expect("checked at open");
            let part = converted(found.data, format, WeightFormat::F32, role.shape(&self.config).1);
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
