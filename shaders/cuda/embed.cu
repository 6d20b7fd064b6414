// Token ids to embedding rows: out[t] = table[token_ids[t]], dequantised; an invocation for each octet. A table that lies
// in several buffers is read by one launch for each; a token whose row lies elsewhere is skipped.
struct Params {
    u32 octets;    // columns / 8
    u32 first_row; // of the table, in this buffer
    u32 num_rows;
};

extern "C" __global__ void __launch_bounds__(WG) embed(
    Step step,
    WEIGHT_ARGUMENTS,
    float4* __restrict__ out, // [T][octets * 2]
    Params params
) {
    const u32 octet = blockIdx.x * WG + threadIdx.x;
    const u32 token = blockIdx.y;
    if (octet >= params.octets || token >= step[NUM_TOKENS]) return;
    const u32 row = token_id(step, token) - params.first_row; // wraps when below
    if (row >= params.num_rows) return;
    const Vec8 w = weights_of(raw_octet(WEIGHT_PLANES, row * params.octets + octet));
    const u32 at = 2u * (token * params.octets + octet);
    out[at] = make_float4(w.e[0], w.e[1], w.e[2], w.e[3]);
    out[at + 1u] = make_float4(w.e[4], w.e[5], w.e[6], w.e[7]);
}
