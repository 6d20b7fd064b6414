// Paged attention (Kwon et al. 2023) for prefill and chunked prefill, without subgroup operations: flash tiles (Dao et al.
// 2022, arXiv:2205.14135). A workgroup takes TOKENS query tokens times HEADS_PER_GROUP heads of one KV head, and walks the
// keys KEYS at a time (a whole KV block, or an even part of one), K and V staged in workgroup memory.
struct Params {
    scale: f32,
    items_at: u32, // DECODE_ITEMS_AT or PREFILL_ITEMS_AT
}
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;                   // [T][HEADS][D / 4]
@group(0) @binding(2) var<storage, read> k_pool: array<KvOctet>;                // [block][KV_HEADS] pages
@group(0) @binding(3) var<storage, read> v_pool: array<KvOctet>;                // the same shape
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;           // [T][HEADS][D / 4]
@group(0) @binding(5) var<storage, read_write> partial_out: array<vec4<f32>>;   // [partial][HEADS][D / 4], normalised
@group(0) @binding(6) var<storage, read_write> partial_stats: array<vec2<f32>>; // [partial][HEADS] (max, sum)

const ROWS = TOKENS * HEADS_PER_GROUP;
const WG = 64u;
const LANES = WG / ROWS;                       // invocations that share a row in the weighted sum; ROWS divides WG
const REGISTERS = (ROW_QUADS + LANES - 1u) / LANES;
const LOWEST = -3.0e38;
var<workgroup> q_rows: array<vec4<f32>, ROWS * ROW_QUADS>;
var<workgroup> k_rows: array<KvOctet, KEYS * ROW_OCTETS>;
var<workgroup> v_rows: array<KvOctet, KEYS * ROW_OCTETS>;
var<workgroup> scores: array<f32, ROWS * KEYS>;
var<workgroup> last_keys: array<u32, TOKENS>;

@compute @workgroup_size(WG)
fn attention_prefill(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let item = work_item(params.items_at, wg.x);
    let kv_head = wg.y / (GROUP / HEADS_PER_GROUP);
    let first_head = wg.y * HEADS_PER_GROUP;
    for (var i = li; i < ROWS * ROW_QUADS; i += WG) {
        let r = i / ROW_QUADS;
        let token = query(item, r / HEADS_PER_GROUP).token;
        q_rows[i] = q[(token * HEADS + first_head + r % HEADS_PER_GROUP) * ROW_QUADS + i % ROW_QUADS] * params.scale;
    }
    let row = li / LANES;
    let lane = li % LANES;
    if (li < TOKENS) { last_keys[li] = position(query(item, li).token); }
    var acc: array<vec4<f32>, REGISTERS>;
    for (var i = 0u; i < REGISTERS; i++) { acc[i] = vec4<f32>(0.0); }
    var row_max = LOWEST;
    var row_sum = 0.0;
    for (var first_key = item.key_begin; first_key < item.key_end; first_key += KEYS) {
        let page = page_of(block_of(item.block_table, first_key), kv_head);
        let first_offset = first_key % BLOCK_SIZE;
        let staged_at = octet_at(page, first_offset);
        let num_keys = min(KEYS, item.key_end - first_key);
        workgroupBarrier();
        for (var i = li; i < KEYS * ROW_OCTETS; i += WG) {
            // Slots past the end may hold NaN: stage a valid one instead.
            let at = staged_at + min(i, num_keys * ROW_OCTETS - 1u);
            k_rows[i] = k_pool[at];
            v_rows[i] = v_pool[at];
        }
        workgroupBarrier();
        for (var i = li; i < ROWS * KEYS; i += WG) {
            let r = i / KEYS;
            let j = i % KEYS;
            var s = 0.0;
            for (var octet = 0u; octet < ROW_OCTETS; octet++) {
                let k = unpack_octet(k_rows[j * ROW_OCTETS + octet]);
                s += dot(k.lo, q_rows[r * ROW_QUADS + 2u * octet]) + dot(k.hi, q_rows[r * ROW_QUADS + 2u * octet + 1u]);
            }
            let valid = j < num_keys && first_key + j <= last_keys[r / HEADS_PER_GROUP];
            scores[i] = select(LOWEST, s * k_scale(page, first_offset + min(j, num_keys - 1u)), valid);
        }
        workgroupBarrier();
        // Every invocation of a row computes the same running maximum and sum.
        var new_max = row_max;
        for (var j = 0u; j < KEYS; j++) { new_max = max(new_max, scores[row * KEYS + j]); }
        let rescale = exp(row_max - new_max);
        row_max = new_max;
        row_sum *= rescale;
        for (var i = 0u; i < REGISTERS; i++) { acc[i] *= rescale; }
        for (var j = 0u; j < KEYS; j++) {
            let score = scores[row * KEYS + j];
            let p = select(0.0, exp(score - new_max), score > LOWEST);
            row_sum += p;
            let weight = p * v_scale(page, first_offset + min(j, num_keys - 1u));
            for (var i = 0u; i < REGISTERS; i++) {
                let quad = min(i * LANES + lane, ROW_QUADS - 1u);
                let v = unpack_octet(v_rows[j * ROW_OCTETS + quad / 2u]);
                acc[i] += weight * select(v.lo, v.hi, (quad & 1u) == 1u);
            }
        }
    }
    if (row / HEADS_PER_GROUP >= item.num_queries) { return; }
    let head = first_head + row % HEADS_PER_GROUP;
    let its = query(item, row / HEADS_PER_GROUP);
    let partial = its.partials + item.split;
    for (var i = 0u; i < REGISTERS; i++) {
        let quad = i * LANES + lane;
        if (quad < ROW_QUADS) {
            if (its.partials == NO_PARTIAL) {
                out[(its.token * HEADS + head) * ROW_QUADS + quad] = acc[i] / row_sum;
            } else {
                partial_out[(partial * HEADS + head) * ROW_QUADS + quad] = acc[i] / row_sum;
            }
        }
    }
    if (its.partials != NO_PARTIAL && lane == 0u) {
        partial_stats[partial * HEADS + head] = vec2<f32>(row_max, row_sum);
    }
}
