// SwiGLU's product (Shazeer 2020): out = silu(gate) * up, gate and up side by side in one row.
struct Params { quads: u32 /* columns of out / 4 */ }
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> gate_up: array<vec4<f32>>;   // [R][2 quads]
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>; // [R][quads]

@compute @workgroup_size(32)
fn silu_mul(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= params.quads) { return; }
    let at = id.y * 2u * params.quads + id.x;
    let gate = gate_up[at];
    out[id.y * params.quads + id.x] = gate / (1.0 + exp(-gate)) * gate_up[at + params.quads];
}
