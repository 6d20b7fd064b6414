// out = x W^T for many rows of x by cooperative matrices: x and the weight are rounded to f16, sums are f32.
//
// A workgroup makes a tile of TILE x TILE_W sums, a block of 32 columns of x at a time, staged in workgroup memory. The tile is
// cut into two by two pieces; subgroups, of whatever size and number, take turns with them. Sums leave through workgroup memory
// too, two matrices of two pieces at a time, because out's edges need not fall on those of a matrix.
//
// The columns of x may be split in SPLITS, as in `matmul`.
const WG = 128u;
const BLOCK = 32u;
const OUT_COLS = TILE_W / PARTS;
const PIECES = 4u;
const PIECE_ROWS = TILE / 2u;
const PIECE_COLS = TILE_W / 2u;
const DOWN = PIECE_ROWS / MATRIX; // matrices of a piece
const ACROSS = PIECE_COLS / MATRIX;
// Pieces of one subgroup, where there are as few subgroups as there may be.
const MOST_PIECES = (PIECES * MAX_SUBGROUP_SIZE + WG - 1u) / WG;
const ROW_CELLS = MATRIX / CELL; // of a matrix
const SLICE = TILE * ROW_CELLS;
const SLICE_W = TILE_W * ROW_CELLS;
var<workgroup> tile_x: array<Cell, SLICE * BLOCK / MATRIX>;   // [BLOCK / MATRIX][TILE][MATRIX]: a matrix in one stretch
var<workgroup> tile_w: array<Cell, SLICE_W * BLOCK / MATRIX>; // [BLOCK / MATRIX][TILE_W][MATRIX]
const LEAVING = 4u * MATRIX; // columns of `leaving`: two matrices of two pieces
var<workgroup> leaving: array<f32, MATRIX * LEAVING>;

// The first of a piece's rows (or columns) in the tile.
fn piece_row(piece: u32) -> u32 { return piece / 2u * PIECE_ROWS; }
fn piece_col(piece: u32) -> u32 { return piece % 2u * PIECE_COLS; }
// Of two parts, matrices come in turns, so that a column's sums leave together.
fn tile_col(row: u32) -> vec2<u32> {
    let matrix = row / MATRIX;
    return vec2<u32>(matrix / PARTS * MATRIX + row % MATRIX, matrix % PARTS);
}

// Where the quads of octet li % 4 of row li / 4 stand in a staged tile, whose slices are so large. The first quads of a row's
// octets are together, in the first half of even slices and in the second of odd ones, so that neighbours store to banks that
// all differ. The order of columns does not matter as long as it is that of both tiles.
fn staged_at(li: u32, slice: u32) -> vec2<u32> {
    const OCTETS = MATRIX / 8u;
    const QUAD = 4u / CELL;
    let octet = li % 4u;
    let at = octet / OCTETS * slice + li / 4u * ROW_CELLS + octet % OCTETS * QUAD;
    let first = octet / OCTETS % 2u * OCTETS * QUAD;
    return vec2<u32>(at + first, at + OCTETS * QUAD - first);
}
const LOAD_CELLS = STAGED * ROW_CELLS; // from one of an invocation's octets to the next
fn stage_x(at: vec2<u32>, halves: Halves) {
    for (var c = 0u; c < 4u / CELL; c++) {
        tile_x[at.x + c] = cell_of(halves.lo, c);
        tile_x[at.y + c] = cell_of(halves.hi, c);
    }
}
fn stage_w(at: vec2<u32>, halves: Halves) {
    for (var c = 0u; c < 4u / CELL; c++) {
        tile_w[at.x + c] = cell_of(halves.lo, c);
        tile_w[at.y + c] = cell_of(halves.hi, c);
    }
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
    for (var i = li; i < MATRIX * LEAVING; i += WG) { leaving[i] = 0.0; }
    workgroupBarrier();
    var acc: array<MatrixC, MOST_PIECES * DOWN * ACROSS>;
    for (var i = 0u; i < MOST_PIECES * DOWN * ACROSS; i++) { acc[i] = coopLoadT<MatrixC>(&leaving[0], LEAVING); }

    // Each block is loaded while the two before it are multiplied.
    let places = places_of(li, first_row, rows, first_col);
    let octet = li % 4u;
    let x_at = staged_at(li, SLICE);
    let w_at = staged_at(li, SLICE_W);
    var loaded = load(places, octet, first_block);
    var next = load(places, octet, min(first_block + 1u, end_block - 1u));
    for (var block = first_block; block < end_block; block++) {
        workgroupBarrier();
        for (var l = 0u; l < X_LOADS; l++) { stage_x(x_at + l * LOAD_CELLS, x_halves(loaded.xs[l])); }
        for (var l = 0u; l < W_LOADS; l++) {
            let scale = scale_of(loaded.scales[l], w_block(places, l, block));
            stage_w(w_at + l * LOAD_CELLS, weight_halves(loaded.words[l], scale));
        }
        workgroupBarrier();
        loaded = next;
        next = load(places, octet, min(block + 2u, end_block - 1u));
        for (var p = 0u; p < MOST_PIECES; p++) {
            let piece = subgroup + p * num_subgroups;
            if (piece >= PIECES) { break; }
            for (var slice = 0u; slice < BLOCK / MATRIX; slice++) {
                let first_x = slice * SLICE + piece_row(piece) * ROW_CELLS;
                let first_w = slice * SLICE_W + piece_col(piece) * ROW_CELLS;
                var xs: array<MatrixA, DOWN>;
                for (var i = 0u; i < DOWN; i++) {
                    xs[i] = coopLoadT<MatrixA>(&tile_x[first_x + i * MATRIX * ROW_CELLS], ROW_CELLS);
                }
                for (var j = 0u; j < ACROSS; j++) {
                    // The transpose of the weight's rows.
                    let w = coopLoad<MatrixB>(&tile_w[first_w + j * MATRIX * ROW_CELLS], ROW_CELLS);
                    for (var i = 0u; i < DOWN; i++) {
                        let at = (p * DOWN + i) * ACROSS + j;
                        acc[at] = coopMultiplyAdd(xs[i], w, acc[at]);
                    }
                }
            }
        }
    }

    const PIECE_OUT = 2u * MATRIX / PARTS; // columns of out that leave a piece at a time
    const GROUPS = 2u * PIECE_OUT / WIDTH; // of columns that leave together
    for (var turn = 0u; turn < 2u * DOWN * ACROSS / 2u; turn++) {
        let lower = turn % 2u; // which row of pieces
        let i = turn / 2u / (ACROSS / 2u);
        let j = turn / 2u % (ACROSS / 2u) * 2u;
        workgroupBarrier();
        for (var p = 0u; p < MOST_PIECES; p++) {
            let piece = subgroup + p * num_subgroups;
            if (piece >= PIECES) { break; }
            if (piece / 2u == lower) {
                let at = (p * DOWN + i) * ACROSS + j;
                let to = piece % 2u * 2u * MATRIX;
                coopStoreT(acc[at], &leaving[to], LEAVING);
                coopStoreT(acc[at + 1u], &leaving[to + MATRIX], LEAVING);
            }
        }
        workgroupBarrier();
        for (var k = li; k < MATRIX * GROUPS; k += WG) {
            let half = k % GROUPS / (GROUPS / 2u);
            let in_piece = k % (GROUPS / 2u) * WIDTH;
            let row = first_row + lower * PIECE_ROWS + i * MATRIX + k / GROUPS;
            let col = first_col + (half * PIECE_COLS + j * MATRIX) / PARTS + in_piece;
            if (row < rows && col < params.cols) {
                let at = k / GROUPS * LEAVING + half * 2u * MATRIX + in_piece;
                var sums: Sums;
                for (var s = 0u; s < PARTS * WIDTH; s++) { sums[s] = leaving[at + s / WIDTH * MATRIX + s % WIDTH]; }
                finish(split * rows + row, col, sums);
            }
        }
    }
}
