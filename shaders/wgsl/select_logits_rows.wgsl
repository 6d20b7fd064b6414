// The rows whose logits are wanted: out[i] = x[logits_indices[i]].
struct Params { quads: u32 /* columns / 4 */ }
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;         // [T][quads]
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>; // [L][quads]

@compute @workgroup_size(32)
fn select_logits_rows(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= params.quads) { return; }
    out[id.y * params.quads + id.x] = x[logits_index(id.y) * params.quads + id.x];
}
