// What a lane holds of a block of 32 weights while it multiplies: all of it, the next octet first. One wide load costs less
// than four, but takes registers that more rows of x need.
alias HeldBlock = vec4<u32>;
fn hold_block(block: u32) -> HeldBlock { return weights[block]; }
fn held_octet(held: HeldBlock, scale: vec2<f32>) -> Vec8 { return unpack_weights(held.x, scale); }
fn after_octet(held: HeldBlock) -> HeldBlock { return held.yzwx; }
