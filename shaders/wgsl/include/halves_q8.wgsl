// Weights in Q8_0 as halves: under the exponent of 1024 the ten bits of the fraction count by one, so a byte q + 128 there is
// 1152 + q. Two bytes of a word that are two apart come together, and the columns of x in the same order.
fn weight_halves(w: RawOctet, scale: vec2<f32>) -> Halves {
    let d = vec4<f16>(f16(scale.x));
    return Halves(bytes_in(w.x) * d, bytes_in(w.y) * d);
}
fn bytes_in(w: u32) -> vec4<f16> {
    return halves_in((vec2<u32>(w, w >> 8u) & vec2<u32>(0x00ff00ffu)) ^ vec2<u32>(0x64806480u)) - vec4<f16>(1152.0);
}
fn x_halves(v: Vec8) -> Halves { return halves8(Vec8(v.lo.xzyw, v.hi.xzyw)); }
