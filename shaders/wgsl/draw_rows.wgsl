// Second stage of the draws, a workgroup for each: which keys stay, and which of them the uniform number falls on.
//
// What stays is a number of tokens from the top of the ranking, so it is said by its lowest key and by how many of the
// tokens of this key stay. Nothing is sorted: the key is searched for, four ways at a time, by sums over the row, and the
// column by sums over ever shorter ranges of blocks. A block whose largest key is too low is not looked into.
//
// Barriers must be in uniform control flow: what is searched for follows from the draw's parameters alone, and every loop
// around a reduction has a number of rounds that is known before; rounds with nothing left to do look at no block.
struct Params { blocks: u32 }
var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> keys: array<vec4<u32>>;  // [draws][blocks][DRAW_BLOCK / 4]
@group(0) @binding(2) var<storage, read> stats: array<vec2<u32>>; // [draws][blocks] (largest key, bits of the sum)
@group(0) @binding(3) var<storage, read_write> drawn: array<u32>; // [draws]

const BLOCK_QUADS = DRAW_BLOCK / 4u;
// Enough for 32-bit keys a quarter at a time.
const ROUNDS = 18u;
const DRAWN_BROKEN = 0xffffffffu;
const DRAWN_NOTHING = 0xfffffffeu;

// A draw's row.
struct Row { first_block: u32, largest: f32, temperature: f32 }
// Which of its tokens stay: those of higher keys, and those of this key in columns before `tie_end`.
struct Cut { key: u32, tie_end: u32, keeps_all: bool }

fn weights_of(k: vec4<u32>, row: Row) -> vec4<f32> {
    return vec4<f32>(
        draw_weight(k.x, row.largest, row.temperature), draw_weight(k.y, row.largest, row.temperature),
        draw_weight(k.z, row.largest, row.temperature), draw_weight(k.w, row.largest, row.temperature),
    );
}
fn sum_of(v: vec4<f32>) -> f32 { return v.x + v.y + v.z + v.w; }

// What `tally` sums up.
const WEIGHTS = 0u;
const TOKENS = 1u;
const BLOCKS = 2u; // by their largest keys

// This invocation's share of the sums over keys of at least `lowest.x`, `.y` and `.z`, which ascend; of the first `end`
// blocks.
fn tally(what: u32, row: Row, end: u32, lowest: vec3<u32>, inv: Invocation) -> vec3<f32> {
    var sums = vec3<f32>(0.0);
    for (var b = inv.index; b < end; b += REDUCE_WG) {
        let block = row.first_block + b;
        let largest = stats[block].x;
        if (largest < lowest.x) { continue; }
        if (what == BLOCKS) {
            sums += select(vec3<f32>(0.0), vec3<f32>(1.0), vec3<u32>(largest) >= lowest);
            continue;
        }
        for (var q = 0u; q < BLOCK_QUADS; q++) {
            let k = keys[block * BLOCK_QUADS + q];
            var w = vec4<f32>(1.0);
            if (what == WEIGHTS) { w = weights_of(k, row); }
            sums.x += sum_of(select(vec4<f32>(0.0), w, k >= vec4<u32>(lowest.x)));
            sums.y += sum_of(select(vec4<f32>(0.0), w, k >= vec4<u32>(lowest.y)));
            sums.z += sum_of(select(vec4<f32>(0.0), w, k >= vec4<u32>(lowest.z)));
        }
    }
    return sums;
}

// The largest key in [first, end) such that the sum over keys of at least it is `wanted` or more; `first` if there is none.
fn search(what: u32, row: Row, first: u32, end: u32, wanted: f32, inv: Invocation) -> u32 {
    var low = first;
    var high = end;
    for (var round = 0u; round < ROUNDS; round++) {
        let range = high - low;
        let at = vec3<u32>(low) + vec3<u32>(range / 4u, range / 2u, range / 2u + range / 4u);
        let sums = workgroup_sum3(tally(what, row, select(0u, params.blocks, range > 1u), at, inv), inv);
        if (sums.z >= wanted) { low = at.z; }
        else if (sums.y >= wanted) { low = at.y; high = at.z; }
        else if (sums.x >= wanted) { low = at.x; high = at.y; }
        else { high = at.x; }
    }
    return low;
}

// Weight of the tokens of a block that stay.
fn kept_weight(b: u32, row: Row, cut: Cut) -> f32 {
    let block = row.first_block + b;
    let stat = stats[block];
    if (stat.x < cut.key) { return 0.0; }
    if (cut.keeps_all) { return bitcast<f32>(stat.y) * draw_weight(stat.x, row.largest, row.temperature); }
    var sum = 0.0;
    for (var q = 0u; q < BLOCK_QUADS; q++) {
        let k = keys[block * BLOCK_QUADS + q];
        let columns = vec4<u32>(b * DRAW_BLOCK + q * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
        let w = weights_of(k, row);
        let tied = select(vec4<f32>(0.0), w, columns < vec4<u32>(cut.tie_end));
        let from_cut = select(vec4<f32>(0.0), tied, k == vec4<u32>(cut.key));
        sum += sum_of(select(from_cut, w, k > vec4<u32>(cut.key)));
    }
    return sum;
}

// How many tokens of a block have this key.
fn num_tied(b: u32, row: Row, key: u32) -> f32 {
    let block = row.first_block + b;
    if (stats[block].x < key) { return 0.0; }
    var sum = 0.0;
    for (var q = 0u; q < BLOCK_QUADS; q++) {
        sum += sum_of(select(vec4<f32>(0.0), vec4<f32>(1.0), keys[block * BLOCK_QUADS + q] == vec4<u32>(key)));
    }
    return sum;
}

// A block, and the sum over those before it.
struct Place { block: u32, before: f32 }

// The first of the first `end` blocks with which the running sum exceeds `wanted`, or else the last that adds to it. The
// sum is of the weights that stay (WEIGHTS) or of the tokens of the cut's key (TOKENS).
fn find_block(what: u32, row: Row, cut: Cut, end: u32, wanted: f32, inv: Invocation) -> Place {
    var low = 0u;
    var high = end;
    var before = 0.0;
    let rounds = 32u - countLeadingZeros(params.blocks - 1u); // as many halves as all blocks have
    for (var round = 0u; round < rounds; round++) {
        let middle = (low + high) / 2u;
        var halves = vec3<f32>(0.0);
        for (var b = low + inv.index; b < high && high - low > 1u; b += REDUCE_WG) {
            var value = 0.0;
            if (what == WEIGHTS) { value = kept_weight(b, row, cut); } else { value = num_tied(b, row, cut.key); }
            if (b < middle) { halves.x += value; } else { halves.y += value; }
        }
        halves = workgroup_sum3(halves, inv);
        // Never into a half where there is nothing: rounding may put `wanted` beyond the end.
        if (halves.y > 0.0 && (halves.x == 0.0 || before + halves.x <= wanted)) {
            before += halves.x;
            low = middle;
        } else if (high - low > 1u) {
            high = middle;
        }
    }
    return Place(low, before);
}

fn key_at(row: Row, column: u32) -> u32 {
    return keys[row.first_block * BLOCK_QUADS + column / 4u][column % 4u];
}

// The end of the columns that hold the first `count` tokens of this key.
fn end_of_ties(row: Row, cut: Cut, count: f32, place: Place) -> u32 {
    var end = 0u;
    var seen = place.before;
    for (var i = 0u; i < DRAW_BLOCK; i++) {
        let column = place.block * DRAW_BLOCK + i;
        if (key_at(row, column) == cut.key) {
            seen += 1.0;
            if (seen == count) { end = column + 1u; }
        }
    }
    return end;
}

// The column of a block where the running sum of the weights that stay exceeds `wanted`, or else the last that adds to it.
fn column_of(row: Row, cut: Cut, wanted: f32, place: Place) -> u32 {
    var sum = place.before;
    var found = DRAWN_NOTHING;
    for (var i = 0u; i < DRAW_BLOCK; i++) {
        let column = place.block * DRAW_BLOCK + i;
        let key = key_at(row, column);
        if (sum > wanted && found != DRAWN_NOTHING) { break; }
        if (key > cut.key || (key == cut.key && column < cut.tie_end)) {
            let w = draw_weight(key, row.largest, row.temperature);
            sum += w;
            if (w > 0.0) { found = column; }
        }
    }
    return found;
}

@compute @workgroup_size(REDUCE_WG)
fn draw_rows(inv: Invocation) {
    let draw = token_draw(inv.workgroup.x);
    let blocks = params.blocks;
    let first_block = inv.workgroup.x * blocks;
    var most = KEY_EXCLUDED;
    for (var b = inv.index; b < blocks; b += REDUCE_WG) { most = max(most, stats[first_block + b].x); }
    most = ~workgroup_min_u32(~most, inv);
    let top = clamp(most, KEY_LOWEST, KEY_LARGEST);
    let row = Row(first_block, logit_of(top), draw.temperature);

    // min_p, then top_k: of the k likeliest tokens, no key is lower than that of the k-th block by largest keys.
    var low = KEY_LOWEST;
    if (draw.min_p > 0.0) { low = clamp(key_of(row.largest + row.temperature * log(draw.min_p)), KEY_LOWEST, top); }
    if (draw.min_p == 1.0) { low = top; }
    let has_k = draw.top_k > 0u;
    let cuts_first = has_k || draw.min_p > 0.0;
    let k = f32(draw.top_k);
    if (has_k) {
        low = search(BLOCKS, row, low, top + 1u, k, inv);
        low = search(TOKENS, row, low, top + 1u, k, inv);
    }
    let cuts_none = low == KEY_LOWEST && !has_k;
    var ties = 0.0;
    if (cuts_first) {
        let end = select(blocks, 0u, cuts_none);
        let counts = workgroup_sum3(tally(TOKENS, row, end, vec3<u32>(low, low + 1u, low + 1u), inv), inv);
        ties = counts.x - counts.y;
        if (has_k) { ties = min(ties, k - counts.y); }
    }

    // top_p of the weight of these.
    var weight = 0.0;
    if (cuts_none) {
        let all = Cut(KEY_LOWEST, 0xffffffffu, true);
        for (var b = inv.index; b < blocks; b += REDUCE_WG) { weight += kept_weight(b, row, all); }
    } else {
        weight = tally(WEIGHTS, row, blocks, vec3<u32>(low + 1u), inv).x;
    }
    weight = workgroup_sum(weight, inv) + ties * draw_weight(low, row.largest, row.temperature);
    let has_p = draw.top_p < 1.0;
    let wanted = draw.top_p * weight;
    var key = low;
    if (has_p) {
        // All the tokens below this weight have less than half of what may go.
        let negligible = 0.5 * (1.0 - draw.top_p) * weight / f32(blocks * DRAW_BLOCK);
        key = clamp(key_of(row.largest + row.temperature * log(negligible)), low, top);
        key = search(WEIGHTS, row, key, top + 1u, wanted, inv);
    }

    // How many of the tokens of this key stay, and in which columns.
    let keeps_all = cuts_none && !has_p;
    var cut = Cut(key, 0xffffffffu, keeps_all);
    if (cuts_first || has_p) {
        let end = select(blocks, 0u, keeps_all);
        let tokens = tally(TOKENS, row, end, vec3<u32>(key, key + 1u, key + 1u), inv);
        let above = tally(WEIGHTS, row, end, vec3<u32>(key + 1u), inv).x;
        let sums = workgroup_sum3(vec3<f32>(tokens.x, tokens.y, above), inv);
        let all_ties = sums.x - sums.y;
        if (key > low || cuts_none) { ties = all_ties; }
        let each = draw_weight(key, row.largest, row.temperature);
        // (No token has this key where rounding keeps all the sums below what is wanted.)
        if (has_p) { ties = clamp(ceil((wanted - sums.z) / max(each, 1e-30)), min(ties, 1.0), ties); }
        if (!keeps_all) { weight = sums.z + ties * each; }
        let some_go = !keeps_all && ties < all_ties;
        let last_tie = find_block(TOKENS, row, cut, select(0u, blocks, some_go), ties - 1.0, inv);
        if (some_go) { cut.tie_end = end_of_ties(row, cut, ties, last_tie); }
    }

    let number = draw.uniform * weight;
    let place = find_block(WEIGHTS, row, cut, blocks, number, inv);
    var token = column_of(row, cut, number, place);
    if (most < KEY_LOWEST) { token = DRAWN_NOTHING; }
    if (most > KEY_LARGEST) { token = DRAWN_BROKEN; }
    if (inv.index == 0u) { drawn[inv.workgroup.x] = token; }
}
