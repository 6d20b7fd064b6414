//! The KV pool on the host.

use half::f16;

use super::kernels::KvPool;
use crate::backend::{KvDtype, KvLayout};

/// K and V of every layer, each `[num_blocks][num_kv_heads][block_size][head_dim]`.
///
/// Held as f32 whatever the dtype, but every value is rounded to the dtype when it is written.
#[derive(Debug)]
pub struct KvStore {
    layout: KvLayout,
    layers: Vec<Layer>,
}

#[derive(Debug, Clone)]
struct Layer {
    k: Vec<f32>,
    v: Vec<f32>,
}

impl KvStore {
    /// A pool of zeros.
    pub fn new(layout: KvLayout) -> Self {
        let elements = (layout.layer_bytes() / layout.dtype.bytes()) as usize;
        let layer = Layer { k: vec![0.0; elements], v: vec![0.0; elements] };
        Self { layout, layers: vec![layer; layout.num_layers as usize] }
    }

    /// The pool's shape.
    pub const fn layout(&self) -> &KvLayout {
        &self.layout
    }

    /// Bytes of host memory that the pool takes.
    pub fn allocated_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| 4 * (layer.k.len() + layer.v.len()) as u64).sum()
    }

    /// Replaces one layer's whole pool.
    ///
    /// # Panics
    /// If `k` or `v` has not the pool's size.
    pub fn write_layer(&mut self, layer: usize, k: &[f32], v: &[f32]) {
        let to = &mut self.layers[layer];
        assert_eq!((k.len(), v.len()), (to.k.len(), to.v.len()), "elements of a layer's K and V pool");
        round_into(self.layout.dtype, k, &mut to.k);
        round_into(self.layout.dtype, v, &mut to.v);
    }

    /// One layer's K and V.
    pub fn read_layer(&self, layer: usize) -> (&[f32], &[f32]) {
        (&self.layers[layer].k, &self.layers[layer].v)
    }

    /// One layer as the attention reads it.
    pub fn pool(&self, layer: usize) -> KvPool<'_> {
        let (k, v) = self.read_layer(layer);
        KvPool { k, v, block_size: self.layout.block_size as usize }
    }

    /// Writes one token's K and V, `[num_kv_heads][head_dim]` each, to its slot.
    pub fn write_slot(&mut self, layer: usize, slot: u32, k: &[f32], v: &[f32]) {
        let head_dim = self.layout.head_dim as usize;
        let block_size = self.layout.block_size as usize;
        let (block, offset) = (slot as usize / block_size, slot as usize % block_size);
        let layer = &mut self.layers[layer];
        for head in 0..self.layout.num_kv_heads as usize {
            let to = ((block * self.layout.num_kv_heads as usize + head) * block_size + offset) * head_dim;
            let from = head * head_dim..(head + 1) * head_dim;
            round_into(self.layout.dtype, &k[from.clone()], &mut layer.k[to..to + head_dim]);
            round_into(self.layout.dtype, &v[from], &mut layer.v[to..to + head_dim]);
        }
    }

    /// One block of every layer in the pool's dtype: K, then V.
    pub fn read_block(&self, block: u32) -> Vec<u8> {
        let pools = self.layers.iter().flat_map(|layer| [&layer.k, &layer.v]);
        let values = pools.flat_map(|pool| &pool[self.elements_of(block)]);
        match self.layout.dtype {
            KvDtype::F32 => values.flat_map(|value| value.to_le_bytes()).collect(),
            KvDtype::F16 => values.flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
        }
    }

    /// Replaces one block of every layer, in the shape of [`KvStore::read_block`].
    pub fn write_block(&mut self, block: u32, bytes: &[u8]) {
        let at = self.elements_of(block);
        let dtype = self.layout.dtype;
        let pools = self.layers.iter_mut().flat_map(|layer| [&mut layer.k, &mut layer.v]);
        for (pool, bytes) in pools.zip(bytes.chunks_exact(at.len() * dtype.bytes() as usize)) {
            for (value, bytes) in pool[at.clone()].iter_mut().zip(bytes.chunks_exact(dtype.bytes() as usize)) {
                *value = match dtype {
                    KvDtype::F32 => bytemuck::pod_read_unaligned(bytes),
                    KvDtype::F16 => bytemuck::pod_read_unaligned::<f16>(bytes).to_f32(),
                };
            }
        }
    }

    fn elements_of(&self, block: u32) -> std::ops::Range<usize> {
        let elements = (self.layout.num_kv_heads * self.layout.block_size * self.layout.head_dim) as usize;
        block as usize * elements..(block as usize + 1) * elements
    }

    /// Copies whole blocks in every layer; no `dst` may be a `src`, so the order does not matter.
    ///
    /// # Panics
    /// If a `dst` is also a `src`, or stands twice.
    pub fn copy_blocks(&mut self, copies: &[(u32, u32)]) {
        for (i, &(_, dst)) in copies.iter().enumerate() {
            assert!(copies.iter().all(|&(src, _)| src != dst), "block {dst} is copied to and from in one step");
            assert!(copies[..i].iter().all(|&(_, other)| other != dst), "block {dst} is copied to twice in one step");
        }
        for &(src, dst) in copies {
            let (src, dst) = (self.elements_of(src), self.elements_of(dst).start);
            for layer in &mut self.layers {
                layer.k.copy_within(src.clone(), dst);
                layer.v.copy_within(src.clone(), dst);
            }
        }
    }
}

/// Rounds to nearest, ties to even, after a clamp to the finite range of the dtype; NaN stays NaN.
fn round_into(dtype: KvDtype, from: &[f32], to: &mut [f32]) {
    match dtype {
        KvDtype::F32 => to.copy_from_slice(from),
        KvDtype::F16 => {
            for (to, from) in to.iter_mut().zip(from) {
                *to = f16::from_f32(from.clamp(-65504.0, 65504.0)).to_f32();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(dtype: KvDtype) -> KvStore {
        KvStore::new(KvLayout { num_layers: 2, num_blocks: 3, block_size: 2, num_kv_heads: 2, head_dim: 2, dtype })
    }

    #[test]
    fn a_slot_lands_in_each_heads_rows() {
        let mut store = store(KvDtype::F32);
        store.write_slot(1, 3, &[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0, 7.0, 8.0]);
        let (k, v) = store.read_layer(1);
        // Block 1, offset 1: head 0 at (1 * 2 + 0) * 4 + 2, head 1 at (1 * 2 + 1) * 4 + 2.
        assert_eq!((&k[10..12], &k[14..16]), (&[1.0, 2.0][..], &[3.0, 4.0][..]));
        assert_eq!((&v[10..12], &v[14..16]), (&[5.0, 6.0][..], &[7.0, 8.0][..]));
        assert_eq!(k.iter().filter(|&&k| k != 0.0).count(), 4);
        assert!(store.read_layer(0).0.iter().all(|&k| k == 0.0));
    }

    #[test]
    fn f16_rounds_and_clamps() {
        let mut store = store(KvDtype::F16);
        store.write_slot(0, 0, &[1e6, -1e6, 1.0 + 1.0 / 4096.0, f32::NAN], &[0.0; 4]);
        let (k, _) = store.read_layer(0);
        assert_eq!((k[0], k[1], k[4]), (65504.0, -65504.0, 1.0));
        assert!(k[5].is_nan());
    }

    #[test]
    fn copies_reach_every_layer() {
        let mut store = store(KvDtype::F32);
        let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
        for layer in 0..2 {
            store.write_layer(layer, &values, &values);
        }
        store.copy_blocks(&[(0, 2), (0, 1)]);
        for layer in 0..2 {
            let (k, v) = store.read_layer(layer);
            assert_eq!((&k[8..16], &v[16..24]), (&values[..8], &values[..8]));
        }
    }

    #[test]
    #[should_panic(expected = "copied to and from")]
    fn a_chain_of_copies_is_a_bug() {
        store(KvDtype::F32).copy_blocks(&[(0, 1), (1, 2)]);
    }
}
