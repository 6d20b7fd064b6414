// out = x W^T for many rows of x on tensor cores: TILE_ROWS x 128 tiles staged through workgroup memory, f32 accumulation.
// x is the sum of PARTS halves: with one it is rounded, with two (three of bfloat16) the product is as good as in f32.
// Weights are exact: quantised ones are multiplied as integers, and scaled block by block.
constexpr u32 TILE_COLS = 128u;
constexpr u32 STRIDE = 40u; // halves of a staged row: a block, and as much as puts the rows of a matrix in different banks
constexpr u32 SUBGROUP_ROWS = TILE_ROWS / GROUPS_DOWN;
constexpr u32 SUBGROUP_COLS = TILE_COLS / (WG / SUBGROUP / GROUPS_DOWN);
constexpr u32 M = SUBGROUP_ROWS / 16u; // matrices of a subgroup, down
constexpr u32 N = SUBGROUP_COLS / 8u;  // and across
constexpr u32 X_OCTETS = (TILE_ROWS * 4u + WG - 1u) / WG; // octets that an invocation stages
constexpr u32 W_OCTETS = TILE_COLS * 4u / WG;

// The next half of each element; v becomes what is left.
__device__ __forceinline__ uint4 next_part(Vec8& v) {
    u32 words[4];
#pragma unroll
    for (u32 i = 0u; i < 4u; i++) {
        float* pair = &v.e[2u * i];
        if (WEIGHT_BF16) {
            u32 bits[2];
#pragma unroll
            for (u32 j = 0u; j < 2u; j++) {
                const u32 b = __float_as_uint(pair[j]);
                bits[j] = (b + 0x7fffu + ((b >> 16u) & 1u)) & 0xffff0000u; // to the nearest
                pair[j] -= __uint_as_float(bits[j]);
            }
            words[i] = bits[1] | bits[0] >> 16u;
        } else {
            words[i] = pack_halves(fmaxf(fminf(pair[0], 65504.0f), -65504.0f), fmaxf(fminf(pair[1], 65504.0f), -65504.0f));
            const float2 taken = unpack_halves(words[i]);
            pair[0] -= taken.x;
            pair[1] -= taken.y;
        }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}
__device__ __forceinline__ void multiply(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    if (WEIGHT_BF16) multiply_bf16(d, a, b);
    else multiply_f16(d, a, b);
}

extern "C" __global__ void __launch_bounds__(WG) matmul_tensor(
    Step step,
    WEIGHT_ARGUMENTS,
    const float4* __restrict__ x,   // [R][blocks * 8]
    const float* __restrict__ bias, // [out_stride]
    float* __restrict__ out,        // [R][out_stride]
    Params params
) {
    __shared__ __align__(16) u16 tile_x[PARTS][TILE_ROWS][STRIDE];
    __shared__ __align__(16) u16 tile_w[TILE_COLS][STRIDE];
    __shared__ float2 tile_scale[TILE_COLS];
    const u32 rows = num_rows(step, params.rows);
    const u32 octets = params.blocks * 4u;
    const u32 first_row = blockIdx.y * TILE_ROWS;
    const u32 first_col = blockIdx.x * TILE_COLS;
    if (first_row >= rows) return;
    const u32 lane = threadIdx.x % SUBGROUP;
    const u32 subgroup = threadIdx.x / SUBGROUP;
    const u32 group_row = subgroup % GROUPS_DOWN * SUBGROUP_ROWS;
    const u32 group_col = subgroup / GROUPS_DOWN * SUBGROUP_COLS;

    // The next block of the invocation's rows, on its way from memory while the tile before is multiplied.
    Vec8 next_x[X_OCTETS];
    uint4 next_w[W_OCTETS];
    float2 next_scale = make_float2(1.0f, 0.0f);
    const auto load = [&](u32 block) {
#pragma unroll
        for (u32 i = 0u; i < X_OCTETS; i++) {
            const u32 staged = least(i * WG + threadIdx.x, TILE_ROWS * 4u - 1u);
            const float4* at = x + 2u * (least(first_row + staged / 4u, rows - 1u) * octets + block * 4u + staged % 4u);
            next_x[i] = vec8(__ldg(at), __ldg(at + 1));
        }
#pragma unroll
        for (u32 i = 0u; i < W_OCTETS; i++) {
            const u32 staged = i * WG + threadIdx.x;
            const u32 row = least(first_col + staged / 4u, params.cols - 1u);
            next_w[i] = halves8(WEIGHT_PLANES, row * octets + block * 4u + staged % 4u);
        }
        if (WEIGHT_HAS_SCALE && threadIdx.x < TILE_COLS) {
            const u32 row = least(first_col + threadIdx.x, params.cols - 1u);
            next_scale = block_scale(WEIGHT_PLANES, row * params.blocks + block);
        }
    };
    float acc[M][N][4] = {};
    load(0u);
    for (u32 block = 0u; block < params.blocks; block++) {
        __syncthreads();
#pragma unroll
        for (u32 i = 0u; i < X_OCTETS; i++) {
            const u32 staged = i * WG + threadIdx.x;
            if (staged < TILE_ROWS * 4u) {
#pragma unroll
                for (u32 p = 0u; p < PARTS; p++) {
                    *(uint4*)&tile_x[p][staged / 4u][staged % 4u * 8u] = next_part(next_x[i]);
                }
            }
        }
#pragma unroll
        for (u32 i = 0u; i < W_OCTETS; i++) {
            const u32 staged = i * WG + threadIdx.x;
            *(uint4*)&tile_w[staged / 4u][staged % 4u * 8u] = next_w[i];
        }
        if (WEIGHT_HAS_SCALE && threadIdx.x < TILE_COLS) tile_scale[threadIdx.x] = next_scale;
        __syncthreads();
        if (block + 1u < params.blocks) load(block + 1u);

        u32 b[N][2][2]; // of the block's halves of 16
#pragma unroll
        for (u32 n = 0u; n < N; n++) {
            u32 four[4];
            load_matrices(four, &tile_w[group_col + n * 8u + lane % 8u][lane / 8u * 8u]);
            b[n][0][0] = four[0];
            b[n][0][1] = four[1];
            b[n][1][0] = four[2];
            b[n][1][1] = four[3];
        }
#pragma unroll
        for (u32 m = 0u; m < M; m++) {
            u32 a[2][PARTS][4];
#pragma unroll
            for (u32 h = 0u; h < 2u; h++) {
#pragma unroll
                for (u32 p = 0u; p < PARTS; p++) {
                    load_matrices(a[h][p], &tile_x[p][group_row + m * 16u + lane % 16u][h * 16u + lane / 16u * 8u]);
                }
            }
            const auto product = [&](float (&d)[4], const u32 (&first)[2], const u32 (&second)[2]) {
#pragma unroll
                for (u32 p = 0u; p < PARTS; p++) {
                    multiply(d, a[0][p], first);
                    multiply(d, a[1][p], second);
                }
            };
            // Sums of the block's x, for what the minimum adds: the product with ones.
            float sums[4] = {};
            if (WEIGHT_HAS_MINIMUM) {
                const u32 ones[2] = {0x3c003c00u, 0x3c003c00u};
                product(sums, ones, ones);
            }
#pragma unroll
            for (u32 n = 0u; n < N; n++) {
                if (!WEIGHT_HAS_SCALE) {
                    product(acc[m][n], b[n][0], b[n][1]);
                    continue;
                }
                float d[4] = {};
                product(d, b[n][0], b[n][1]);
#pragma unroll
                for (u32 i = 0u; i < 4u; i++) {
                    const float2 scale = tile_scale[group_col + n * 8u + lane % 4u * 2u + i % 2u];
                    acc[m][n][i] = fmaf(scale.x, d[i], acc[m][n][i]);
                    if (WEIGHT_HAS_MINIMUM) acc[m][n][i] = fmaf(scale.y, sums[i], acc[m][n][i]);
                }
            }
        }
    }
#pragma unroll
    for (u32 m = 0u; m < M; m++) {
#pragma unroll
        for (u32 n = 0u; n < N; n++) {
#pragma unroll
            for (u32 i = 0u; i < 4u; i++) {
                const u32 row = first_row + group_row + m * 16u + lane / 4u + i / 2u * 8u;
                const u32 col = first_col + group_col + n * 8u + lane % 4u * 2u + i % 2u;
                if (row < rows && col < params.cols) write_product(params, bias, out, row, col, acc[m][n][i]);
            }
        }
    }
}
