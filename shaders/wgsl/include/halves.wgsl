// Octets as cooperative matrices take them.
struct Halves {
    lo: vec4<f16>,
    hi: vec4<f16>,
}
// Large values become the largest f16, not infinity.
fn halves4(v: vec4<f32>) -> vec4<f16> { return vec4<f16>(clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0))); }
fn halves8(v: Vec8) -> Halves { return Halves(halves4(v.lo), halves4(v.hi)); }
// Four halves that two words hold.
fn halves_in(words: vec2<u32>) -> vec4<f16> {
    return vec4<f16>(vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y)));
}
