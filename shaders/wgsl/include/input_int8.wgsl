// A product's input as `quantize_rows` leaves it: a block of 32 in two vec4, and its (d, d * sum of q), where x = d * q.
@group(0) @binding(3) var<storage, read> quants: array<vec4<u32>>; // [R][blocks * 2]
@group(0) @binding(4) var<storage, read> steps: array<vec2<f32>>;  // [R][blocks]
// A norm came before it.
const NORMED = false;
fn inverse_rms(squares: f32) -> f32 { return 1.0; }
