// Rotary position embedding (Su et al. 2021) of one head, normalised before if the model does, for the kernels that then
// write K and V to their slots. A workgroup holds whole heads. An invocation takes elements 4j to 4j + 3 and D/2 + 4j to
// D/2 + 4j + 3 of one head: with those it can rotate in either pairing, and writes whole words.
struct Params { qkv_stride: u32, norm_eps: f32 }
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> qkv: array<vec4<f32>>;     // [T][(HEADS + 2 KV_HEADS) * D / 4]
@group(0) @binding(2) var<storage, read> rope: array<vec4<f32>>;    // [max_positions][D / 4] (cos, sin, cos, sin)
@group(0) @binding(3) var<storage, read_write> q: array<vec4<f32>>; // [T][HEADS * D / 4]
@group(0) @binding(6) var<storage, read> head_norm: array<vec4<f32>>; // [2][D / 4]: of query heads, of key heads; if HEAD_NORM

const ALL_HEADS = HEADS + 2u * KV_HEADS;
const LANES = HEAD_DIM / 8u; // invocations of one head
const HALF = HEAD_DIM / 8u;  // quads in half a head

// `v` with its pairs (x, y) and (z, w) turned by the angles in `a`.
fn turn_pairs(v: vec4<f32>, a: vec4<f32>) -> vec4<f32> { return v * a.xxzz + v.yxwz * vec4<f32>(-a.y, a.y, -a.w, a.w); }

var<workgroup> squares: array<f32, WG>;

// `v`, quad j of each half of a head, after the head's RMSNorm, which all invocations of a workgroup make together.
fn normed(v: Vec8, head: u32, j: u32, li: u32) -> Vec8 {
    squares[li] = dot(v.lo, v.lo) + dot(v.hi, v.hi);
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < LANES; i++) { sum += squares[li - j + i]; }
    let scale = 1.0 / sqrt(sum / f32(HEAD_DIM) + params.norm_eps);
    let at = select(0u, ROW_QUADS, head >= HEADS) + j;
    return Vec8(v.lo * scale * head_norm[at], v.hi * scale * head_norm[at + HALF]);
}
// Quad j of each half of a head (query heads, then key heads, then value heads), all but value heads normalised and rotated.
// The invocation is the workgroup's li-th.
fn rotated(token: u32, head: u32, j: u32, li: u32) -> Vec8 {
    let at = token * (params.qkv_stride / 4u) + head * ROW_QUADS + j;
    let plain = Vec8(qkv[at], qkv[at + HALF]);
    var v = plain;
    if (HEAD_NORM) { v = normed(plain, head, j, li); }
    if (head >= HEADS + KV_HEADS) { return plain; }
    let angles = position(token) * ROW_QUADS;
    if (INTERLEAVED) { return Vec8(turn_pairs(v.lo, rope[angles + j]), turn_pairs(v.hi, rope[angles + HALF + j])); }
    let a = rope[angles + 2u * j];
    let b = rope[angles + 2u * j + 1u];
    let c = vec4<f32>(a.xz, b.xz);
    let s = vec4<f32>(a.yw, b.yw);
    return Vec8(v.lo * c - v.hi * s, v.lo * s + v.hi * c);
}
