// Paged attention (Kwon et al. 2023) for software adapters, decode and prefill: a workgroup is one subgroup and takes
// TOKENS query tokens times HEADS_PER_GROUP query heads of one KV head. Scores have a key in each lane; the weighted sum
// of V has two of the head's elements in each lane. Values cross lanes by shuffles only (see matmul_cpu.wgsl).
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

const ROWS = TOKENS * HEADS_PER_GROUP;
const Q_REGISTERS = HEAD_DIM / SUBGROUP_SIZE;
const O_REGISTERS = HEAD_DIM / 2u / SUBGROUP_SIZE;
const LOWEST = -3.0e38;

@compute @workgroup_size(SUBGROUP_SIZE)
fn attention_cpu(@builtin(workgroup_id) wg: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let item = work_item(params.items_at, wg.x);
    let kv_head = wg.y / (GROUP / HEADS_PER_GROUP);
    let first_head = wg.y * HEADS_PER_GROUP;
    var q_row: array<f32, ROWS * Q_REGISTERS>; // register i of lane l: element i * SUBGROUP_SIZE + l
    var acc: array<vec2<f32>, ROWS * O_REGISTERS>;
    var row_max: array<f32, ROWS>;
    var row_sum: array<f32, ROWS>;
    var last_key: array<u32, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
        let token = item.first_token + min(r / HEADS_PER_GROUP, item.num_tokens - 1u);
        last_key[r] = position(token);
        row_max[r] = LOWEST;
        row_sum[r] = 0.0;
        let at = (token * HEADS + first_head + r % HEADS_PER_GROUP) * HEAD_DIM;
        for (var i = 0u; i < Q_REGISTERS; i++) {
            let d = at + i * SUBGROUP_SIZE + lane;
            let pair = q[d / 2u];
            q_row[r * Q_REGISTERS + i] = select(pair.x, pair.y, (d & 1u) == 1u) * params.scale;
        }
        for (var i = 0u; i < O_REGISTERS; i++) { acc[r * O_REGISTERS + i] = vec2<f32>(0.0); }
    }
    for (var first_key = item.key_begin; first_key < item.key_end; first_key += SUBGROUP_SIZE) {
        let key = min(first_key + lane, item.key_end - 1u);
        let k_at = ((block_of(item.block_table, key) * KV_HEADS + kv_head) * BLOCK_SIZE + key % BLOCK_SIZE) * (HEAD_DIM / 8u);
        var p: array<f32, ROWS>;
        for (var r = 0u; r < ROWS; r++) { p[r] = 0.0; }
        for (var octet = 0u; octet < HEAD_DIM / 8u; octet++) {
            let k = unpack_octet(k_pool[k_at + octet]);
            for (var e = 0u; e < 8u; e++) {
                let d = octet * 8u + e;
                for (var r = 0u; r < ROWS; r++) {
                    let qd = subgroupShuffle(q_row[r * Q_REGISTERS + d / SUBGROUP_SIZE], d % SUBGROUP_SIZE);
                    p[r] = fma(element(k, e), qd, p[r]);
                }
            }
        }
        for (var r = 0u; r < ROWS; r++) {
            let valid = first_key + lane < item.key_end && key <= last_key[r];
            let score = select(LOWEST, p[r], valid);
            let new_max = max(row_max[r], subgroupMax(score));
            let rescale = exp(row_max[r] - new_max);
            p[r] = select(0.0, exp(score - new_max), valid);
            row_sum[r] = fma(row_sum[r], rescale, subgroupAdd(p[r]));
            row_max[r] = new_max;
            for (var i = 0u; i < O_REGISTERS; i++) { acc[r * O_REGISTERS + i] *= rescale; }
        }
        for (var j = 0u; j < SUBGROUP_SIZE; j++) {
            // Past the end p is 0, but what lies there may be NaN: read a valid slot instead.
            let vkey = min(first_key + j, item.key_end - 1u);
            let v_at = ((block_of(item.block_table, vkey) * KV_HEADS + kv_head) * BLOCK_SIZE + vkey % BLOCK_SIZE) * (HEAD_DIM / 2u);
            for (var i = 0u; i < O_REGISTERS; i++) {
                let v = unpack_pair(v_pool[v_at + i * SUBGROUP_SIZE + lane]);
                for (var r = 0u; r < ROWS; r++) {
                    acc[r * O_REGISTERS + i] = fma(vec2<f32>(subgroupShuffle(p[r], j)), v, acc[r * O_REGISTERS + i]);
                }
            }
        }
    }
    for (var r = 0u; r < ROWS; r++) {
        if (r / HEADS_PER_GROUP < item.num_tokens) {
            let head = first_head + r % HEADS_PER_GROUP;
            let token = item.first_token + r / HEADS_PER_GROUP;
            for (var i = 0u; i < O_REGISTERS; i++) {
                let value = acc[r * O_REGISTERS + i] / row_sum[r];
                let d = i * SUBGROUP_SIZE + lane;
                if (item.partial == NO_PARTIAL) {
                    out[(token * HEADS + head) * (HEAD_DIM / 2u) + d] = value;
                } else {
                    partial_out[(item.partial * HEADS + head) * (HEAD_DIM / 2u) + d] = value;
                }
            }
            if (item.partial != NO_PARTIAL && lane == 0u) {
                partial_stats[item.partial * HEADS + head] = vec2<f32>(row_max[r], row_sum[r]);
            }
        }
    }
}
