// Products of Q4_1 and int8.

// Word k of a block of weights, and the two words of an octet.
fn raw_word(raw: RawBlock, k: u32) -> u32 { return (raw[k / 2u] >> (4u * (k % 2u))) & 0x0f0f0f0fu; }
fn weight_words(block: u32, octet: u32) -> vec2<u32> {
    let w = weights[block][octet];
    return vec2<u32>(w, w >> 4u) & vec2<u32>(0x0f0f0f0fu);
}
// A sum with the integer product of a block, or of a part of it, and this share of what its minimum comes to.
fn add_product(sum: f32, product: i32, scale: vec2<f32>, step: vec2<f32>, share: f32) -> f32 {
    return fma(f32(product), scale.x * step.x, fma(scale.y * share, step.y, sum));
}
