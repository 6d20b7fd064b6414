// A product's input as it is.
const NORMED = false;
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>; // [R][blocks * 8]
fn weighted(v: vec4<f32>, quad: u32) -> vec4<f32> { return v; }
fn add_squares(sum: f32, v: vec4<f32>) -> f32 { return 0.0; }
fn inverse_rms(squares: f32) -> f32 { return 1.0; }
