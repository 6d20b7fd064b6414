// out = x W^T for many rows of x on tensor cores: TILE_ROWS x TILE_COLS tiles, f32 accumulation. Both are halves there: x as
// round_rows left it, weights of other formats rounded on their way.
//
// Tiles of DEEP blocks of 32 columns of x pass through a ring of STAGES in workgroup memory, on their way while those before
// are multiplied. The subgroups share a tile DOWN by ACROSS, and each of DEEP takes one of its blocks: few rows leave little to
// share otherwise, and all of the weight has to be read. Their sums meet at the end, in a fixed order.
constexpr u32 STEP = 32u * DEEP;
constexpr u32 STRIDE = STEP + 8u; // halves of a staged row: eight neighbouring rows begin in different banks
constexpr u32 SUBGROUP_ROWS = TILE_ROWS / DOWN;
constexpr u32 SUBGROUP_COLS = TILE_COLS / ACROSS;
constexpr u32 M = SUBGROUP_ROWS / 16u; // matrices of a subgroup, down
constexpr u32 N = SUBGROUP_COLS / 8u;  // and across: a part of each column after the other
constexpr u32 OUT_N = N / PARTS;
constexpr u32 X_OCTETS = TILE_ROWS * DEEP * 4u / WG; // octets of a stage that an invocation brings
constexpr u32 W_OCTETS = TILE_COLS * DEEP * 4u / WG;

struct Stage {
    u16 x[TILE_ROWS][STRIDE];
    u16 w[TILE_COLS][STRIDE];
};
static_assert(sizeof(Stage) * STAGES == SHARED_BYTES, "the host asks for as much");
static_assert((DEEP - 1u) * DOWN * ACROSS * M * N * 4u * SUBGROUP * sizeof(float) <= SHARED_BYTES, "the sums have room there");

extern "C" __global__ void __launch_bounds__(WG, GROUPS_AT_ONCE) matmul_tensor(
    Step step,
    WEIGHT_ARGUMENTS,
    const uint4* __restrict__ x,    // [R][blocks * 4] halves
    const float* __restrict__ bias, // [rows of the weight]
    OUTPUT_ARGUMENTS,
    Params params
) {
    SHARED_MEMORY(shared);
    Stage* stages = (Stage*)shared;
    const u32 rows = num_rows(step, params.rows);
    const u32 octets = params.blocks * 4u;
    const u32 first_row = blockIdx.x * TILE_ROWS;
    const u32 first_col = blockIdx.y * (TILE_COLS / PARTS);
    if (first_row >= rows) return;
    const u32 lane = threadIdx.x % SUBGROUP;
    const u32 deep = threadIdx.x / SUBGROUP % DEEP;
    const u32 group = threadIdx.x / SUBGROUP / DEEP;
    const u32 group_row = group % DOWN * SUBGROUP_ROWS;
    const u32 group_col = group / DOWN * SUBGROUP_COLS;

    // The row of the weight that stands in row `staged` of a tile.
    const auto row_of = [&](u32 staged) {
        const u32 within = staged % SUBGROUP_COLS;
        const u32 col = first_col + staged / SUBGROUP_COLS * (OUT_N * 8u) + within % (OUT_N * 8u);
        return weight_row(params, col, within / (OUT_N * 8u));
    };
    // What an invocation brings of a stage: blocks past the last are not multiplied, and may be any.
    const auto octet_of = [&](u32 tile, u32 in_row) { return least(tile * DEEP * 4u + in_row, octets - 1u); };
    RawOctet next_w[W_OCTETS]; // where they are no halves yet
    const auto begin = [&](u32 tile) {
        Stage& stage = stages[tile % STAGES];
#pragma unroll
        for (u32 i = 0u; i < X_OCTETS; i++) {
            const u32 staged = i * WG + threadIdx.x, row = staged / (4u * DEEP), octet = staged % (4u * DEEP);
            copy_async(&stage.x[row][octet * 8u], x + least(first_row + row, rows - 1u) * octets + octet_of(tile, octet));
        }
#pragma unroll
        for (u32 i = 0u; i < W_OCTETS; i++) {
            const u32 staged = i * WG + threadIdx.x, row = staged / (4u * DEEP), octet = staged % (4u * DEEP);
            const u32 at = row_of(row) * octets + octet_of(tile, octet);
            if (WEIGHT_IS_HALVES) copy_async(&stage.w[row][octet * 8u], WEIGHT_PLANES.weights + at);
            else next_w[i] = raw_octet(WEIGHT_PLANES, at);
        }
    };
    const auto end = [&](u32 tile) {
        if (WEIGHT_IS_HALVES) return;
        Stage& stage = stages[tile % STAGES];
#pragma unroll
        for (u32 i = 0u; i < W_OCTETS; i++) {
            const u32 staged = i * WG + threadIdx.x;
            uint4* at = (uint4*)&stage.w[staged / (4u * DEEP)][staged % (4u * DEEP) * 8u];
            *at = pack_octet(weights_of(next_w[i]));
        }
    };
    const u32 tiles = ceil_div(params.blocks, DEEP);
#pragma unroll
    for (u32 tile = 0u; tile < STAGES - 1u; tile++) {
        if (tile < tiles) {
            begin(tile);
            end(tile);
        }
        close_copies();
    }
    float acc[M][N][4] = {};
    for (u32 tile = 0u; tile < tiles; tile++) {
        wait_for_copies<STAGES - 2u>();
        __syncthreads(); // all have brought their part of this tile, and nobody reads the one before any more
        const bool has_next = tile + STAGES - 1u < tiles;
        if (has_next) begin(tile + STAGES - 1u);
        close_copies();

        const Stage& stage = stages[tile % STAGES];
        if (tile * DEEP + deep < params.blocks) {
            u32 b[N][2][2]; // of the block's halves of 16
#pragma unroll
            for (u32 n = 0u; n < N; n++) {
                u32 four[4];
                load_matrices(four, &stage.w[group_col + n * 8u + lane % 8u][deep * 32u + lane / 8u * 8u]);
                b[n][0][0] = four[0];
                b[n][0][1] = four[1];
                b[n][1][0] = four[2];
                b[n][1][1] = four[3];
            }
#pragma unroll
            for (u32 m = 0u; m < M; m++) {
                u32 a[2][4];
#pragma unroll
                for (u32 h = 0u; h < 2u; h++) {
                    const u32 at = deep * 32u + h * 16u + lane / 16u * 8u;
                    load_matrices(a[h], &stage.x[group_row + m * 16u + lane % 16u][at]);
                }
#pragma unroll
                for (u32 n = 0u; n < N; n++) {
                    multiply_f16(acc[m][n], a[0], b[n][0]);
                    multiply_f16(acc[m][n], a[1], b[n][1]);
                }
            }
        }
        if (has_next) end(tile + STAGES - 1u);
    }
    if (DEEP > 1u) {
        __syncthreads(); // the stages are read; what may still be on its way there is nothing
        float* room = (float*)shared;
        const auto at = [&](u32 of, u32 m, u32 n, u32 i) {
            return ((((of - 1u) * DOWN * ACROSS + group) * M + m) * N + n) * 4u * SUBGROUP + i * SUBGROUP + lane;
        };
        if (deep > 0u) {
#pragma unroll
            for (u32 m = 0u; m < M; m++) {
#pragma unroll
                for (u32 n = 0u; n < N; n++) {
#pragma unroll
                    for (u32 i = 0u; i < 4u; i++) room[at(deep, m, n, i)] = acc[m][n][i];
                }
            }
        }
        __syncthreads();
        if (deep > 0u) return;
#pragma unroll
        for (u32 of = 1u; of < DEEP; of++) {
#pragma unroll
            for (u32 m = 0u; m < M; m++) {
#pragma unroll
                for (u32 n = 0u; n < N; n++) {
#pragma unroll
                    for (u32 i = 0u; i < 4u; i++) acc[m][n][i] += room[at(of, m, n, i)];
                }
            }
        }
    }
#pragma unroll
    for (u32 m = 0u; m < M; m++) {
#pragma unroll
        for (u32 n = 0u; n < OUT_N; n++) {
#pragma unroll
            for (u32 i = 0u; i < 4u; i += WIDTH) {
                const u32 row = first_row + group_row + m * 16u + lane / 4u + i / 2u * 8u;
                const u32 col = first_col + group_col / PARTS + n * 8u + lane % 4u * 2u + i % 2u;
                float sums[PARTS * WIDTH];
#pragma unroll
                for (u32 s = 0u; s < PARTS * WIDTH; s++) sums[s] = acc[m][s / WIDTH * OUT_N + n][i + s % WIDTH];
                if (row < rows && col < params.cols) finish(step, params, bias, OUTPUTS, row, col, sums);
            }
        }
    }
}
