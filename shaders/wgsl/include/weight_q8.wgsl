// Weights in Q8_0, repacked: a plane of signed bytes [rows][cols / 16] and a plane of f16 scales [rows * cols / 32], two in
// a u32. w = d * q.
@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;

fn raw_scale(block: u32) -> u32 { return scales[block >> 1u]; }
fn scale_of(raw: u32, block: u32) -> vec2<f32> {
    let pair = unpack2x16float(raw);
    return vec2<f32>(select(pair.x, pair.y, (block & 1u) == 1u), 0.0);
}
// Signed shifts sign-extend each byte; i32 to f32 is one instruction where u32 to f32 is several.
fn bytes4(w: u32) -> vec4<f32> {
    return vec4<f32>((vec4<i32>(bitcast<i32>(w)) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
}
alias RawOctet = vec2<u32>;
fn raw_octet(at: u32) -> RawOctet {
    let pair = weights[at / 2u];
    return select(pair.xy, pair.zw, (at & 1u) == 1u);
}
fn unpack_weights(w: RawOctet, scale: vec2<f32>) -> Vec8 {
    return Vec8(bytes4(w.x) * scale.x, bytes4(w.y) * scale.x);
}
