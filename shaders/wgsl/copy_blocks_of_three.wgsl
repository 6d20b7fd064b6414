// copy_blocks for three layers at once: as many as 7 storage buffers hold, as a dispatch costs more than a copy.
struct Params { quads: u32 /* vec4 of u32 in one block */ }
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read_write> k_pool_0: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> v_pool_0: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> k_pool_1: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> v_pool_1: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> k_pool_2: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> v_pool_2: array<vec4<u32>>;

@compute @workgroup_size(64)
fn copy_blocks_of_three(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= params.quads) { return; }
    let pair = block_copy(id.y);
    let src = pair.x * params.quads + id.x;
    let dst = pair.y * params.quads + id.x;
    k_pool_0[dst] = k_pool_0[src];
    v_pool_0[dst] = v_pool_0[src];
    k_pool_1[dst] = k_pool_1[src];
    v_pool_1[dst] = v_pool_1[src];
    k_pool_2[dst] = k_pool_2[src];
    v_pool_2[dst] = v_pool_2[src];
}
