// Root mean square normalisation of rows to which a split product (split-K, see `matmul`) has yet to be added: its partial
// sums go to x, and what x comes to is normalised. One workgroup for each row.
struct Params {
    quads: u32,  // columns / 4
    eps: f32,
    rows: u32,   // ROWS_TOKENS or ROWS_LOGITS
    splits: u32, // of the product
}
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> partial_sums: array<vec4<f32>>; // [splits][R][quads]
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;       // [quads]
@group(0) @binding(3) var<storage, read_write> x: array<vec4<f32>>;      // [R][quads]
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;    // [R][quads]

@compute @workgroup_size(REDUCE_WG)
fn rms_norm_of_partial_sums(inv: Invocation) {
    let row = inv.workgroup.x * params.quads;
    let stride = num_rows(params.rows) * params.quads;
    var sum = 0.0;
    for (var i = inv.index; i < params.quads; i += REDUCE_WG) {
        var v = x[row + i];
        for (var s = 0u; s < params.splits; s++) { v += partial_sums[s * stride + row + i]; }
        x[row + i] = v;
        sum += dot(v, v);
    }
    let mean = workgroup_sum(sum, inv) / f32(params.quads * 4u);
    let scale = 1.0 / sqrt(mean + params.eps);
    for (var i = inv.index; i < params.quads; i += REDUCE_WG) {
        out[row + i] = x[row + i] * scale * weight[i];
    }
}
