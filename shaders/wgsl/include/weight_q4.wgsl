// Weights in Q4_1 (and Q4_0, whose minimum is -8 d exactly), repacked: a plane of nibbles [rows][cols / 32], 32
// consecutive ones in four words from the lowest bits of the first up, and a plane of f16 pairs (d, m) [rows][cols / 32].
// w = d * q + m.
@group(0) @binding(2) var<storage, read> scales: array<u32>;

fn raw_scale(block: u32) -> u32 { return scales[block]; }
fn scale_of(raw: u32, block: u32) -> vec2<f32> { return unpack2x16float(raw); }
// Conversions of integers are slow on many GPUs. Under the exponents of 2^23, 2^19, 2^15 and 2^11 a fraction's bits 0, 4, 8 and
// 12 count by one, so that nibbles stand for themselves there.
fn nibbles4(w: u32) -> vec4<f32> {
    let fractions = vec4<u32>(w) & vec4<u32>(0xfu, 0xf0u, 0xf00u, 0xf000u);
    let above = bitcast<vec4<f32>>(fractions | vec4<u32>(0x4b000000u, 0x49000000u, 0x47000000u, 0x45000000u));
    return above - vec4<f32>(8388608.0, 524288.0, 32768.0, 2048.0);
}
alias RawOctet = u32;
fn quants8(w: RawOctet) -> Vec8 { return Vec8(nibbles4(w), nibbles4(w >> 16u)); }
fn unpack_weights(w: RawOctet, scale: vec2<f32>) -> Vec8 {
    let q = quants8(w);
    let d = vec4<f32>(scale.x);
    let m = vec4<f32>(scale.y);
    return Vec8(fma(q.lo, d, m), fma(q.hi, d, m));
}
const HAS_MINIMUM = true;
// The sum and the product of an octet with x, from the product of its quants with x and the sum of x.
fn add_scaled(sum: f32, product: f32, x_sum: f32, scale: vec2<f32>) -> f32 {
    return fma(product, scale.x, fma(x_sum, scale.y, sum));
}
