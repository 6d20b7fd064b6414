// Tokens that the step before has sampled take their places among this step's token ids: the host does not know them yet.
// What could not be drawn becomes token 0.
constexpr u32 NOTHING = 0xfffffffeu; // and above

extern "C" __global__ void __launch_bounds__(WG) feed_tokens(
    u32* step,                     // written, alone among the kernels
    const u32* __restrict__ ids,   // [L] of the step before
    const u32* __restrict__ drawn  // [D] of the step before
) {
    const u32 i = blockIdx.x * WG + threadIdx.x;
    if (i >= step[NUM_FED_TOKENS]) return;
    const uint2 fed = fed_token(step, i);
    const u32 token = (fed.y & DRAWN) == 0u ? ids[fed.y] : drawn[fed.y & ~DRAWN];
    step[step[TOKEN_IDS_AT] + fed.x] = token >= NOTHING ? 0u : token;
}
