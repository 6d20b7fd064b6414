// Rotates q and k and writes k and v to their slots in a KV pool of floats.
@group(0) @binding(4) var<storage, read_write> k_pool: array<KvQuad>; // [block][KV_HEADS] pages
@group(0) @binding(5) var<storage, read_write> v_pool: array<KvQuad>; // the same shape

@compute @workgroup_size(WG)
fn rope_and_cache(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let row = wg.x * (WG / LANES) + li / LANES;
    let head = min(row, ALL_HEADS - 1u);
    let j = li % LANES;
    let token = wg.y;
    let v = rotated(token, head, j, li);
    if (row >= ALL_HEADS) { return; }
    if (head < HEADS) {
        let at = (token * HEADS + head) * ROW_QUADS + j;
        q[at] = v.lo;
        q[at + HALF] = v.hi;
        return;
    }
    let s = slot(token);
    let at = quad_at(page_of(s / BLOCK_SIZE, (head - HEADS) % KV_HEADS), s % BLOCK_SIZE) + j;
    if (head < HEADS + KV_HEADS) {
        k_pool[at] = pack_quad(v.lo);
        k_pool[at + HALF] = pack_quad(v.hi);
    } else {
        v_pool[at] = pack_quad(v.lo);
        v_pool[at + HALF] = pack_quad(v.hi);
    }
}
