// Weights in Q8_0, repacked: a plane of signed bytes [rows][cols] and a plane of f16 scales [rows * cols / 32], two in a u32.
// w = d * q.
@group(0) @binding(1) var<storage, read> weights: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;

fn raw_scale(block: u32) -> u32 { return scales[block >> 1u]; }
fn scale_of(raw: u32, block: u32) -> vec2<f32> {
    let pair = unpack2x16float(raw);
    return vec2<f32>(select(pair.x, pair.y, (block & 1u) == 1u), 0.0);
}
alias RawOctet = vec2<u32>;
fn raw_octet(at: u32) -> RawOctet { return weights[at]; }
fn quants8(w: RawOctet) -> Vec8 { return Vec8(bytes4(w.x), bytes4(w.y)); }
fn unpack_weights(w: RawOctet, scale: vec2<f32>) -> Vec8 {
    let q = quants8(w);
    return Vec8(q.lo * scale.x, q.hi * scale.x);
}
const HAS_MINIMUM = false;
// The sum and the product of an octet with x, from the product of its quants with x.
fn add_scaled(sum: f32, product: f32, x_sum: f32, scale: vec2<f32>) -> f32 { return fma(product, scale.x, sum); }
