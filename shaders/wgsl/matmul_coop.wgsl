// out = x W^T for many rows of x by cooperative matrices: x and the weight are rounded to f16, sums are f32.
//
// A workgroup makes a tile of TILE x 64 sums, a block of 32 columns of x at a time, staged in workgroup memory. The tile is
// cut into pieces of 2 x 2 matrices; subgroups, of whatever size and number, take turns with the pieces. Sums leave
// through workgroup memory too, half of each piece at a time, because out's edges need not fall on those of a matrix.
//
// The columns of x may be split in SPLITS, as in `matmul`.
const WG = 2u * TILE;
const TILE_W = 64u;
const BLOCK = 32u;
const OUT_COLS = TILE_W / PARTS;
const PIECE = 2u * MATRIX;
const PIECES_ACROSS = TILE_W / PIECE;
const PIECES = TILE / PIECE * PIECES_ACROSS;
// Pieces of one subgroup, where there are as few subgroups as there may be.
const MOST_PIECES = (PIECES * MAX_SUBGROUP_SIZE + WG - 1u) / WG;
const X_LOADS = TILE * BLOCK / 8u / WG;   // octets that an invocation stages
const W_LOADS = TILE_W * BLOCK / 8u / WG;
const SLICE = TILE * MATRIX;
const SLICE_W = TILE_W * MATRIX;
var<workgroup> tile_x: array<f16, TILE * BLOCK>;          // [BLOCK / MATRIX][TILE][MATRIX]: a matrix in one stretch
var<workgroup> tile_w: array<f16, TILE_W * BLOCK>;        // [BLOCK / MATRIX][TILE_W][MATRIX]
var<workgroup> half_tile: array<f32, TILE * TILE_W / 2u>; // [TILE / 2][TILE_W]

// The first of a piece's rows (or columns) in the tile.
fn piece_row(piece: u32) -> u32 { return piece / PIECES_ACROSS * PIECE; }
fn piece_col(piece: u32) -> u32 { return piece % PIECES_ACROSS * PIECE; }
// The column of out and the part of the weight that a column of the tile belongs to. Of two parts, a piece has one matrix
// each, so that a column's sums leave together.
fn tile_col(col: u32) -> vec2<u32> {
    let matrix = col / MATRIX;
    return vec2<u32>(matrix / PARTS * MATRIX + col % MATRIX, matrix % PARTS);
}
// A large x becomes the largest f16, not infinity.
fn half(v: f32) -> f16 { return f16(clamp(v, -65504.0, 65504.0)); }

// What an invocation stages of a block, as it is loaded: octet i % 4 of row i / 4, from i = li on every WG-th.
struct Loaded {
    xs: array<Vec8, X_LOADS>,
    words: array<RawOctet, W_LOADS>,
    scales: array<u32, W_LOADS>,
}

// Where a block of a row of the tile lies in the weight.
fn w_block(first_col: u32, row: u32, block: u32) -> u32 {
    let col = tile_col(row);
    return block_index(weight_row(first_col + col.x, col.y), block, params.blocks);
}
fn load(li: u32, first_row: u32, rows: u32, first_col: u32, block: u32) -> Loaded {
    var loaded: Loaded;
    for (var l = 0u; l < X_LOADS; l++) {
        let i = li + l * WG;
        let at = (min(first_row + i / 4u, rows - 1u) * params.blocks + block) * 8u + i % 4u * 2u;
        loaded.xs[l] = Vec8(x[at], x[at + 1u]);
    }
    for (var l = 0u; l < W_LOADS; l++) {
        let i = li + l * WG;
        let at = w_block(first_col, i / 4u, block);
        loaded.words[l] = raw_octet(at * 4u + i % 4u);
        loaded.scales[l] = raw_scale(at);
    }
    return loaded;
}
// Where octet i % 4 of row i / 4 begins in a staged tile, whose slices are so large.
fn staged_at(i: u32, slice: u32) -> u32 {
    let octet = i % 4u;
    return octet * 8u / MATRIX * slice + i / 4u * MATRIX + octet * 8u % MATRIX;
}

@compute @workgroup_size(WG)
fn matmul_coop(
    @builtin(local_invocation_index) li: u32,
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) num_subgroups: u32,
) {
    let rows = num_rows(params.rows);
    let first_row = wg.y * TILE;
    let first_col = wg.x / SPLITS * OUT_COLS;
    let split = wg.x % SPLITS;
    let first_block = split * params.blocks / SPLITS;
    let end_block = (split + 1u) * params.blocks / SPLITS;
    for (var i = li; i < TILE * TILE_W / 2u; i += WG) { half_tile[i] = 0.0; }
    workgroupBarrier();
    var acc: array<MatrixC, 4u * MOST_PIECES>;
    for (var i = 0u; i < 4u * MOST_PIECES; i++) { acc[i] = coopLoadT<MatrixC>(&half_tile[0], TILE_W); }

    // Each block is loaded while the two before it are multiplied.
    var loaded = load(li, first_row, rows, first_col, first_block);
    var next = load(li, first_row, rows, first_col, min(first_block + 1u, end_block - 1u));
    for (var block = first_block; block < end_block; block++) {
        workgroupBarrier();
        for (var l = 0u; l < X_LOADS; l++) {
            let at = staged_at(li + l * WG, SLICE);
            for (var e = 0u; e < 4u; e++) {
                tile_x[at + e] = half(loaded.xs[l].lo[e]);
                tile_x[at + 4u + e] = half(loaded.xs[l].hi[e]);
            }
        }
        for (var l = 0u; l < W_LOADS; l++) {
            let i = li + l * WG;
            let w = unpack_weights(loaded.words[l], scale_of(loaded.scales[l], w_block(first_col, i / 4u, block)));
            let at = staged_at(i, SLICE_W);
            for (var e = 0u; e < 4u; e++) {
                tile_w[at + e] = half(w.lo[e]);
                tile_w[at + 4u + e] = half(w.hi[e]);
            }
        }
        workgroupBarrier();
        loaded = next;
        next = load(li, first_row, rows, first_col, min(block + 2u, end_block - 1u));
        for (var p = 0u; p < MOST_PIECES; p++) {
            let piece = subgroup + p * num_subgroups;
            if (piece >= PIECES) { break; }
            for (var slice = 0u; slice < BLOCK / MATRIX; slice++) {
                let x_at = slice * SLICE + piece_row(piece) * MATRIX;
                let w_at = slice * SLICE_W + piece_col(piece) * MATRIX;
                let a0 = coopLoadT<MatrixA>(&tile_x[x_at], MATRIX);
                let a1 = coopLoadT<MatrixA>(&tile_x[x_at + MATRIX * MATRIX], MATRIX);
                // The transpose of the weight's rows.
                let b0 = coopLoad<MatrixB>(&tile_w[w_at], MATRIX);
                let b1 = coopLoad<MatrixB>(&tile_w[w_at + MATRIX * MATRIX], MATRIX);
                acc[4u * p] = coopMultiplyAdd(a0, b0, acc[4u * p]);
                acc[4u * p + 1u] = coopMultiplyAdd(a0, b1, acc[4u * p + 1u]);
                acc[4u * p + 2u] = coopMultiplyAdd(a1, b0, acc[4u * p + 2u]);
                acc[4u * p + 3u] = coopMultiplyAdd(a1, b1, acc[4u * p + 3u]);
            }
        }
    }

    for (var upper = 0u; upper < 2u; upper++) {
        workgroupBarrier();
        for (var p = 0u; p < MOST_PIECES; p++) {
            let piece = subgroup + p * num_subgroups;
            if (piece >= PIECES) { break; }
            let at = piece_row(piece) / 2u * TILE_W + piece_col(piece);
            coopStoreT(acc[4u * p + 2u * upper], &half_tile[at], TILE_W);
            coopStoreT(acc[4u * p + 2u * upper + 1u], &half_tile[at + MATRIX], TILE_W);
        }
        workgroupBarrier();
        for (var i = li; i < TILE / 2u * OUT_COLS / WIDTH; i += WG) {
            let half_row = i / (OUT_COLS / WIDTH);
            let out_col = i % (OUT_COLS / WIDTH) * WIDTH;
            let row = first_row + half_row / MATRIX * PIECE + upper * MATRIX + half_row % MATRIX;
            let col = first_col + out_col;
            if (row < rows && col < params.cols) {
                let at = half_row * TILE_W + out_col / MATRIX * MATRIX * PARTS + out_col % MATRIX;
                var sums: Sums;
                for (var s = 0u; s < PARTS * WIDTH; s++) { sums[s] = half_tile[at + s / WIDTH * MATRIX + s % WIDTH]; }
                finish(split * rows + row, col, sums);
            }
        }
    }
}
