// Products of Q8_0 and int8.

// Word k of a block of weights, and the two words of an octet.
fn raw_word(raw: RawBlock, k: u32) -> u32 { return raw[k / 4u][k % 4u]; }
fn weight_words(block: u32, octet: u32) -> vec2<u32> {
    let pair = weights[2u * block + octet / 2u];
    return select(pair.xy, pair.zw, (octet & 1u) == 1u);
}
// A sum with the integer product of a block, or of a part of it, and this share of what its minimum comes to.
fn add_product(sum: f32, product: i32, scale: vec2<f32>, step: vec2<f32>, share: f32) -> f32 {
    return fma(f32(product), scale.x * step.x, sum);
}
