// Second stage of the draws, a workgroup for each: which keys stay, and which of them the uniform number falls on.
//
// What stays is a number of tokens from the top of the ranking, so it is said by its lowest key and by how many of the
// tokens of this key stay. Nothing is sorted: the key is searched for, four ways at a time, by sums over the row, and the
// column by sums over ever shorter ranges of blocks. A block whose largest key is too low is not looked into. Whatever a
// loop around a reduction depends on is the same in all invocations.
struct Params { u32 blocks; };

constexpr u32 BLOCK_QUADS = DRAW_BLOCK / 4u;
constexpr u32 DRAWN_BROKEN = 0xffffffffu;
constexpr u32 DRAWN_NOTHING = 0xfffffffeu;

// A draw's row: the keys and stats of its blocks, the scale of its weights.
struct Row {
    const uint4* keys;  // [blocks][BLOCK_QUADS]
    const uint2* stats; // [blocks]
    u32 blocks;
    float largest;
    float temperature;
};
// Which of its tokens stay: those of higher keys, and those of this key in columns before `tie_end`.
struct Cut { u32 key, tie_end; bool keeps_all; };

struct Sums { float x, y, z; };
__device__ __forceinline__ Sums workgroup_sums(Sums v) {
    __shared__ Sums parts[SUBGROUPS];
    v = Sums{subgroup_sum(v.x), subgroup_sum(v.y), subgroup_sum(v.z)};
    __syncthreads();
    if (threadIdx.x % SUBGROUP == 0u) parts[threadIdx.x / SUBGROUP] = v;
    __syncthreads();
    Sums all = parts[0];
    for (u32 i = 1u; i < SUBGROUPS; i++) all = Sums{all.x + parts[i].x, all.y + parts[i].y, all.z + parts[i].z};
    return all;
}

__device__ __forceinline__ float weight_of(u32 key, const Row& row) {
    return draw_weight(key, row.largest, row.temperature);
}
__device__ __forceinline__ u32 key_at(const Row& row, u32 column) { return ((const u32*)row.keys)[column]; }

// What `tally` sums up.
enum What { WEIGHTS, TOKENS, BLOCKS /* by their largest keys */ };

// This invocation's share of the sums over keys of at least `first`, `second` and `third`, which ascend.
__device__ Sums tally(What what, const Row& row, u32 first, u32 second, u32 third) {
    Sums sums = {0.0f, 0.0f, 0.0f};
    for (u32 block = threadIdx.x; block < row.blocks; block += WG) {
        const u32 largest = row.stats[block].x;
        if (largest < first) continue;
        if (what == BLOCKS) {
            sums.x += 1.0f;
            if (largest >= second) sums.y += 1.0f;
            if (largest >= third) sums.z += 1.0f;
            continue;
        }
        for (u32 quad = 0u; quad < BLOCK_QUADS; quad++) {
            const uint4 four = row.keys[block * BLOCK_QUADS + quad];
            const u32 keys[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
            for (u32 i = 0u; i < 4u; i++) {
                if (keys[i] < first) continue;
                const float w = what == WEIGHTS ? weight_of(keys[i], row) : 1.0f;
                sums.x += w;
                if (keys[i] >= second) sums.y += w;
                if (keys[i] >= third) sums.z += w;
            }
        }
    }
    return sums;
}

// The largest key in [low, high) such that the sum over keys of at least it is `wanted` or more; `low` if there is none.
__device__ u32 search(What what, const Row& row, u32 low, u32 high, float wanted) {
    while (high > low && high - low > 1u) {
        const u32 range = high - low;
        const u32 first = low + range / 4u, second = low + range / 2u, third = low + range / 2u + range / 4u;
        const Sums sums = workgroup_sums(tally(what, row, first, second, third));
        if (sums.z >= wanted) {
            low = third;
        } else if (sums.y >= wanted) {
            low = second;
            high = third;
        } else if (sums.x >= wanted) {
            low = first;
            high = second;
        } else {
            high = first;
        }
    }
    return low;
}

// Weight of the tokens of a block that stay.
__device__ float kept_weight(u32 block, const Row& row, const Cut& cut) {
    const uint2 stat = row.stats[block];
    if (stat.x < cut.key) return 0.0f;
    if (cut.keeps_all) return __uint_as_float(stat.y) * weight_of(stat.x, row);
    float sum = 0.0f;
    for (u32 i = 0u; i < DRAW_BLOCK; i++) {
        const u32 column = block * DRAW_BLOCK + i;
        const u32 key = key_at(row, column);
        if (key > cut.key || (key == cut.key && column < cut.tie_end)) sum += weight_of(key, row);
    }
    return sum;
}

// How many tokens of a block have this key.
__device__ float num_tied(u32 block, const Row& row, u32 key) {
    if (row.stats[block].x < key) return 0.0f;
    float sum = 0.0f;
    for (u32 i = 0u; i < DRAW_BLOCK; i++) sum += key_at(row, block * DRAW_BLOCK + i) == key ? 1.0f : 0.0f;
    return sum;
}

// A block, and the sum over those before it.
struct Place { u32 block; float before; };

// The first block with which the running sum exceeds `wanted`, or else the last that adds to it. The sum is of the weights
// that stay (WEIGHTS) or of the tokens of the cut's key (TOKENS).
__device__ Place find_block(What what, const Row& row, const Cut& cut, float wanted) {
    u32 low = 0u;
    u32 high = row.blocks;
    float before = 0.0f;
    while (high - low > 1u) {
        const u32 middle = (low + high) / 2u;
        Sums halves = {0.0f, 0.0f, 0.0f};
        for (u32 block = low + threadIdx.x; block < high; block += WG) {
            const float value = what == WEIGHTS ? kept_weight(block, row, cut) : num_tied(block, row, cut.key);
            if (block < middle) halves.x += value;
            else halves.y += value;
        }
        halves = workgroup_sums(halves);
        // Never into a half where there is nothing: rounding may put `wanted` beyond the end.
        if (halves.y > 0.0f && (halves.x == 0.0f || before + halves.x <= wanted)) {
            before += halves.x;
            low = middle;
        } else {
            high = middle;
        }
    }
    return Place{low, before};
}

// The end of the columns that hold the first `count` tokens of the cut's key.
__device__ u32 end_of_ties(const Row& row, const Cut& cut, float count, const Place& place) {
    u32 end = 0u;
    float seen = place.before;
    for (u32 i = 0u; i < DRAW_BLOCK; i++) {
        const u32 column = place.block * DRAW_BLOCK + i;
        if (key_at(row, column) == cut.key) {
            seen += 1.0f;
            if (seen == count) end = column + 1u;
        }
    }
    return end;
}

// The column of a block where the running sum of the weights that stay exceeds `wanted`, or else the last that adds to it.
__device__ u32 column_of(const Row& row, const Cut& cut, float wanted, const Place& place) {
    float sum = place.before;
    u32 found = DRAWN_NOTHING;
    for (u32 i = 0u; i < DRAW_BLOCK; i++) {
        const u32 column = place.block * DRAW_BLOCK + i;
        const u32 key = key_at(row, column);
        if (sum > wanted && found != DRAWN_NOTHING) break;
        if (key > cut.key || (key == cut.key && column < cut.tie_end)) {
            const float w = weight_of(key, row);
            sum += w;
            if (w > 0.0f) found = column;
        }
    }
    return found;
}

// There is a workgroup for a draw: few run side by side, so that registers may be as many as need be, and none spills.
extern "C" __global__ void __launch_bounds__(WG, 1) draw_rows(
    Step step,
    const uint4* __restrict__ keys,  // [draws][blocks][DRAW_BLOCK / 4]
    const uint2* __restrict__ stats, // [draws][blocks] (largest key, bits of the sum)
    u32* __restrict__ drawn,         // [draws]
    Params params
) {
    if (blockIdx.x >= step[NUM_DRAWS]) return;
    const TokenDraw draw = token_draw(step, blockIdx.x);
    const u32 first_block = blockIdx.x * params.blocks;
    u32 most = KEY_EXCLUDED;
    for (u32 block = threadIdx.x; block < params.blocks; block += WG) {
        const u32 largest = stats[first_block + block].x;
        most = largest > most ? largest : most;
    }
    most = ~workgroup_min(~most);
    const u32 top = within(most, KEY_LOWEST, KEY_LARGEST);
    const Row row = {
        keys + first_block * BLOCK_QUADS, stats + first_block, params.blocks, logit_of(top), draw.temperature
    };

    // min_p, then top_k: of the k likeliest tokens, no key is lower than that of the k-th block by largest keys.
    u32 low = KEY_LOWEST;
    if (draw.min_p > 0.0f) low = within(key_of(row.largest + row.temperature * logf(draw.min_p)), KEY_LOWEST, top);
    if (draw.min_p == 1.0f) low = top;
    const bool has_k = draw.top_k > 0u;
    const float k = (float)draw.top_k;
    if (has_k) {
        low = search(BLOCKS, row, low, top + 1u, k);
        low = search(TOKENS, row, low, top + 1u, k);
    }
    const bool cuts_none = low == KEY_LOWEST && !has_k;

    // top_p of the weight of these.
    float ties = 0.0f;
    float weight = 0.0f;
    if (cuts_none) {
        const Cut all = {KEY_LOWEST, 0xffffffffu, true};
        for (u32 block = threadIdx.x; block < params.blocks; block += WG) weight += kept_weight(block, row, all);
        weight = workgroup_sum(weight);
    } else {
        const Sums tokens = tally(TOKENS, row, low, low + 1u, low + 1u);
        const Sums sums = workgroup_sums(Sums{tokens.x, tokens.y, tally(WEIGHTS, row, low + 1u, low + 1u, low + 1u).x});
        ties = sums.x - sums.y;
        if (has_k) ties = fminf(ties, k - sums.y);
        weight = sums.z + ties * weight_of(low, row);
    }
    const bool has_p = draw.top_p < 1.0f;
    const float wanted = draw.top_p * weight;
    u32 key = low;
    if (has_p) {
        // All the tokens below this weight have less than half of what may go.
        const float negligible = 0.5f * (1.0f - draw.top_p) * weight / (float)(params.blocks * DRAW_BLOCK);
        key = within(key_of(row.largest + row.temperature * logf(negligible)), low, top);
        key = search(WEIGHTS, row, key, top + 1u, wanted);
    }

    // How many of the tokens of this key stay, and in which columns.
    Cut cut = {key, 0xffffffffu, cuts_none && !has_p};
    if (!cut.keeps_all) {
        const Sums tokens = tally(TOKENS, row, key, key + 1u, key + 1u);
        const Sums sums = workgroup_sums(Sums{tokens.x, tokens.y, tally(WEIGHTS, row, key + 1u, key + 1u, key + 1u).x});
        const float all_ties = sums.x - sums.y;
        if (key > low || cuts_none) ties = all_ties;
        const float each = weight_of(key, row);
        // (No token has this key where rounding keeps all the sums below what is wanted.)
        if (has_p) ties = fminf(fmaxf(ceilf((wanted - sums.z) / fmaxf(each, 1e-30f)), fminf(ties, 1.0f)), ties);
        weight = sums.z + ties * each;
        if (ties < all_ties) cut.tie_end = end_of_ties(row, cut, ties, find_block(TOKENS, row, cut, ties - 1.0f));
    }

    const float number = draw.uniform * weight;
    const Place place = find_block(WEIGHTS, row, cut, number);
    u32 token = column_of(row, cut, number, place);
    if (most < KEY_LOWEST) token = DRAWN_NOTHING;
    if (most > KEY_LARGEST) token = DRAWN_BROKEN;
    if (threadIdx.x == 0u) drawn[blockIdx.x] = token;
}
