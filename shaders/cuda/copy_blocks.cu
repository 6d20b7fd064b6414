// Copy-on-write: whole blocks of one layer's K and V pool, each pair of the step by one row of workgroups. No destination
// is a source, so the order of the copies does not matter.
struct Params { u32 quads; /* uint4 in one block */ };

extern "C" __global__ void __launch_bounds__(WG) copy_blocks(
    Step step,
    uint4* k_pool, // [block][quads]
    uint4* v_pool, // the same shape
    Params params
) {
    const u32 i = blockIdx.x * WG + threadIdx.x;
    if (i >= params.quads || blockIdx.y >= step[NUM_BLOCK_COPIES]) return;
    const uint2 pair = block_copy(step, blockIdx.y);
    k_pool[pair.y * params.quads + i] = k_pool[pair.x * params.quads + i];
    v_pool[pair.y * params.quads + i] = v_pool[pair.x * params.quads + i];
}
