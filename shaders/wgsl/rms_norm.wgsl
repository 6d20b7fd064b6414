// Root mean square normalisation (Zhang and Sennrich 2019): one workgroup for each row.
struct Params {
    quads: u32, // columns / 4
    eps: f32,
}
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;         // [R][quads]
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;    // [quads]
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>; // [R][quads]

@compute @workgroup_size(REDUCE_WG)
fn rms_norm(inv: Invocation) {
    let row = inv.workgroup.x * params.quads;
    var sum = 0.0;
    for (var i = inv.index; i < params.quads; i += REDUCE_WG) {
        let v = x[row + i];
        sum += dot(v, v);
    }
    let mean = workgroup_sum(sum, inv) / f32(params.quads * 4u);
    let scale = 1.0 / sqrt(mean + params.eps);
    for (var i = inv.index; i < params.quads; i += REDUCE_WG) {
        out[row + i] = x[row + i] * scale * weight[i];
    }
}
