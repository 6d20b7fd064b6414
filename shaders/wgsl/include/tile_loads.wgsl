// What products in tiles load of a block of 32 columns, to be staged: invocation li octet li % 4 of row li / 4 of x and of the
// weight, and of every STAGED-th row from there on. `tile_col` says which column of out, behind the first, and which part of
// the weight a row of the weight's tile is.
const STAGED = WG / 4u;
const X_LOADS = TILE / STAGED;
const W_LOADS = TILE_W / STAGED;
struct Loaded {
    xs: array<Vec8, X_LOADS>,
    words: array<RawOctet, W_LOADS>,
    scales: array<u32, W_LOADS>,
}
// Where that is in block 0.
struct Places {
    xs: array<u32, X_LOADS>, // quads of x
    ws: array<u32, W_LOADS>, // blocks of the weight
}
fn places_of(li: u32, first_row: u32, rows: u32, first_col: u32) -> Places {
    var places: Places;
    for (var l = 0u; l < X_LOADS; l++) {
        let row = min(first_row + li / 4u + l * STAGED, rows - 1u);
        places.xs[l] = row * params.blocks * 8u + li % 4u * 2u;
    }
    for (var l = 0u; l < W_LOADS; l++) {
        let col = tile_col(li / 4u + l * STAGED);
        places.ws[l] = block_index(weight_row(first_col + col.x, col.y), 0u, params.blocks);
    }
    return places;
}
fn load(places: Places, octet: u32, block: u32) -> Loaded {
    var loaded: Loaded;
    for (var l = 0u; l < X_LOADS; l++) {
        let at = places.xs[l] + block * 8u;
        loaded.xs[l] = Vec8(x[at], x[at + 1u]);
    }
    for (var l = 0u; l < W_LOADS; l++) {
        let at = w_block(places, l, block);
        loaded.words[l] = raw_octet(at * 4u + octet);
        loaded.scales[l] = raw_scale(at);
    }
    return loaded;
}
fn w_block(places: Places, l: u32, block: u32) -> u32 { return places.ws[l] + block * WEIGHT_GROUP; }
