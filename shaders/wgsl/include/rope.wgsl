// Rotary position embedding (Su et al. 2021) of one head, for the kernels that then write K and V to their slots.
// An invocation takes elements 4j to 4j + 3 and D/2 + 4j to D/2 + 4j + 3 of one head: with those it can rotate in either
// pairing, and writes whole words.
struct Params { qkv_stride: u32 }
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> qkv: array<vec4<f32>>;     // [T][(HEADS + 2 KV_HEADS) * D / 4]
@group(0) @binding(2) var<storage, read> rope: array<vec4<f32>>;    // [max_positions][D / 4] (cos, sin, cos, sin)
@group(0) @binding(3) var<storage, read_write> q: array<vec4<f32>>; // [T][HEADS * D / 4]

const ALL_HEADS = HEADS + 2u * KV_HEADS;
const LANES = HEAD_DIM / 8u; // invocations of one head
const HALF = HEAD_DIM / 8u;  // quads in half a head

// `v` with its pairs (x, y) and (z, w) turned by the angles in `a`.
fn turn_pairs(v: vec4<f32>, a: vec4<f32>) -> vec4<f32> { return v * a.xxzz + v.yxwz * vec4<f32>(-a.y, a.y, -a.w, a.w); }

// Quad j of each half of a head (query heads, then key heads, then value heads), all but value heads rotated.
fn rotated(token: u32, head: u32, j: u32) -> Vec8 {
    let at = token * (params.qkv_stride / 4u) + head * ROW_QUADS + j;
    let v = Vec8(qkv[at], qkv[at + HALF]);
    if (head >= HEADS + KV_HEADS) { return v; }
    let angles = position(token) * ROW_QUADS;
    if (INTERLEAVED) { return Vec8(turn_pairs(v.lo, rope[angles + j]), turn_pairs(v.hi, rope[angles + HALF + j])); }
    let a = rope[angles + 2u * j];
    let b = rope[angles + 2u * j + 1u];
    let c = vec4<f32>(a.xz, b.xz);
    let s = vec4<f32>(a.yw, b.yw);
    return Vec8(v.lo * c - v.hi * s, v.lo * s + v.hi * c);
}
