// Weights in Q4_1 as halves: under the exponent of 1024 the ten bits of the fraction count by one, and by a sixteenth under that
// of 64, so that nibbles stand for themselves in the lowest four bits there, in the next four here. Two nibbles of a word that
// are four apart come together, and the columns of x in the same order. w = d * (q - 8) + (m + 8 d): where products are rounded
// before the sum, what is rounded is half as large.
fn weight_halves(w: RawOctet, scale: vec2<f32>) -> Halves {
    let d = vec4<f16>(f16(scale.x));
    let middle = vec4<f16>(f16(fma(8.0, scale.x, scale.y)));
    return Halves(fma(nibbles_in(w), d, middle), fma(nibbles_in(w >> 8u), d, middle));
}
// Less 8.
fn nibbles_in(w: u32) -> vec4<f16> {
    let words = (vec2<u32>(w) & vec2<u32>(0x000f000fu, 0x00f000f0u)) | vec2<u32>(0x64006400u, 0x54005400u);
    return halves_in(words) - vec4<f16>(1032.0, 1032.0, 72.0, 72.0);
}
fn x_halves(v: Vec8) -> Halves {
    return halves8(Vec8(vec4<f32>(v.lo.x, v.hi.x, v.lo.y, v.hi.y), vec4<f32>(v.lo.z, v.hi.z, v.lo.w, v.hi.w)));
}
