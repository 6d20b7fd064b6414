// Second stage of the likeliest tokens: those of all chunks of a row, and their log probabilities.
struct Params { chunks: u32 }
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> chunk_sums: array<f32>;          // [rows][chunks]
@group(0) @binding(2) var<storage, read> chunk_top: array<vec2<u32>>;     // [rows][chunks][k] (bits of the value, column)
@group(0) @binding(3) var<storage, read_write> scores: array<vec2<u32>>;  // [rows][k] (token, bits of its log probability)

@compute @workgroup_size(REDUCE_WG)
fn top_k_rows(inv: Invocation) {
    let first_chunk = inv.workgroup.x * params.chunks;
    let k = step[TOP_K];
    var largest = LOWEST;
    for (var c = inv.index; c < params.chunks; c += REDUCE_WG) {
        largest = max(largest, bitcast<f32>(chunk_top[(first_chunk + c) * k].x));
    }
    largest = workgroup_max(largest, inv);
    var sum = 0.0;
    for (var c = inv.index; c < params.chunks; c += REDUCE_WG) {
        let chunk_largest = bitcast<f32>(chunk_top[(first_chunk + c) * k].x);
        sum += chunk_sums[first_chunk + c] * exp(chunk_largest - largest);
    }
    let log_sum = log(workgroup_sum(sum, inv));

    let begin = first_chunk * k;
    let end = begin + params.chunks * k;
    var last = Ranked(LOWEST, NO_COLUMN);
    for (var i = 0u; i < k; i++) {
        var best = Ranked(LOWEST, NO_COLUMN);
        for (var at = begin + inv.index; at < end; at += REDUCE_WG) {
            let v = bitcast<f32>(chunk_top[at].x);
            let col = chunk_top[at].y;
            // Chunks stand in the order of their columns, so of equals the first is the lowest.
            if ((i == 0u || comes_after(v, col, last)) && (v > best.value || best.column == NO_COLUMN)) {
                best = Ranked(v, col);
            }
        }
        let top = workgroup_max(best.value, inv);
        last = Ranked(top, workgroup_min_u32(select(NO_COLUMN, best.column, best.value == top), inv));
        if (inv.index == 0u) {
            scores[inv.workgroup.x * k + i] = vec2<u32>(last.column, bitcast<u32>(top - largest - log_sum));
        }
    }
}
