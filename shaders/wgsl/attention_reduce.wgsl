// Merges the partial results of decode tokens whose keys were split, in split order.
@group(0) @binding(1) var<storage, read> partial_out: array<vec2<f32>>;   // [partial][HEADS][D / 2], normalised
@group(0) @binding(2) var<storage, read> partial_stats: array<vec2<f32>>; // [partial][HEADS] (max, sum)
@group(0) @binding(3) var<storage, read_write> out: array<vec2<f32>>;     // [T][HEADS][D / 2]

@compute @workgroup_size(32)
fn attention_reduce(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let item = reduce_item(wg.x);
    let head = wg.y;
    var top = partial_stats[item.first * HEADS + head].x;
    for (var i = 1u; i < item.count; i++) { top = max(top, partial_stats[(item.first + i) * HEADS + head].x); }
    for (var d = li; d < HEAD_DIM / 2u; d += 32u) {
        var sum = 0.0;
        var value = vec2<f32>(0.0);
        for (var i = 0u; i < item.count; i++) {
            let row = (item.first + i) * HEADS + head;
            let stats = partial_stats[row];
            let weight = exp(stats.x - top) * stats.y;
            sum += weight;
            value += weight * partial_out[row * (HEAD_DIM / 2u) + d];
        }
        out[(item.token * HEADS + head) * (HEAD_DIM / 2u) + d] = value / sum;
    }
}
