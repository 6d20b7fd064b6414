// Paged attention (Kwon et al. 2023) for decode on adapters without subgroup operations: a workgroup takes one query token
// and one KV head's HEADS_PER_GROUP query heads over at most SPLIT keys. First a key for each invocation, then an element
// of the output for each.
struct Params {
    scale: f32,
    items_at: u32, // DECODE_ITEMS_AT or PREFILL_ITEMS_AT
}
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec2<f32>>;                   // [T][HEADS][D / 2]
@group(0) @binding(2) var<storage, read> k_pool: array<KvOctet>;                // [block][KV_HEADS][BLOCK_SIZE][D / 8]
@group(0) @binding(3) var<storage, read> v_pool: array<KvPair>; // the same elements
@group(0) @binding(4) var<storage, read_write> out: array<vec2<f32>>;           // [T][HEADS][D / 2]
@group(0) @binding(5) var<storage, read_write> partial_out: array<vec2<f32>>;   // [partial][HEADS][D / 2], normalised
@group(0) @binding(6) var<storage, read_write> partial_stats: array<vec2<f32>>; // [partial][HEADS] (max, sum)

const WG = 64u;
const LOWEST = -3.0e38;
var<workgroup> q_rows: array<vec4<f32>, HEADS_PER_GROUP * HEAD_DIM / 4u>;
var<workgroup> scores: array<f32, HEADS_PER_GROUP * SPLIT>;
var<workgroup> maxima: array<f32, HEADS_PER_GROUP>;
var<workgroup> sums: array<f32, HEADS_PER_GROUP>;

@compute @workgroup_size(WG)
fn attention_decode_plain(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let item = work_item(params.items_at, wg.x);
    let kv_head = wg.y / (GROUP / HEADS_PER_GROUP);
    let first_head = wg.y * HEADS_PER_GROUP;
    let q_at = (item.first_token * HEADS + first_head) * (HEAD_DIM / 2u);
    for (var i = li; i < HEADS_PER_GROUP * HEAD_DIM / 4u; i += WG) {
        q_rows[i] = vec4<f32>(q[q_at + 2u * i], q[q_at + 2u * i + 1u]) * params.scale;
    }
    workgroupBarrier();
    let num_keys = item.key_end - item.key_begin;
    for (var j = li; j < num_keys; j += WG) {
        let key = item.key_begin + j;
        let k_at = ((block_of(item.block_table, key) * KV_HEADS + kv_head) * BLOCK_SIZE + key % BLOCK_SIZE) * (HEAD_DIM / 8u);
        var s: array<f32, HEADS_PER_GROUP>;
        for (var g = 0u; g < HEADS_PER_GROUP; g++) { s[g] = 0.0; }
        for (var octet = 0u; octet < HEAD_DIM / 8u; octet++) {
            let k = unpack_octet(k_pool[k_at + octet]);
            for (var g = 0u; g < HEADS_PER_GROUP; g++) {
                let at = g * (HEAD_DIM / 4u) + 2u * octet;
                s[g] += dot(k.lo, q_rows[at]) + dot(k.hi, q_rows[at + 1u]);
            }
        }
        for (var g = 0u; g < HEADS_PER_GROUP; g++) { scores[g * SPLIT + j] = s[g]; }
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
    for (var i = li; i < HEADS_PER_GROUP * HEAD_DIM / 2u; i += WG) {
        let g = i / (HEAD_DIM / 2u);
        let d = i % (HEAD_DIM / 2u);
        var acc = vec2<f32>(0.0);
        for (var j = 0u; j < num_keys; j++) {
            let key = item.key_begin + j;
            let v_at = ((block_of(item.block_table, key) * KV_HEADS + kv_head) * BLOCK_SIZE + key % BLOCK_SIZE) * (HEAD_DIM / 2u);
            acc += scores[g * SPLIT + j] * unpack_pair(v_pool[v_at + d]);
        }
        let value = acc / sums[g];
        let head = first_head + g;
        if (item.partial == NO_PARTIAL) {
            out[(item.first_token * HEADS + head) * (HEAD_DIM / 2u) + d] = value;
        } else {
            partial_out[(item.partial * HEADS + head) * (HEAD_DIM / 2u) + d] = value;
        }
    }
    if (item.partial != NO_PARTIAL && li < HEADS_PER_GROUP) {
        partial_stats[item.partial * HEADS + first_head + li] = vec2<f32>(maxima[li], sums[li]);
    }
}
