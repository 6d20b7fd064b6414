// Weights in Q4_1 times int8: the two words of an octet are its even and its odd nibbles.
fn weight_words(block: u32, octet: u32) -> vec2<u32> {
    let w = raw_octet(4u * block + octet);
    return vec2<u32>(w, w >> 4u) & vec2<u32>(0x0f0f0f0fu);
}
// A sum with the integer product of an octet, and with what the block's minimum comes to if this is its first octet.
fn add_product(sum: f32, product: i32, scale: vec2<f32>, step: vec2<f32>, octet: u32) -> f32 {
    return fma(f32(product), scale.x * step.x, fma(select(0.0, scale.y, octet == 0u), step.y, sum));
}
