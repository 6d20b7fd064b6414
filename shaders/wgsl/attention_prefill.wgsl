// Paged attention (Kwon et al. 2023) for prefill and chunked prefill, without subgroup operations: flash tiles (Dao et al.
// 2022, arXiv:2205.14135). A workgroup takes TOKENS query tokens times HEADS_PER_GROUP heads of one KV head, and walks the
// keys KEYS at a time (a whole KV block, or an even part of one), K and V staged in workgroup memory.
struct Params {
    scale: f32,
    items_at: u32, // DECODE_ITEMS_AT or PREFILL_ITEMS_AT
}
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec2<f32>>;                   // [T][HEADS][D / 2]
@group(0) @binding(2) var<storage, read> k_pool: array<KvOctet>;                // [block][KV_HEADS][BLOCK_SIZE][D / 8]
@group(0) @binding(3) var<storage, read> v_pool: array<KvOctet>; // the same elements
@group(0) @binding(4) var<storage, read_write> out: array<vec2<f32>>;           // [T][HEADS][D / 2]

const ROWS = TOKENS * HEADS_PER_GROUP;
const WG = 64u;
const LANES = WG / ROWS;                       // invocations that share a row in the weighted sum; ROWS divides WG
const QUADS = HEAD_DIM / 4u;
const REGISTERS = (QUADS + LANES - 1u) / LANES;
const LOWEST = -3.0e38;
var<workgroup> q_rows: array<vec4<f32>, ROWS * QUADS>;
var<workgroup> k_rows: array<KvOctet, KEYS * (HEAD_DIM / 8u)>;
var<workgroup> v_rows: array<KvOctet, KEYS * (HEAD_DIM / 8u)>;
var<workgroup> scores: array<f32, ROWS * KEYS>;

@compute @workgroup_size(WG)
fn attention_prefill(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let item = work_item(params.items_at, wg.x);
    let kv_head = wg.y / (GROUP / HEADS_PER_GROUP);
    let first_head = wg.y * HEADS_PER_GROUP;
    for (var i = li; i < ROWS * QUADS; i += WG) {
        let r = i / QUADS;
        let token = item.first_token + min(r / HEADS_PER_GROUP, item.num_tokens - 1u);
        let at = (token * HEADS + first_head + r % HEADS_PER_GROUP) * (HEAD_DIM / 2u) + 2u * (i % QUADS);
        q_rows[i] = vec4<f32>(q[at], q[at + 1u]) * params.scale;
    }
    let row = li / LANES;
    let lane = li % LANES;
    let first_position = position(item.first_token);
    var acc: array<vec4<f32>, REGISTERS>;
    for (var i = 0u; i < REGISTERS; i++) { acc[i] = vec4<f32>(0.0); }
    var row_max = LOWEST;
    var row_sum = 0.0;
    for (var first_key = item.key_begin; first_key < item.key_end; first_key += KEYS) {
        let page = (block_of(item.block_table, first_key) * KV_HEADS + kv_head) * BLOCK_SIZE;
        let staged_at = (page + first_key % BLOCK_SIZE) * (HEAD_DIM / 8u);
        let num_keys = min(KEYS, item.key_end - first_key);
        workgroupBarrier();
        for (var i = li; i < KEYS * (HEAD_DIM / 8u); i += WG) {
            // Slots past the end may hold NaN: stage a valid one instead.
            let at = staged_at + min(i, num_keys * (HEAD_DIM / 8u) - 1u);
            k_rows[i] = k_pool[at];
            v_rows[i] = v_pool[at];
        }
        workgroupBarrier();
        for (var i = li; i < ROWS * KEYS; i += WG) {
            let r = i / KEYS;
            let j = i % KEYS;
            var s = 0.0;
            for (var octet = 0u; octet < HEAD_DIM / 8u; octet++) {
                let k = unpack_octet(k_rows[j * (HEAD_DIM / 8u) + octet]);
                s += dot(k.lo, q_rows[r * QUADS + 2u * octet]) + dot(k.hi, q_rows[r * QUADS + 2u * octet + 1u]);
            }
            let valid = j < num_keys && first_key + j <= first_position + r / HEADS_PER_GROUP;
            scores[i] = select(LOWEST, s, valid);
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
            for (var i = 0u; i < REGISTERS; i++) {
                let quad = min(i * LANES + lane, QUADS - 1u);
                let v = unpack_octet(v_rows[j * (HEAD_DIM / 8u) + quad / 2u]);
                acc[i] += p * select(v.lo, v.hi, (quad & 1u) == 1u);
            }
        }
    }
    if (row / HEADS_PER_GROUP >= item.num_tokens) { return; }
    let token = item.first_token + row / HEADS_PER_GROUP;
    let at = (token * HEADS + first_head + row % HEADS_PER_GROUP) * (HEAD_DIM / 2u);
    for (var i = 0u; i < REGISTERS; i++) {
        let quad = i * LANES + lane;
        if (quad < QUADS) {
            out[at + 2u * quad] = acc[i].xy / row_sum;
            out[at + 2u * quad + 1u] = acc[i].zw / row_sum;
        }
    }
}
