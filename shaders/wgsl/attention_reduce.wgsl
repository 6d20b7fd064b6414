// Merges the partial results of decode tokens whose keys were split, in split order and in one pass: loads are what it
// takes on software adapters.
struct Params {
    first_item: u32, // of those that are dispatched
}
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> partial_out: array<vec4<f32>>;   // [partial][HEADS][D / 4], normalised
@group(0) @binding(2) var<storage, read> partial_stats: array<vec2<f32>>; // [partial][HEADS] (max, sum)
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;     // [T][HEADS][D / 4]

const WG = min(HEAD_DIM / 4u, 32u);

@compute @workgroup_size(WG)
fn attention_reduce(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let item = reduce_item(params.first_item + wg.x);
    let head = wg.y;
    for (var quad = li; quad < HEAD_DIM / 4u; quad += WG) {
        let first_row = item.first * HEADS + head;
        var top = partial_stats[first_row].x;
        var sum = partial_stats[first_row].y;
        var value = sum * partial_out[first_row * (HEAD_DIM / 4u) + quad];
        for (var i = 1u; i < item.count; i++) {
            let row = first_row + i * HEADS;
            let stats = partial_stats[row];
            let new_top = max(top, stats.x);
            let rescale = exp(top - new_top);
            let weight = exp(stats.x - new_top) * stats.y;
            top = new_top;
            sum = sum * rescale + weight;
            value = value * rescale + weight * partial_out[row * (HEAD_DIM / 4u) + quad];
        }
        out[(item.token * HEADS + head) * (HEAD_DIM / 4u) + quad] = value / sum;
    }
}
