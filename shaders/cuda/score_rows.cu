// Log probabilities and ranks of tokens under their rows of logits, a workgroup for each: tokens that the host knows, or what
// this step has sampled.
struct Params { u32 vocab; };

extern "C" __global__ void __launch_bounds__(WG) score_rows(
    Step step,
    const float* __restrict__ logits, // [L][vocab]
    const u32* __restrict__ ids,      // [L] argmax
    const u32* __restrict__ drawn,    // [draws]
    uint2* __restrict__ scores,       // [scored] (bits of the log probability, rank)
    Params params
) {
    if (blockIdx.x >= step[NUM_SCORED]) return;
    const uint2 scored = scored_row(step, blockIdx.x);
    u32 token = scored.y;
    if (scored.y >= DRAWN) token = drawn[scored.y - DRAWN];
    else if (scored.y == ARGMAX) token = ids[scored.x];
    const float* row = logits + (size_t)scored.x * params.vocab;
    // A draw may have given none.
    const float own = row[token < params.vocab ? token : params.vocab - 1u];
    float largest = row[0];
    for (u32 col = threadIdx.x; col < params.vocab; col += WG) largest = fmaxf(largest, row[col]);
    largest = workgroup_max(largest);
    float sum = 0.0f;
    float above = 0.0f;
    for (u32 col = threadIdx.x; col < params.vocab; col += WG) {
        const float logit = row[col];
        sum += expf(logit - largest);
        above += logit > own ? 1.0f : 0.0f;
    }
    sum = workgroup_sum(sum);
    above = workgroup_sum(above);
    if (threadIdx.x == 0u) {
        scores[blockIdx.x] = make_uint2(__float_as_uint(own - largest - logf(sum)), 1u + (u32)above);
    }
}
