// Root mean square normalisation of rows to which a product that was cut along its input has yet to be added: the product's
// parts go to x, and what x comes to is normalised. One workgroup for each row.
struct Params {
    quads: u32,  // columns / 4
    eps: f32,
    rows: u32,   // ROWS_TOKENS or ROWS_LOGITS
    splits: u32, // parts
}
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> parts: array<vec4<f32>>;     // [splits][R][quads]
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;    // [quads]
@group(0) @binding(3) var<storage, read_write> x: array<vec4<f32>>;   // [R][quads]
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>; // [R][quads]

@compute @workgroup_size(REDUCE_WG)
fn rms_norm_of_parts(inv: Invocation) {
    let row = inv.workgroup.x * params.quads;
    let part = num_rows(params.rows) * params.quads;
    var sum = 0.0;
    for (var i = inv.index; i < params.quads; i += REDUCE_WG) {
        var v = x[row + i];
        for (var s = 0u; s < params.splits; s++) { v += parts[s * part + row + i]; }
        x[row + i] = v;
        sum += dot(v, v);
    }
    let mean = workgroup_sum(sum, inv) / f32(params.quads * 4u);
    let scale = 1.0 / sqrt(mean + params.eps);
    for (var i = inv.index; i < params.quads; i += REDUCE_WG) {
        out[row + i] = x[row + i] * scale * weight[i];
    }
}
