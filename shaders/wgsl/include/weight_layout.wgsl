// Where a block of 32 weights lies: WEIGHT_GROUP rows share a group, whose blocks are interleaved; 1 is row-major.
fn block_index(row: u32, block: u32, blocks_per_row: u32) -> u32 {
    return ((row / WEIGHT_GROUP) * blocks_per_row + block) * WEIGHT_GROUP + row % WEIGHT_GROUP;
}
