// Weights in f32: [rows][cols / 8] pairs of vec4.
@group(0) @binding(1) var<storage, read> weights: array<vec4<f32>>;

fn raw_scale(block: u32) -> u32 { return 0u; }
fn scale_of(raw: u32, block: u32) -> vec2<f32> { return vec2<f32>(0.0); }
alias RawOctet = Vec8;
fn raw_octet(at: u32) -> RawOctet { return Vec8(weights[2u * at], weights[2u * at + 1u]); }
fn unpack_weights(raw: RawOctet, scale: vec2<f32>) -> Vec8 { return raw; }

// A whole block of 32, one of the eight weights of its first octet, and the block with the next octet first: for kernels
// that unroll over the octet and load as much as they can at once.
alias RawBlock = array<vec4<f32>, 8>;
fn raw_block(block: u32) -> RawBlock {
    let at = 8u * block;
    return RawBlock(
        weights[at], weights[at + 1u], weights[at + 2u], weights[at + 3u],
        weights[at + 4u], weights[at + 5u], weights[at + 6u], weights[at + 7u],
    );
}
fn raw_weight(raw: RawBlock, e: u32, scale: vec2<f32>) -> f32 { return raw[e / 4u][e % 4u]; }
fn next_octet(raw: RawBlock) -> RawBlock {
    return RawBlock(raw[2], raw[3], raw[4], raw[5], raw[6], raw[7], raw[0], raw[1]);
}
