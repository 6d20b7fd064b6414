// SwiGLU's product (Shazeer 2020): gate and up are the two halves of one weight, out = silu(gate) * up.
const PARTS = 2u;
const WIDTH = 1u;
fn weight_row(col: u32, part: u32) -> u32 { return part * params.cols + min(col, params.cols - 1u); }
fn finish(row: u32, col: u32, sums: Sums) { write_out(row, col, sums[0] / (1.0 + exp(-sums[0])) * sums[1]); }
