// What the elements of a row are to be multiplied with.
const SCALES_AT = BLOCK_SIZE * ROW_OCTETS; // octets of a page before its scales
alias RawScale = vec2<u32>;
fn scale_in(quads: RawScale, offset: u32) -> f32 {
    let halves = unpack2x16float(select(quads.x, quads.y, (offset & 2u) == 2u));
    return select(halves.x, halves.y, (offset & 1u) == 1u);
}
fn raw_k_scale(page: u32, offset: u32) -> RawScale { return k_pool[octet_at(page, 0u) + SCALES_AT + offset / 4u]; }
fn raw_v_scale(page: u32, offset: u32) -> RawScale { return v_pool[octet_at(page, 0u) + SCALES_AT + offset / 4u]; }
fn k_scale(page: u32, offset: u32) -> f32 { return scale_in(raw_k_scale(page, offset), offset); }
fn v_scale(page: u32, offset: u32) -> f32 { return scale_in(raw_v_scale(page, offset), offset); }
