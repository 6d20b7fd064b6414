// First stage of the argmax: the largest logit of each chunk of CHUNK columns, ties to the lowest column.
struct Params { vocab: u32, chunks: u32 }
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;                // [L][vocab]
@group(0) @binding(2) var<storage, read_write> chunk_max: array<vec2<u32>>; // [L][chunks] (bits of the value, column)


@compute @workgroup_size(REDUCE_WG)
fn argmax_chunks(inv: Invocation) {
    let chunk = inv.workgroup.x;
    let row = inv.workgroup.y;
    let end = min((chunk + 1u) * CHUNK, params.vocab);
    var best = bitcast<f32>(0xff7fffffu); // the lowest finite f32
    var best_col = end;
    for (var col = chunk * CHUNK + inv.index; col < end; col += REDUCE_WG) {
        let v = logits[row * params.vocab + col];
        if (v > best || best_col == end) {
            best = max(v, bitcast<f32>(0xff7fffffu));
            best_col = col;
        }
    }
    let top = workgroup_max(best, inv);
    let col = workgroup_min_u32(select(0xffffffffu, best_col, best == top), inv);
    if (inv.index == 0u) { chunk_max[row * params.chunks + chunk] = vec2<u32>(bitcast<u32>(top), col); }
}
