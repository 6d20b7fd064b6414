// Draws of tokens. Logits are kept as keys: unsigned integers in the order of the logits, so that comparing them, and
// searching between them, is exact.
struct TokenDraw {
    u32 row;
    u32 first_adjustment;
    u32 num_adjustments;
    u32 top_k; // 0 for all
    float top_p;
    float min_p;
    float temperature;
    float repetition_penalty;
    float frequency_penalty;
    float presence_penalty;
    float uniform;
};
constexpr u32 DRAW_WORDS = 11u;
__device__ __forceinline__ float draw_float(Step step, u32 at) { return __uint_as_float(step[at]); }
__device__ __forceinline__ TokenDraw token_draw(Step step, u32 i) {
    const u32 at = step[DRAWS_AT] + i * DRAW_WORDS;
    return TokenDraw{
        step[at], step[at + 1u], step[at + 2u], step[at + 3u],
        draw_float(step, at + 4u), draw_float(step, at + 5u), draw_float(step, at + 6u), draw_float(step, at + 7u),
        draw_float(step, at + 8u), draw_float(step, at + 9u), draw_float(step, at + 10u)
    };
}

struct LogitAdjustment { u32 token, seen, count; float bias; };
constexpr u32 ADJUSTMENT_WORDS = 4u;
__device__ __forceinline__ LogitAdjustment logit_adjustment(Step step, u32 i) {
    const u32 at = step[ADJUSTMENTS_AT] + i * ADJUSTMENT_WORDS;
    return LogitAdjustment{step[at], step[at + 1u], step[at + 2u], draw_float(step, at + 3u)};
}

// Columns of a block, whose largest key is known: a lane of a subgroup for each.
constexpr u32 DRAW_BLOCK = SUBGROUP;
// Keys of -inf and below it, of the finite numbers, and of +inf and NaN.
constexpr u32 KEY_EXCLUDED = 0u;
constexpr u32 KEY_LOWEST = 0x00800000u;
constexpr u32 KEY_LARGEST = 0xff7fffffu;
constexpr u32 KEY_BROKEN = 0xffffffffu;

__device__ __forceinline__ u32 within(u32 v, u32 low, u32 high) { return v < low ? low : v > high ? high : v; }
__device__ __forceinline__ u32 key_of(float v) {
    const u32 bits = __float_as_uint(v);
    return bits ^ (bits >= 0x80000000u ? 0xffffffffu : 0x80000000u);
}
__device__ __forceinline__ float logit_of(u32 key) {
    return __uint_as_float(key ^ (key >= 0x80000000u ? 0x80000000u : 0xffffffffu));
}
__device__ __forceinline__ float draw_weight(u32 key, float largest, float temperature) {
    return expf((logit_of(key) - largest) / temperature);
}
