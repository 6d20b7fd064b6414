// Rotary position embedding of q and k (Su et al. 2021), and the write of k and v to their slots in the KV pool.
// An invocation takes elements 2i, 2i+1, D/2 + 2i and D/2 + 2i + 1 of one head: with those it can rotate in either pairing
// and writes whole pairs.
struct Params { qkv_stride: u32 }
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> qkv: array<vec2<f32>>;       // [T][(HEADS + 2 KV_HEADS) * D / 2]
@group(0) @binding(2) var<storage, read> rope: array<vec2<f32>>;      // [max_positions][D / 2] (cos, sin)
@group(0) @binding(3) var<storage, read_write> q: array<vec2<f32>>;   // [T][HEADS * D / 2]
@group(0) @binding(4) var<storage, read_write> k_pool: array<KvPair>; // [block][KV_HEADS][BLOCK_SIZE][D / 2]
@group(0) @binding(5) var<storage, read_write> v_pool: array<KvPair>; // the same shape

const PAIRS = HEAD_DIM / 2u;
const WG = 32u;

fn rotate(a: f32, b: f32, cs: vec2<f32>) -> vec2<f32> { return vec2<f32>(a * cs.x - b * cs.y, a * cs.y + b * cs.x); }

@compute @workgroup_size(WG)
fn rope_and_cache(@builtin(global_invocation_id) id: vec3<u32>) {
    let head = id.x / (PAIRS / 2u);
    let i = id.x % (PAIRS / 2u);
    let token = id.y;
    if (head >= HEADS + 2u * KV_HEADS) { return; }
    let at = token * (params.qkv_stride / 2u) + head * PAIRS + i;
    var lo = qkv[at];
    var hi = qkv[at + PAIRS / 2u];
    if (head < HEADS + KV_HEADS) {
        let angle = position(token) * PAIRS;
        if (INTERLEAVED) {
            lo = rotate(lo.x, lo.y, rope[angle + i]);
            hi = rotate(hi.x, hi.y, rope[angle + PAIRS / 2u + i]);
        } else {
            let first = rotate(lo.x, hi.x, rope[angle + 2u * i]);
            let second = rotate(lo.y, hi.y, rope[angle + 2u * i + 1u]);
            lo = vec2<f32>(first.x, second.x);
            hi = vec2<f32>(first.y, second.y);
        }
    }
    if (head < HEADS) {
        let q_at = (token * HEADS + head) * PAIRS + i;
        q[q_at] = lo;
        q[q_at + PAIRS / 2u] = hi;
        return;
    }
    let s = slot(token);
    let kv_head = (head - HEADS) % KV_HEADS;
    let kv_at = (((s / BLOCK_SIZE) * KV_HEADS + kv_head) * BLOCK_SIZE + s % BLOCK_SIZE) * PAIRS + i;
    if (head < HEADS + KV_HEADS) {
        k_pool[kv_at] = pack_pair(lo);
        k_pool[kv_at + PAIRS / 2u] = pack_pair(hi);
    } else {
        v_pool[kv_at] = pack_pair(lo);
        v_pool[kv_at + PAIRS / 2u] = pack_pair(hi);
    }
}
