// What the attention kernels share.
struct Params {
    scale: f32,
    items_at: u32,   // DECODE_ITEMS_AT or PREFILL_ITEMS_AT
    first_item: u32, // of those that are dispatched
}
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;                   // [T][HEADS][D / 4]
@group(0) @binding(2) var<storage, read> k_pool: array<KvOctet>;                // [block][KV_HEADS] pages
@group(0) @binding(3) var<storage, read> v_pool: array<KvOctet>;                // the same shape
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;           // [T][HEADS][D / 4]
@group(0) @binding(5) var<storage, read_write> partial_out: array<vec4<f32>>;   // [partial][HEADS][D / 4], normalised
@group(0) @binding(6) var<storage, read_write> partial_stats: array<vec2<f32>>; // [partial][HEADS] (max, sum)

const LOWEST = -3.0e38; // below any score; finite, so that differences are
