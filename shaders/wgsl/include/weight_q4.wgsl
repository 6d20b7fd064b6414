// Weights in Q4_1 (and Q4_0, whose minimum is -8 d exactly), repacked: a plane of nibbles [rows][cols / 32], 32
// consecutive ones in a vec4 from its lowest bits up, and a plane of f16 pairs (d, m) [rows][cols / 32]. w = d * q + m.
@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;

fn raw_scale(block: u32) -> u32 { return scales[block]; }
fn scale_of(raw: u32, block: u32) -> vec2<f32> { return unpack2x16float(raw); }
// Through i32, because i32 to f32 is one instruction where u32 to f32 is several.
fn nibbles4(w: u32, scale: vec2<f32>) -> vec4<f32> {
    let q = vec4<i32>((vec4<u32>(w) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u));
    return fma(vec4<f32>(q), vec4<f32>(scale.x), vec4<f32>(scale.y));
}
alias RawOctet = u32;
fn raw_octet(at: u32) -> RawOctet { return weights[at / 4u][at % 4u]; }
fn unpack_weights(w: RawOctet, scale: vec2<f32>) -> Vec8 {
    return Vec8(nibbles4(w, scale), nibbles4(w >> 16u, scale));
}
