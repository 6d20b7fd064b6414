// Rotates q and k and writes k and v to their slots in a KV pool of bytes, each row with its scale. A workgroup holds whole
// heads, since the scale follows from the largest element of a row. Words are atomic because two tokens of a step may share
// a word of scales: each writes its own half.
@group(0) @binding(4) var<storage, read_write> k_pool: array<atomic<u32>>; // [block][KV_HEADS] pages
@group(0) @binding(5) var<storage, read_write> v_pool: array<atomic<u32>>; // the same shape

const INT8_MAX = 127.0;
var<workgroup> largest: array<f32, WG>;

fn largest_of(v: vec4<f32>) -> f32 {
    let a = abs(v);
    return max(max(a.x, a.y), max(a.z, a.w));
}

// Ties to even, as the reference rounds.
fn pack_bytes(v: vec4<f32>, scale: f32) -> KvQuad {
    if (scale == 0.0) { return 0u; }
    return pack4xI8(vec4<i32>(clamp(round(v / scale), vec4<f32>(-INT8_MAX), vec4<f32>(INT8_MAX))));
}

@compute @workgroup_size(WG)
fn rope_and_cache_int8(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let row = wg.x * (WG / LANES) + li / LANES;
    let head = min(row, ALL_HEADS - 1u);
    let j = li % LANES;
    let token = wg.y;
    let v = rotated(token, head, j, li);
    largest[li] = max(largest_of(v.lo), largest_of(v.hi));
    workgroupBarrier();
    var most = 0.0;
    for (var i = 0u; i < LANES; i++) { most = max(most, largest[li - j + i]); }
    if (row >= ALL_HEADS) { return; }
    if (head < HEADS) {
        let at = (token * HEADS + head) * ROW_QUADS + j;
        q[at] = v.lo;
        q[at + HALF] = v.hi;
        return;
    }
    // The scale that readers will see.
    let half_bits = pack2x16float(vec2<f32>(min(most / INT8_MAX, 65504.0), 0.0));
    let scale = unpack2x16float(half_bits).x;
    let s = slot(token);
    let page = page_of(s / BLOCK_SIZE, (head - HEADS) % KV_HEADS);
    let offset = s % BLOCK_SIZE;
    let at = quad_at(page, offset) + j;
    let scale_at = quad_at(page, BLOCK_SIZE) + offset / 2u;
    let shift = 16u * (offset & 1u);
    if (head < HEADS + KV_HEADS) {
        atomicStore(&k_pool[at], pack_bytes(v.lo, scale));
        atomicStore(&k_pool[at + HALF], pack_bytes(v.hi, scale));
        if (j == 0u) {
            atomicAnd(&k_pool[scale_at], ~(0xffffu << shift));
            atomicOr(&k_pool[scale_at], half_bits << shift);
        }
    } else {
        atomicStore(&v_pool[at], pack_bytes(v.lo, scale));
        atomicStore(&v_pool[at + HALF], pack_bytes(v.hi, scale));
        if (j == 0u) {
            atomicAnd(&v_pool[scale_at], ~(0xffffu << shift));
            atomicOr(&v_pool[scale_at], half_bits << shift);
        }
    }
}
