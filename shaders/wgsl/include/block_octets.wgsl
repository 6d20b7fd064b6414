// What a lane holds of a block of 32 weights while it multiplies: only where the next octet lies, which is loaded when its
// turn comes.
alias HeldBlock = u32;
fn hold_block(block: u32) -> HeldBlock { return 4u * block; }
fn held_octet(held: HeldBlock, scale: vec2<f32>) -> Vec8 { return weights8(held, scale); }
fn after_octet(held: HeldBlock) -> HeldBlock { return held + 1u; }
