// Weights in f32: [rows][cols / 8] pairs of vec4.
@group(0) @binding(1) var<storage, read> weights: array<vec4<f32>>;

fn raw_scale(block: u32) -> u32 { return 0u; }
fn scale_of(raw: u32, block: u32) -> vec2<f32> { return vec2<f32>(0.0); }
alias RawOctet = Vec8;
fn raw_octet(at: u32) -> RawOctet { return Vec8(weights[2u * at], weights[2u * at + 1u]); }
fn unpack_weights(raw: RawOctet, scale: vec2<f32>) -> Vec8 { return raw; }
fn quants8(w: RawOctet) -> Vec8 { return unpack_weights(w, vec2<f32>(0.0)); }
const HAS_MINIMUM = false;
fn add_scaled(sum: f32, product: f32, x_sum: f32, scale: vec2<f32>) -> f32 { return sum + product; }
