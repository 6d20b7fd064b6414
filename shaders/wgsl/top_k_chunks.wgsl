// First stage of the likeliest tokens, for each chunk of CHUNK columns: its largest logits in order, ties to the lowest
// column, and the sum of exp(logit - largest).
struct Params { vocab: u32, chunks: u32 }
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;                // [L][vocab]
@group(0) @binding(2) var<storage, read_write> chunk_sums: array<f32>;      // [rows][chunks]
@group(0) @binding(3) var<storage, read_write> chunk_top: array<vec2<u32>>; // [rows][chunks][k] (bits of the value, column)

@compute @workgroup_size(REDUCE_WG)
fn top_k_chunks(inv: Invocation) {
    let chunk = inv.workgroup.x;
    let row = top_k_row(inv.workgroup.y) * params.vocab;
    let out = inv.workgroup.y * params.chunks + chunk;
    let begin = chunk * CHUNK + inv.index;
    let end = min((chunk + 1u) * CHUNK, params.vocab);
    let k = step[TOP_K];
    var largest = LOWEST;
    var last = Ranked(LOWEST, NO_COLUMN);
    for (var i = 0u; i < k; i++) {
        var best = Ranked(LOWEST, NO_COLUMN);
        for (var col = begin; col < end; col += REDUCE_WG) {
            let v = max(logits[row + col], LOWEST);
            if ((i == 0u || comes_after(v, col, last)) && (v > best.value || best.column == NO_COLUMN)) {
                best = Ranked(v, col);
            }
        }
        let top = workgroup_max(best.value, inv);
        last = Ranked(top, workgroup_min_u32(select(NO_COLUMN, best.column, best.value == top), inv));
        if (i == 0u) { largest = top; }
        if (inv.index == 0u) { chunk_top[out * k + i] = vec2<u32>(bitcast<u32>(last.value), last.column); }
    }
    var sum = 0.0;
    for (var col = begin; col < end; col += REDUCE_WG) { sum += exp(logits[row + col] - largest); }
    sum = workgroup_sum(sum, inv);
    if (inv.index == 0u) { chunk_sums[out] = sum; }
}
