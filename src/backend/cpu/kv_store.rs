//! The KV pool on the host.

use super::kernels::KvPool;
use crate::backend::KvLayout;

/// K and V of every layer, each `[num_blocks][num_kv_heads][block_size][head_dim]`.
///
/// Held as f32 whatever the dtype, but every row is rounded to the dtype when it is written.
#[derive(Debug)]
pub struct KvStore {
    layout: KvLayout,
    layers: Vec<Layer>,
}

#[derive(Debug, Clone)]
struct Layer {
    k: Rows,
    v: Rows,
}

/// Rounded rows with their scales, in the order of the pool.
#[derive(Debug, Clone)]
struct Rows {
    values: Vec<f32>,
    scales: Vec<f32>,
}

impl Rows {
    /// Rounds consecutive rows, the first of which becomes row `first`.
    fn write(&mut self, layout: &KvLayout, first: usize, from: &[f32]) {
        let head_dim = layout.head_dim as usize;
        let to = self.values[first * head_dim..].chunks_exact_mut(head_dim).zip(&mut self.scales[first..]);
        for (from, (to, scale)) in from.chunks_exact(head_dim).zip(to) {
            *scale = layout.dtype.round_row(from, to);
        }
    }

    fn copy_within(&mut self, layout: &KvLayout, from: std::ops::Range<usize>, to: usize) {
        let head_dim = layout.head_dim as usize;
        self.values.copy_within(from.start * head_dim..from.end * head_dim, to * head_dim);
        self.scales.copy_within(from, to);
    }
}

impl KvStore {
    /// A pool of zeros.
    pub fn new(layout: KvLayout) -> Self {
        let elements = layout.layer_elements();
        let rows = Rows { values: vec![0.0; elements], scales: vec![0.0; elements / layout.head_dim as usize] };
        let layer = Layer { k: rows.clone(), v: rows };
        Self { layout, layers: vec![layer; layout.num_layers as usize] }
    }

    /// The pool's shape.
    pub const fn layout(&self) -> &KvLayout {
        &self.layout
    }

    /// Bytes of host memory that the pool takes.
    pub fn allocated_bytes(&self) -> u64 {
        let rows = self.layers.iter().flat_map(|layer| [&layer.k, &layer.v]);
        rows.map(|rows| 4 * (rows.values.len() + rows.scales.len()) as u64).sum()
    }

    /// Replaces one layer's whole pool.
    ///
    /// # Panics
    /// If `k` or `v` has not the pool's size.
    pub fn write_layer(&mut self, layer: usize, k: &[f32], v: &[f32]) {
        let elements = self.layout.layer_elements();
        assert_eq!((k.len(), v.len()), (elements, elements), "elements of a layer's K and V pool");
        let to = &mut self.layers[layer];
        to.k.write(&self.layout, 0, k);
        to.v.write(&self.layout, 0, v);
    }

    /// One layer's K and V.
    pub fn read_layer(&self, layer: usize) -> (&[f32], &[f32]) {
        (&self.layers[layer].k.values, &self.layers[layer].v.values)
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
            let row = (block * self.layout.num_kv_heads as usize + head) * block_size + offset;
            let from = head * head_dim..(head + 1) * head_dim;
            layer.k.write(&self.layout, row, &k[from.clone()]);
            layer.v.write(&self.layout, row, &v[from]);
        }
    }

    /// One block of every layer in the pool's dtype: K, then V.
    pub fn read_block(&self, block: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.layout.block_bytes() as usize);
        let head_dim = self.layout.head_dim as usize;
        for rows in self.layers.iter().flat_map(|layer| [&layer.k, &layer.v]) {
            for page in self.rows_of(block).step_by(self.layout.block_size as usize) {
                let page = page..page + self.layout.block_size as usize;
                let values = &rows.values[page.start * head_dim..page.end * head_dim];
                self.layout.dtype.encode_page(values, &rows.scales[page], &mut bytes);
            }
        }
        bytes
    }

    /// Replaces one block of every layer, in the shape of [`KvStore::read_block`].
    pub fn write_block(&mut self, block: u32, bytes: &[u8]) {
        let mut pages = bytes.chunks_exact(self.layout.page_bytes() as usize);
        let head_dim = self.layout.head_dim as usize;
        let of_block = self.rows_of(block);
        for rows in self.layers.iter_mut().flat_map(|layer| [&mut layer.k, &mut layer.v]) {
            for page in of_block.clone().step_by(self.layout.block_size as usize) {
                let page = page..page + self.layout.block_size as usize;
                let values = &mut rows.values[page.start * head_dim..page.end * head_dim];
                let bytes = pages.next().expect("bytes of a whole block");
                self.layout.dtype.decode_page(bytes, values, &mut rows.scales[page]);
            }
        }
    }

    fn rows_of(&self, block: u32) -> std::ops::Range<usize> {
        let rows = (self.layout.num_kv_heads * self.layout.block_size) as usize;
        block as usize * rows..(block as usize + 1) * rows
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
            let (src, dst) = (self.rows_of(src), self.rows_of(dst).start);
            for layer in &mut self.layers {
                layer.k.copy_within(&self.layout, src.clone(), dst);
                layer.v.copy_within(&self.layout, src.clone(), dst);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::KvDtype;

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
    fn a_row_of_bytes_has_its_own_scale() {
        let mut store = store(KvDtype::Int8);
        store.write_slot(0, 1, &[127.0, 1.4, 12.7, 0.1], &[0.0; 4]);
        let (k, _) = store.read_layer(0);
        assert_eq!(k[2..4], [127.0, 1.0]);
        assert!((k[6] - 12.7).abs() < 0.01 && (k[7] - 0.1).abs() < 0.001, "{k:?}");
        let block = store.read_block(0);
        assert_eq!(block.len() as u64, store.layout().block_bytes());
        let before = store.read_layer(0).0.to_vec();
        store.write_block(2, &block);
        assert_eq!(store.read_layer(0).0[16..], before[..8]);
        store.write_block(0, &block);
        assert_eq!(store.read_layer(0).0[..8], before[..8]);
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
