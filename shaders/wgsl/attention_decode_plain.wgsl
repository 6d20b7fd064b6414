// Paged attention (Kwon et al. 2023) for decode on adapters without subgroup operations: a workgroup takes one query token
// and one KV head's HEADS_PER_GROUP query heads over at most SPLIT keys. First a key for each invocation, then a quad
// of the output for each.
const WG = 64u;
var<workgroup> q_rows: array<vec4<f32>, HEADS_PER_GROUP * ROW_QUADS>;
var<workgroup> scores: array<f32, HEADS_PER_GROUP * SPLIT>;
var<workgroup> maxima: array<f32, HEADS_PER_GROUP>;
var<workgroup> sums: array<f32, HEADS_PER_GROUP>;

@compute @workgroup_size(WG)
fn attention_decode_plain(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let item = work_item(params.items_at, params.first_item + wg.x);
    let its = query(item, 0u);
    let partial = its.partials + item.split;
    let kv_head = wg.y / (GROUP / HEADS_PER_GROUP);
    let first_head = wg.y * HEADS_PER_GROUP;
    let q_at = (its.token * HEADS + first_head) * ROW_QUADS;
    for (var i = li; i < HEADS_PER_GROUP * ROW_QUADS; i += WG) { q_rows[i] = q[q_at + i] * params.scale; }
    workgroupBarrier();
    let num_keys = item.key_end - item.key_begin;
    for (var j = li; j < num_keys; j += WG) {
        let key = item.key_begin + j;
        let page = page_of(block_of(item.block_table, key), kv_head);
        let k_at = octet_at(page, key % BLOCK_SIZE);
        var s: array<f32, HEADS_PER_GROUP>;
        for (var g = 0u; g < HEADS_PER_GROUP; g++) { s[g] = 0.0; }
        for (var octet = 0u; octet < ROW_OCTETS; octet++) {
            let k = unpack_octet(k_pool[k_at + octet]);
            for (var g = 0u; g < HEADS_PER_GROUP; g++) {
                let at = g * ROW_QUADS + 2u * octet;
                s[g] += dot(k.lo, q_rows[at]) + dot(k.hi, q_rows[at + 1u]);
            }
        }
        let k_factor = k_scale(page, key % BLOCK_SIZE);
        for (var g = 0u; g < HEADS_PER_GROUP; g++) { scores[g * SPLIT + j] = s[g] * k_factor; }
    }
    workgroupBarrier();
    // A head for each of the first invocations: maximum, exponentials and their sum, in key order.
    if (li < HEADS_PER_GROUP) {
        var top = LOWEST;
        for (var j = 0u; j < num_keys; j++) { top = max(top, scores[li * SPLIT + j]); }
        var sum = 0.0;
        for (var j = 0u; j < num_keys; j++) {
            let p = exp(scores[li * SPLIT + j] - top);
            scores[li * SPLIT + j] = p;
            sum += p;
        }
        maxima[li] = top;
        sums[li] = sum;
    }
    workgroupBarrier();
    for (var i = li; i < HEADS_PER_GROUP * ROW_QUADS; i += WG) {
        let g = i / ROW_QUADS;
        let quad = i % ROW_QUADS;
        var acc = vec4<f32>(0.0);
        for (var j = 0u; j < num_keys; j++) {
            let key = item.key_begin + j;
            let page = page_of(block_of(item.block_table, key), kv_head);
            let v = unpack_octet(v_pool[octet_at(page, key % BLOCK_SIZE) + quad / 2u]);
            acc += scores[g * SPLIT + j] * v_scale(page, key % BLOCK_SIZE) * select(v.lo, v.hi, (quad & 1u) == 1u);
        }
        let value = acc / sums[g];
        let head = first_head + g;
        if (its.partials == NO_PARTIAL) {
            out[(its.token * HEADS + head) * ROW_QUADS + quad] = value;
        } else {
            partial_out[(partial * HEADS + head) * ROW_QUADS + quad] = value;
        }
    }
    if (its.partials != NO_PARTIAL && li < HEADS_PER_GROUP) {
        partial_stats[partial * HEADS + first_head + li] = vec2<f32>(maxima[li], sums[li]);
    }
}
