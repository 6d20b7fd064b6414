//! Which ops of a program become one kernel: a norm before a product is folded into it, and so is the op after it that
//! makes something of its sums, a gate or rope_and_cache.

use super::super::{ActId, Op, Program, WeightId};

/// An op, or a product with what is folded into it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::backend) enum Fused {
    Op(Op),
    Product(Product),
}

/// A matrix product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::backend) struct Product {
    /// Its input; with a norm, where that leaves its output when the kernel does not fold it.
    pub(in crate::backend) x: ActId,
    /// The norm that is folded into it.
    pub(in crate::backend) norm: Option<Norm>,
    pub(in crate::backend) weight: WeightId,
    pub(in crate::backend) bias: Option<WeightId>,
    /// Its own output; with an epilogue, where a kernel that does not fold it leaves the sums.
    pub(in crate::backend) out: ActId,
    pub(in crate::backend) accumulate: bool,
    /// The op after it that is folded into it.
    pub(in crate::backend) epilogue: Option<Op>,
}

/// Bits of [`Product::flags`]: add to out; add the bias.
pub(in crate::backend) const ACCUMULATE: u32 = 1;
pub(in crate::backend) const BIAS: u32 = 2;

impl Product {
    /// What its kernels do beside their sums, as they are told.
    pub(in crate::backend) fn flags(&self) -> u32 {
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        flag(self.accumulate, ACCUMULATE) | flag(self.bias.is_some(), BIAS)
    }
}

/// An [`Op::RmsNorm`] before a product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::backend) struct Norm {
    pub(in crate::backend) x: ActId,
    pub(in crate::backend) weight: WeightId,
    pub(in crate::backend) eps: f32,
}

/// The program with what can be folded folded. `can_end` tells whether a product with this weight can do what the op after it
/// does.
///
/// A folded op's output is never written, so nothing else may read it; and a kernel's output must not be its input, which
/// others of its workgroups still read.
pub(in crate::backend) fn fuse(program: &Program, can_end: impl Fn(WeightId, &Op) -> bool) -> Vec<Fused> {
    let mut fused = Vec::new();
    let mut at = 0;
    while let Some(&op) = program.ops.get(at) {
        let norm = norm_into_product(program, at);
        let product_at = at + usize::from(norm.is_some());
        let Op::MatMul { x, weight, bias, out, accumulate } = program.ops[product_at] else {
            fused.push(Fused::Op(op));
            at += 1;
            continue;
        };
        let product = Product { x, norm, weight, bias, out, accumulate, epilogue: None };
        let epilogue = epilogue_of_product(program, product_at, &product).filter(|op| can_end(weight, op));
        fused.push(Fused::Product(Product { epilogue, ..product }));
        at = product_at + 1 + usize::from(epilogue.is_some());
    }
    fused
}

/// Whether kernels for each part of a weight can do what `op` does with their sums: of gates and ups where all lie in one
/// part, of q, k and v where each has whole heads. `first_rows` are those of the parts.
pub(in crate::backend) fn parts_can_end(op: &Op, head_dim: u32, mut first_rows: impl Iterator<Item = usize>) -> bool {
    match op {
        Op::RopeAndCache { .. } => first_rows.all(|row| row.is_multiple_of(head_dim as usize)),
        _ => first_rows.all(|row| row == 0),
    }
}

/// The norm at `at`, if it can be folded into the product after it.
fn norm_into_product(program: &Program, at: usize) -> Option<Norm> {
    let Op::RmsNorm { x, weight, eps, out: normed } = program.ops[at] else { return None };
    let Some(&Op::MatMul { x: input, out, .. }) = program.ops.get(at + 1) else { return None };
    let fits = input == normed && out != x && is_read_only_by(program, normed, at + 1);
    fits.then_some(Norm { x, weight, eps })
}

/// The op after the product at `at`, if it can be folded into it.
fn epilogue_of_product(program: &Program, at: usize, product: &Product) -> Option<Op> {
    let &op = program.ops.get(at + 1)?;
    let (sums, out) = match op {
        Op::SiluMul { gate_up, out } if product.bias.is_none() => (gate_up, out),
        // To normalise a head takes all of it: more than a product's workgroup has.
        Op::RopeAndCache { qkv, q, norm: None, .. } => (qkv, q),
        _ => return None,
    };
    let fits = sums == product.out
        && !product.accumulate
        && out != product.x
        && product.norm.is_none_or(|norm| out != norm.x)
        && is_read_only_by(program, sums, at + 1);
    fits.then_some(op)
}

/// Whether no op but the one at `reader` reads `activation` before it is overwritten, in this step or the next.
fn is_read_only_by(program: &Program, activation: ActId, reader: usize) -> bool {
    let (before, from) = program.ops.split_at(reader);
    let mut later = from[1..].iter().chain(before);
    let next = later.find(|op| reads(op, activation) || overwrites(op, activation));
    program.logits != Some(activation) && next.is_none_or(|op| !reads(op, activation))
}

fn reads(op: &Op, activation: ActId) -> bool {
    match *op {
        Op::Embed { .. } => false,
        Op::RmsNorm { x, .. } | Op::SelectLogitsRows { x, .. } => x == activation,
        Op::MatMul { x, out, accumulate, .. } => x == activation || (accumulate && out == activation),
        Op::RopeAndCache { qkv, .. } => qkv == activation,
        Op::PagedAttention { q, .. } => q == activation,
        Op::SiluMul { gate_up, .. } => gate_up == activation,
    }
}

fn overwrites(op: &Op, activation: ActId) -> bool {
    match *op {
        Op::MatMul { out, accumulate, .. } => out == activation && !accumulate,
        Op::Embed { out, .. }
        | Op::RmsNorm { out, .. }
        | Op::SelectLogitsRows { out, .. }
        | Op::PagedAttention { out, .. }
        | Op::SiluMul { out, .. } => out == activation,
        Op::RopeAndCache { q, .. } => q == activation,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{AttentionShape, HeadNorm, RopePairing, RopeTable};
    use super::*;

    const NORM: WeightId = WeightId(0);
    const MATRIX: WeightId = WeightId(1);
    const X: ActId = ActId(0);
    const NORMED: ActId = ActId(1);
    const OUT: ActId = ActId(2);
    const GATED: ActId = ActId(3);

    fn program(ops: &[Op]) -> Program {
        let attention = AttentionShape { num_heads: 1, num_kv_heads: 1, head_dim: 16, scale: 1.0 };
        Program { activations: Vec::new(), ops: ops.to_vec(), attention, rope: RopeTable::default(), logits: None }
    }

    fn norm(x: ActId, out: ActId) -> Op {
        Op::RmsNorm { x, weight: NORM, eps: 1e-5, out }
    }

    fn matmul(x: ActId, out: ActId) -> Op {
        Op::MatMul { x, weight: MATRIX, bias: None, out, accumulate: false }
    }

    fn silu(gate_up: ActId, out: ActId) -> Op {
        Op::SiluMul { gate_up, out }
    }

    fn rope(qkv: ActId, q: ActId) -> Op {
        Op::RopeAndCache { layer: 0, qkv, q, pairing: RopePairing::Halves, norm: None }
    }

    /// How many kernels `ops` become.
    fn kernels(ops: &[Op]) -> usize {
        fuse(&program(ops), |_, _| true).len()
    }

    #[test]
    fn norm_product_and_what_follows_become_one() {
        for last in [silu(OUT, GATED), rope(OUT, GATED)] {
            let fused = fuse(&program(&[norm(X, NORMED), matmul(NORMED, OUT), last]), |_, _| true);
            let norm = Some(Norm { x: X, weight: NORM, eps: 1e-5 });
            let epilogue = Some(last);
            let product =
                Product { x: NORMED, norm, weight: MATRIX, bias: None, out: OUT, accumulate: false, epilogue };
            assert_eq!(fused, [Fused::Product(product)]);
        }
    }

    #[test]
    fn what_is_read_again_is_not_folded() {
        assert_eq!(kernels(&[norm(X, NORMED), matmul(NORMED, OUT), matmul(NORMED, GATED)]), 3);
        assert_eq!(kernels(&[norm(X, NORMED), matmul(NORMED, OUT), norm(X, NORMED), matmul(NORMED, GATED)]), 2);
        assert_eq!(kernels(&[matmul(X, OUT), silu(OUT, GATED), norm(OUT, NORMED)]), 3);
        assert_eq!(kernels(&[matmul(X, OUT), rope(OUT, GATED), norm(OUT, NORMED)]), 3);
        // By the next step, before it is written again.
        assert_eq!(kernels(&[matmul(NORMED, GATED), norm(X, NORMED), matmul(NORMED, OUT)]), 3);
        let mut logits = program(&[matmul(X, OUT), silu(OUT, GATED)]);
        logits.logits = Some(OUT);
        assert_eq!(fuse(&logits, |_, _| true).len(), 2);
    }

    #[test]
    fn no_kernel_writes_what_it_reads() {
        let accumulate = Op::MatMul { x: NORMED, weight: MATRIX, bias: None, out: X, accumulate: true };
        assert_eq!(kernels(&[norm(X, NORMED), accumulate]), 2);
        assert_eq!(kernels(&[norm(X, NORMED), matmul(NORMED, OUT), silu(OUT, X)]), 2);
        assert_eq!(kernels(&[matmul(X, OUT), silu(OUT, X)]), 2);
        assert_eq!(kernels(&[matmul(X, OUT), rope(OUT, X)]), 2);
    }

    #[test]
    fn only_a_product_that_can_has_an_epilogue() {
        let biased = Op::MatMul { x: X, weight: MATRIX, bias: Some(NORM), out: OUT, accumulate: false };
        let residual = Op::MatMul { x: X, weight: MATRIX, bias: None, out: OUT, accumulate: true };
        for (last, kernels_if_biased) in [(silu(OUT, GATED), 2), (rope(OUT, GATED), 1)] {
            assert_eq!(fuse(&program(&[matmul(X, OUT), last]), |_, _| false).len(), 2);
            assert_eq!(kernels(&[biased, last]), kernels_if_biased);
            assert_eq!(kernels(&[residual, last]), 2);
        }
    }

    #[test]
    fn heads_are_normalised_by_a_kernel_of_their_own() {
        let norm = Some(HeadNorm { weight: NORM, eps: 1e-5 });
        let rope = Op::RopeAndCache { layer: 0, qkv: OUT, q: GATED, pairing: RopePairing::Halves, norm };
        assert_eq!(kernels(&[matmul(X, OUT), rope]), 2);
    }

    #[test]
    fn parts_have_whole_heads_or_all_gates_and_ups() {
        let ends = |op, first_rows: &[usize]| parts_can_end(&op, 16, first_rows.iter().copied());
        for (first_rows, heads, gates) in
            [(&[0][..], true, true), (&[0, 48, 64], true, false), (&[0, 40], false, false)]
        {
            assert_eq!(ends(rope(OUT, GATED), first_rows), heads, "{first_rows:?}");
            assert_eq!(ends(silu(OUT, GATED), first_rows), gates, "{first_rows:?}");
        }
    }

    #[test]
    fn what_does_not_follow_is_left_alone() {
        assert_eq!(kernels(&[norm(X, NORMED)]), 1);
        assert_eq!(kernels(&[norm(X, NORMED), matmul(X, OUT), silu(NORMED, GATED)]), 3);
    }
}
