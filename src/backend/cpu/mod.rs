//! The reference backend: it defines what every kernel computes, and is as plain as it can be.
//!
//! Activations are f32, every sum is f64, the KV pool is rounded to its dtype. One thread, no device. The maths of each
//! kernel stands in [`kernels`] and [`draw`]; this file only finds the operands. Good for tests and for small models, not for speed.

pub mod draw;
pub mod kernels;
mod kv_store;
mod ops;

use kv_store::KvStore;
use std::collections::VecDeque;

use super::{
    ActId, Backend, BackendError, DeviceMemory, HostWeight, KvLayout, Program, Rows, StepInput, StepLimits, StepOutput,
    WeightFormat, WeightId, dequantize_row,
};

/// The reference implementation of [`Backend`], on the host.
#[derive(Debug, Default)]
pub struct CpuBackend {
    weights: Vec<CpuWeight>,
    model: Option<Model>,
    /// Of the last step, those fed by the one before in place.
    token_ids: Vec<u32>,
    /// Of the last step.
    last: StepOutput,
    /// Steps that have not been collected.
    done: VecDeque<StepOutput>,
}

/// A weight in the formats of its file.
#[derive(Debug)]
struct CpuWeight {
    name: String,
    cols: usize,
    parts: Vec<Part>,
}

/// Consecutive rows of one format.
#[derive(Debug)]
struct Part {
    format: WeightFormat,
    rows: usize,
    data: Vec<u8>,
}

/// What [`Backend::prepare`] makes.
#[derive(Debug)]
struct Model {
    program: Program,
    limits: StepLimits,
    activations: Vec<Vec<f32>>,
    kv: KvStore,
}

impl CpuBackend {
    /// A backend without weights.
    pub fn new() -> Self {
        Self::default()
    }

    fn model(&self) -> &Model {
        self.model.as_ref().expect("prepare() comes first")
    }

    fn model_mut(&mut self) -> &mut Model {
        self.model.as_mut().expect("prepare() comes first")
    }
}

impl CpuWeight {
    fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows).sum()
    }

    /// Calls `f(row, values)` for every row in order.
    fn for_each_row(&self, mut f: impl FnMut(usize, &[f32])) {
        let mut values = vec![0.0; self.cols];
        for row in 0..self.rows() {
            self.read_row(row, &mut values);
            f(row, &values);
        }
    }

    /// Decodes one row into `values`, `[cols]`.
    fn read_row(&self, row: usize, values: &mut [f32]) {
        let mut first_row = 0;
        for part in &self.parts {
            if row < first_row + part.rows {
                let row_bytes = part.data.len() / part.rows;
                return dequantize_row(part.format, &part.data[(row - first_row) * row_bytes..][..row_bytes], values);
            }
            first_row += part.rows;
        }
        panic!("row {row} of weight {}, which has {first_row}", self.name);
    }

    /// The only row of a vector (norm weight, bias).
    fn vector(&self) -> Vec<f32> {
        assert_eq!(self.rows(), 1, "rows of weight {}, used as a vector", self.name);
        let mut values = vec![0.0; self.cols];
        self.read_row(0, &mut values);
        values
    }
}

impl Backend for CpuBackend {
    fn description(&self) -> String {
        "cpu: reference kernels, one thread, f64 accumulation".to_owned()
    }

    fn upload_weight(&mut self, weight: &HostWeight<'_>) -> Result<WeightId, BackendError> {
        for part in &weight.parts {
            let Some(row_bytes) = part.format.row_bytes(weight.cols) else {
                let (name, cols, format) = (&weight.name, weight.cols, part.format);
                return Err(BackendError::Unsupported(format!(
                    "weight {name}: rows of {cols} elements are not whole {format:?} blocks of {}",
                    format.block_len()
                )));
            };
            assert_eq!(part.data.len(), part.rows * row_bytes, "bytes of weight {}", weight.name);
        }
        let parts = weight.parts.iter().filter(|part| part.rows > 0);
        self.weights.push(CpuWeight {
            name: weight.name.clone(),
            cols: weight.cols,
            parts: parts.map(|p| Part { format: p.format, rows: p.rows, data: p.data.to_vec() }).collect(),
        });
        Ok(WeightId(self.weights.len() as u32 - 1))
    }

    fn prepare(&mut self, program: Program, kv: KvLayout, limits: StepLimits) -> Result<(), BackendError> {
        let heads = &program.attention;
        assert!(heads.num_heads.is_multiple_of(heads.num_kv_heads), "key heads divide query heads");
        assert_eq!((kv.num_kv_heads, kv.head_dim), (heads.num_kv_heads, heads.head_dim), "heads of the KV pool");
        let elements = |rows: Rows, cols: u32| match rows {
            Rows::Tokens => limits.max_tokens as usize * cols as usize,
            Rows::Logits => limits.max_logits_rows as usize * cols as usize,
        };
        let activations = program.activations.iter().map(|a| vec![0.0; elements(a.rows, a.cols)]).collect();
        self.model = Some(Model { program, limits, activations, kv: KvStore::new(kv) });
        Ok(())
    }

    fn submit(&mut self, input: &StepInput<'_>) -> Result<(), BackendError> {
        let model = self.model.as_mut().expect("prepare() comes first");
        let layout = *model.kv.layout();
        input.check(layout.num_blocks, layout.block_size, &model.limits);
        self.last.feed(input, &mut self.token_ids);
        let input = &StepInput { token_ids: &self.token_ids, ..*input };
        model.kv.copy_blocks(input.block_copies);
        for index in 0..model.program.ops.len() {
            let op = model.program.ops[index];
            model.run(&op, &self.weights, input);
        }
        model.output(input, &mut self.last);
        self.done.push_back(self.last.clone());
        Ok(())
    }

    fn collect(&mut self, output: &mut StepOutput) -> Result<(), BackendError> {
        *output = self.done.pop_front().expect("submit() comes before collect()");
        Ok(())
    }

    fn write_activation(&mut self, activation: ActId, values: &[f32]) -> Result<(), BackendError> {
        self.model_mut().activations[activation.0 as usize][..values.len()].copy_from_slice(values);
        Ok(())
    }

    fn read_activation(&mut self, activation: ActId, len: usize) -> Result<Vec<f32>, BackendError> {
        Ok(self.model().activations[activation.0 as usize][..len].to_vec())
    }

    fn write_kv(&mut self, layer: usize, k: &[f32], v: &[f32]) -> Result<(), BackendError> {
        self.model_mut().kv.write_layer(layer, k, v);
        Ok(())
    }

    fn read_kv(&mut self, layer: usize) -> Result<(Vec<f32>, Vec<f32>), BackendError> {
        let (k, v) = self.model().kv.read_layer(layer);
        Ok((k.to_vec(), v.to_vec()))
    }

    fn read_blocks(&mut self, blocks: &[u32]) -> Result<Vec<u8>, BackendError> {
        Ok(blocks.iter().flat_map(|&block| self.model().kv.read_block(block)).collect())
    }

    fn write_blocks(&mut self, blocks: &[u32], bytes: &[u8]) -> Result<(), BackendError> {
        let kv = &mut self.model_mut().kv;
        let block_bytes = kv.layout().block_bytes() as usize;
        assert_eq!(bytes.len(), blocks.len() * block_bytes, "bytes of {} blocks", blocks.len());
        blocks.iter().zip(bytes.chunks_exact(block_bytes)).for_each(|(&block, bytes)| kv.write_block(block, bytes));
        Ok(())
    }

    fn memory(&self) -> DeviceMemory {
        DeviceMemory { total_bytes: None, is_software: true, max_buffer_bytes: u64::MAX }
    }

    fn allocated_bytes(&self) -> u64 {
        let weights: usize = self.weights.iter().flat_map(|weight| &weight.parts).map(|part| part.data.len()).sum();
        let model = self.model.as_ref().map_or(0, |model| {
            4 * model.activations.iter().map(Vec::len).sum::<usize>() as u64 + model.kv.allocated_bytes()
        });
        weights as u64 + model
    }
}
