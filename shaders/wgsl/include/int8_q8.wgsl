// Weights in Q8_0 times int8: the two words of an octet are its bytes as they come.
fn weight_words(block: u32, octet: u32) -> vec2<u32> {
    return raw_octet(4u * block + octet);
}
// A sum with the integer product of an octet. There is no minimum.
fn add_product(sum: f32, product: i32, scale: vec2<f32>, step: vec2<f32>, octet: u32) -> f32 {
    return fma(f32(product), scale.x * step.x, sum);
}
