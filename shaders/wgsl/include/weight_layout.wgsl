// Where a block of 32 weights lies: WEIGHT_GROUP rows share a group, whose blocks are interleaved; 1 is row-major.
fn block_index(row: u32, block: u32, blocks_per_row: u32) -> u32 {
    return ((row / WEIGHT_GROUP) * blocks_per_row + block) * WEIGHT_GROUP + row % WEIGHT_GROUP;
}
// Where octet `octet` of a row lies whose block 0 is at `first_block`, and its block.
fn octet_index(first_block: u32, octet: u32) -> u32 {
    if (WEIGHT_GROUP == 1u) { return 4u * first_block + octet; }
    return 4u * block_of_octet(first_block, octet) + octet % 4u;
}
fn block_of_octet(first_block: u32, octet: u32) -> u32 { return first_block + octet / 4u * WEIGHT_GROUP; }
fn block_scale(block: u32) -> vec2<f32> { return scale_of(raw_scale(block), block); }
// Octet `at` of the weights, from block * 4 on; its words can be loaded long before they are unpacked.
fn weights8(at: u32, scale: vec2<f32>) -> Vec8 { return unpack_weights(raw_octet(at), scale); }
