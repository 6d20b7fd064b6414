// A product's input under RMS normalisation (Zhang and Sennrich 2019): the norm's weight goes to each x, and the inverse root
// of the mean square, the same for a whole row, to the finished sum. So the squares are summed on the way.
const NORMED = true;
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;           // [R][blocks * 8]
@group(0) @binding(4) var<storage, read> norm_weight: array<vec4<f32>>; // [blocks * 8]
fn weighted(v: vec4<f32>, quad: u32) -> vec4<f32> { return v * norm_weight[quad]; }
// Spelled out, so that every kernel rounds alike.
fn add_squares(sum: f32, v: vec4<f32>) -> f32 { return fma(v.w, v.w, fma(v.z, v.z, fma(v.y, v.y, fma(v.x, v.x, sum)))); }
fn inverse_rms(squares: f32) -> f32 { return 1.0 / sqrt(squares / f32(params.blocks * 32u) + params.norm_eps); }
