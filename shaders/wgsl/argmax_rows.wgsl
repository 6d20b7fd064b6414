// Second stage of the argmax: the best chunk of each row, ties to the first.
struct Params { chunks: u32 }
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> chunk_max: array<vec2<u32>>; // [L][chunks] (bits of the value, column)
@group(0) @binding(2) var<storage, read_write> ids: array<u32>;       // [L]

@compute @workgroup_size(32)
fn argmax_rows(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= num_rows(ROWS_LOGITS)) { return; }
    var best = chunk_max[row * params.chunks];
    for (var i = 1u; i < params.chunks; i++) {
        let c = chunk_max[row * params.chunks + i];
        if (bitcast<f32>(c.x) > bitcast<f32>(best.x)) { best = c; }
    }
    ids[row] = best.y;
}
