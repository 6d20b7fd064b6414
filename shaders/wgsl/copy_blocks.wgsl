// Copy-on-write: whole blocks of one layer's K and V pool, each pair of the step by one row of workgroups. No destination
// is a source, so the order of the copies does not matter.
struct Params { quads: u32 /* vec4 of u32 in one block */ }
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read_write> k_pool: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> v_pool: array<vec4<u32>>;

@compute @workgroup_size(64)
fn copy_blocks(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= params.quads) { return; }
    let pair = block_copy(id.y);
    k_pool[pair.y * params.quads + id.x] = k_pool[pair.x * params.quads + id.x];
    v_pool[pair.y * params.quads + id.x] = v_pool[pair.x * params.quads + id.x];
}
