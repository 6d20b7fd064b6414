// SwiGLU's product (Shazeer 2020): gate and up are the two parts of one weight, out = silu(gate) * up.
const PARTS = 2u;
fn combined(first: f32, last: f32) -> f32 { return first / (1.0 + exp(-first)) * last; }
