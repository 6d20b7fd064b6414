// What the elements of a row are to be multiplied with.
const SCALES_AT = BLOCK_SIZE * ROW_OCTETS; // octets of a page before its scales
fn scale_in(quads: vec2<u32>, offset: u32) -> f32 {
    let halves = unpack2x16float(select(quads.x, quads.y, (offset & 2u) == 2u));
    return select(halves.x, halves.y, (offset & 1u) == 1u);
}
fn k_scale(page: u32, offset: u32) -> f32 { return scale_in(k_pool[octet_at(page, 0u) + SCALES_AT + offset / 4u], offset); }
fn v_scale(page: u32, offset: u32) -> f32 { return scale_in(v_pool[octet_at(page, 0u) + SCALES_AT + offset / 4u], offset); }
