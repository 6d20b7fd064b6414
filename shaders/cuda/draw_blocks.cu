// First stage of the draws, a subgroup for each block of columns, a lane for each of them: adjusts its logits and keeps
// their keys, the largest of them, and the sum of exp((logit - largest) / temperature).
struct Params { u32 vocab, blocks; };

// The draw's first adjustment of this token or a later one.
__device__ __forceinline__ u32 adjustment_from(Step step, const TokenDraw& draw, u32 token) {
    u32 low = draw.first_adjustment;
    u32 high = low + draw.num_adjustments;
    while (low < high) {
        const u32 middle = (low + high) / 2u;
        if (logit_adjustment(step, middle).token < token) low = middle + 1u;
        else high = middle;
    }
    return low;
}

// The key of a finite logit after its adjustment.
__device__ __forceinline__ u32 adjusted_key(float logit, const TokenDraw& draw, const LogitAdjustment& by) {
    if (__float_as_uint(by.bias) == 0xff800000u) return KEY_EXCLUDED;
    float x = logit + by.bias;
    if (by.seen != 0u) x = x > 0.0f ? x / draw.repetition_penalty : x * draw.repetition_penalty;
    if (by.count > 0u) x = x - draw.frequency_penalty * (float)by.count - draw.presence_penalty;
    return within(key_of(x), KEY_LOWEST, KEY_LARGEST);
}

extern "C" __global__ void __launch_bounds__(WG) draw_blocks(
    Step step,
    const float* __restrict__ logits, // [L][vocab]
    u32* __restrict__ keys,           // [draws][blocks][DRAW_BLOCK]
    uint2* __restrict__ stats,        // [draws][blocks] (largest key, bits of the sum)
    Params params
) {
    const u32 block = blockIdx.x * (WG / SUBGROUP) + threadIdx.x / SUBGROUP;
    if (block >= params.blocks || blockIdx.y >= step[NUM_DRAWS]) return;
    const u32 lane = threadIdx.x % SUBGROUP;
    const TokenDraw draw = token_draw(step, blockIdx.y);
    const u32 out = blockIdx.y * params.blocks + block;
    const u32 col = block * DRAW_BLOCK + lane;
    u32 key = KEY_EXCLUDED;
    if (col < params.vocab) {
        const float logit = logits[draw.row * params.vocab + col];
        key = key_of(logit);
        // A NaN may have a sign.
        if (key > KEY_LARGEST || (__float_as_uint(logit) & 0x7fffffffu) > 0x7f800000u) key = KEY_BROKEN;
        if (key < KEY_LOWEST) key = KEY_EXCLUDED;
        const u32 at = adjustment_from(step, draw, col);
        if (at < draw.first_adjustment + draw.num_adjustments && key != KEY_EXCLUDED && key != KEY_BROKEN) {
            const LogitAdjustment by = logit_adjustment(step, at);
            if (by.token == col) key = adjusted_key(logit, draw, by);
        }
    }
    keys[out * DRAW_BLOCK + lane] = key;
    const u32 largest = ~subgroup_min(~key);
    const bool has_sum = largest >= KEY_LOWEST && largest <= KEY_LARGEST;
    const float weight = has_sum && key >= KEY_LOWEST ? draw_weight(key, logit_of(largest), draw.temperature) : 0.0f;
    const float sum = subgroup_sum(weight);
    if (lane == 0u) stats[out] = make_uint2(largest, __float_as_uint(sum));
}
