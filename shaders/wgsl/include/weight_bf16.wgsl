// Weights in bfloat16: [rows][cols / 8], eight of them in a vec4<u32>, the lower half first. Widening is exact.
@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;

fn raw_scale(block: u32) -> u32 { return 0u; }
fn scale_of(raw: u32, block: u32) -> vec2<f32> { return vec2<f32>(0.0); }
fn widen(w: u32) -> vec2<f32> { return bitcast<vec2<f32>>(vec2<u32>(w << 16u, w & 0xffff0000u)); }
alias RawOctet = vec4<u32>;
fn raw_octet(at: u32) -> RawOctet { return weights[at]; }
fn unpack_weights(w: RawOctet, scale: vec2<f32>) -> Vec8 {
    return Vec8(vec4<f32>(widen(w.x), widen(w.y)), vec4<f32>(widen(w.z), widen(w.w)));
}
fn quants8(w: RawOctet) -> Vec8 { return unpack_weights(w, vec2<f32>(0.0)); }
const HAS_MINIMUM = false;
fn add_scaled(sum: f32, product: f32, x_sum: f32, scale: vec2<f32>) -> f32 { return sum + product; }
