// Merges the partial results of decode tokens whose keys were split: TEAMS teams of lanes take every TEAMS-th of them each,
// in one pass (loads are what it takes on software adapters), and merge in their order.
struct Params {
    first_item: u32, // of those that are dispatched
}
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> partial_out: array<vec4<f32>>;   // [partial][HEADS][D / 4], normalised
@group(0) @binding(2) var<storage, read> partial_stats: array<vec2<f32>>; // [partial][HEADS] (max, sum)
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;     // [T][HEADS][D / 4]

const LOWEST = -3.0e38; // below any score; finite, so that differences are
const QUADS = HEAD_DIM / 4u;
const LANES = min(QUADS, 32u);
struct Merged { top: f32, sum: f32, value: vec4<f32> }
var<workgroup> merged_by_team: array<Merged, TEAMS * LANES>;

fn merge(a: Merged, b: Merged) -> Merged {
    let top = max(a.top, b.top);
    let of_a = exp(a.top - top);
    let of_b = exp(b.top - top);
    return Merged(top, a.sum * of_a + b.sum * of_b, a.value * of_a + b.value * of_b);
}

@compute @workgroup_size(TEAMS * LANES)
fn attention_reduce(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let item = reduce_item(params.first_item + wg.x);
    let head = wg.y;
    let lane = li % LANES;
    let team = li / LANES;
    for (var first_quad = 0u; first_quad < QUADS; first_quad += LANES) {
        let quad = min(first_quad + lane, QUADS - 1u);
        var merged = Merged(LOWEST, 0.0, vec4<f32>(0.0));
        for (var i = team; i < item.count; i += TEAMS) {
            let row = (item.first + i) * HEADS + head;
            let stats = partial_stats[row];
            merged = merge(merged, Merged(stats.x, stats.y, stats.y * partial_out[row * QUADS + quad]));
        }
        if (TEAMS > 1u) {
            merged_by_team[li] = merged;
            workgroupBarrier();
            for (var t = 1u; t < TEAMS && team == 0u; t++) { merged = merge(merged, merged_by_team[t * LANES + lane]); }
            workgroupBarrier();
        }
        if (team == 0u && first_quad + lane < QUADS) {
            out[(item.token * HEADS + head) * QUADS + quad] = merged.value / merged.sum;
        }
    }
}
