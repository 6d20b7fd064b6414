// Paged attention (Kwon et al. 2023) for prefill and chunked prefill by cooperative matrices, for pools of f16 and of bytes: q,
// K, V and the weights are f16, sums are f32. A workgroup has ROWS rows, for an item's query tokens times HEADS_PER_GROUP heads
// of one KV head, and walks the keys block by block, staged in workgroup memory. The rows are cut into pieces of one matrix;
// subgroups, of whatever size and number, take turns with the pieces.
//
// Sums in matrices cannot be rescaled when a larger score comes, so the keys are walked twice: for the rows' largest scores,
// and for the weighted sum of V.
const WG = 2u * ROWS; // two invocations to a row, with half of a block's keys each: the other is ROWS further on
const PIECES = ROWS / MATRIX;
// Pieces of one subgroup, where there are as few subgroups as there may be.
const MOST_PIECES = (PIECES * MAX_SUBGROUP_SIZE + WG - 1u) / WG;
const SLICES = HEAD_DIM / MATRIX;
const KEY_MATRICES = BLOCK_SIZE / MATRIX;
const QUAD = 4u / CELL;        // cells of four elements
const ROW_CELLS = MATRIX / CELL; // of a matrix
const WEIGHT_CELLS = BLOCK_SIZE / CELL;
// Slices are 16 bytes further apart than they are long, and rows of sums are longer than those of a block, so that neighbours
// meet banks that all differ.
const SLICE = BLOCK_SIZE * ROW_CELLS + 8u / CELL;
const SUM_CELLS = (BLOCK_SIZE + 4u) / CELL;
var<workgroup> k_rows: array<Cell, SLICES * SLICE>;           // [SLICES][BLOCK_SIZE][MATRIX]: a matrix in one stretch
var<workgroup> v_rows: array<Cell, SLICES * SLICE>;           // the same shape
var<workgroup> halves: array<Cell, ROWS * WEIGHT_CELLS>;      // [ROWS][MATRIX], a slice of q; [ROWS][BLOCK_SIZE], the weights
var<workgroup> sums: array<SumCell, ROWS * SUM_CELLS>;        // [ROWS][BLOCK_SIZE + 4], scores, or a slice of the result
var<workgroup> of_invocations: array<f32, WG>;

// A row of a matrix has the first quads of its octets, then the second ones: where the natural quad is.
const OCTETS = MATRIX / 8u;
fn quad_in_row(quad: u32) -> u32 { return quad % 2u * OCTETS + quad / 2u; }
fn stage_k(at: u32, octet: Vec8) {
    for (var c = 0u; c < QUAD; c++) {
        k_rows[at + c] = cell_of(vec4<f16>(octet.lo), c);
        k_rows[at + OCTETS * QUAD + c] = cell_of(vec4<f16>(octet.hi), c);
    }
}
fn stage_v(at: u32, octet: Vec8) {
    for (var c = 0u; c < QUAD; c++) {
        v_rows[at + c] = cell_of(vec4<f16>(octet.lo), c);
        v_rows[at + OCTETS * QUAD + c] = cell_of(vec4<f16>(octet.hi), c);
    }
}
fn stage_half(at: u32, quad: vec4<f16>) {
    for (var c = 0u; c < QUAD; c++) { halves[at + c] = cell_of(quad, c); }
}
fn sums_at(row: u32, quad: u32) -> vec4<f32> {
    var v: vec4<f32>;
    for (var c = 0u; c < QUAD; c++) { v = with_cell(v, sums[row * SUM_CELLS + quad * QUAD + c], c); }
    return v;
}

@compute @workgroup_size(WG)
fn attention_prefill_coop(
    @builtin(local_invocation_index) li: u32,
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) num_subgroups: u32,
) {
    let item = work_item(params.items_at, params.first_item + wg.x);
    let kv_head = wg.y / (GROUP / HEADS_PER_GROUP);
    let first_head = wg.y * HEADS_PER_GROUP;
    for (var i = li; i < MATRIX * SUM_CELLS; i += WG) { sums[i] = SumCell(0.0); }
    workgroupBarrier();
    let zero = coopLoadT<MatrixC>(&sums[0], SUM_CELLS);
    var q_slices: array<MatrixA, MOST_PIECES * SLICES>;
    var acc: array<MatrixC, MOST_PIECES * SLICES>;
    for (var slice = 0u; slice < SLICES; slice++) {
        workgroupBarrier();
        for (var i = li; i < ROWS * MATRIX / 4u; i += WG) {
            // Rows past the item's queries repeat its last one, and are not written.
            let row = i / (MATRIX / 4u);
            let token = query(item, row / HEADS_PER_GROUP).token;
            let at = (token * HEADS + first_head + row % HEADS_PER_GROUP) * ROW_QUADS + slice * (MATRIX / 4u);
            let quad = i % (MATRIX / 4u);
            stage_half(row * ROW_CELLS + quad_in_row(quad) * QUAD, halves4(q[at + quad] * params.scale));
        }
        workgroupBarrier();
        for (var p = 0u; p < MOST_PIECES; p++) {
            let piece = subgroup + p * num_subgroups;
            if (piece >= PIECES) { break; }
            q_slices[p * SLICES + slice] = coopLoadT<MatrixA>(&halves[piece * MATRIX * ROW_CELLS], ROW_CELLS);
            acc[p * SLICES + slice] = zero;
        }
    }

    let row = li % ROWS;
    let half = li / ROWS;
    let its = query(item, row / HEADS_PER_GROUP);
    let last_key = position(its.token);
    var row_max = LOWEST;
    var row_sum = 0.0; // of the invocation's keys
    for (var turn = 0u; turn < 2u; turn++) {
        for (var first_key = item.key_begin; first_key < item.key_end; first_key += BLOCK_SIZE) {
            let page = page_of(block_of(item.block_table, first_key), kv_head);
            // Slots past the end may hold NaN: a valid one stands there instead, and weighs nothing.
            let last = min(BLOCK_SIZE, item.key_end - first_key) - 1u;
            workgroupBarrier();
            for (var i = li; i < BLOCK_SIZE * ROW_OCTETS; i += WG) {
                let at = octet_at(page, 0u) + min(i, last * ROW_OCTETS + ROW_OCTETS - 1u);
                let octet = i % ROW_OCTETS;
                let to = octet / OCTETS * SLICE + i / ROW_OCTETS * ROW_CELLS + octet % OCTETS * QUAD;
                stage_k(to, unpack_octet(k_pool[at]));
                if (turn == 1u) { stage_v(to, unpack_octet(v_pool[at])); }
            }
            workgroupBarrier();
            for (var p = 0u; p < MOST_PIECES; p++) {
                let piece = subgroup + p * num_subgroups;
                if (piece >= PIECES) { break; }
                for (var m = 0u; m < KEY_MATRICES; m++) {
                    var score = zero;
                    for (var slice = 0u; slice < SLICES; slice++) {
                        // The transpose of the keys' rows.
                        let k = coopLoad<MatrixB>(&k_rows[slice * SLICE + m * MATRIX * ROW_CELLS], ROW_CELLS);
                        score = coopMultiplyAdd(q_slices[p * SLICES + slice], k, score);
                    }
                    coopStoreT(score, &sums[piece * MATRIX * SUM_CELLS + m * ROW_CELLS], SUM_CELLS);
                }
            }
            workgroupBarrier();
            for (var quad = half * (BLOCK_SIZE / 8u); quad < (half + 1u) * (BLOCK_SIZE / 8u); quad++) {
                let products = sums_at(row, quad);
                var weights: vec4<f32>;
                for (var e = 0u; e < 4u; e++) {
                    let j = 4u * quad + e;
                    let valid = j <= last && first_key + j <= last_key;
                    let score = select(LOWEST, products[e] * k_scale(page, min(j, last)), valid);
                    if (turn == 0u) {
                        row_max = max(row_max, score);
                    } else {
                        let weight = select(0.0, exp(score - row_max), valid);
                        row_sum += weight;
                        weights[e] = weight * v_scale(page, min(j, last)) * f32(V_FACTOR);
                    }
                }
                if (turn == 1u) { stage_half(row * WEIGHT_CELLS + quad * QUAD, halves4(weights)); }
            }
            if (turn == 0u) { continue; }
            workgroupBarrier();
            for (var p = 0u; p < MOST_PIECES; p++) {
                let piece = subgroup + p * num_subgroups;
                if (piece >= PIECES) { break; }
                for (var m = 0u; m < KEY_MATRICES; m++) {
                    let weights = coopLoadT<MatrixA>(&halves[piece * MATRIX * WEIGHT_CELLS + m * ROW_CELLS], WEIGHT_CELLS);
                    for (var slice = 0u; slice < SLICES; slice++) {
                        let v = coopLoadT<MatrixB>(&v_rows[slice * SLICE + m * MATRIX * ROW_CELLS], ROW_CELLS);
                        acc[p * SLICES + slice] = coopMultiplyAdd(weights, v, acc[p * SLICES + slice]);
                    }
                }
            }
        }
        // The two invocations of a row meet.
        workgroupBarrier();
        of_invocations[li] = select(row_sum, row_max, turn == 0u);
        workgroupBarrier();
        if (turn == 0u) {
            row_max = max(of_invocations[row], of_invocations[row + ROWS]);
        } else {
            row_sum = of_invocations[row] + of_invocations[row + ROWS];
        }
    }

    let is_partial = its.partials != NO_PARTIAL;
    let to = select(its.token, its.partials + item.split, is_partial) * HEADS + first_head + row % HEADS_PER_GROUP;
    let is_there = row / HEADS_PER_GROUP < item.num_queries;
    if (is_there && is_partial && half == 0u) { partial_stats[to] = vec2<f32>(row_max, row_sum); }
    for (var slice = 0u; slice < SLICES; slice++) {
        workgroupBarrier();
        for (var p = 0u; p < MOST_PIECES; p++) {
            let piece = subgroup + p * num_subgroups;
            if (piece >= PIECES) { break; }
            coopStoreT(acc[p * SLICES + slice], &sums[piece * MATRIX * SUM_CELLS], SUM_CELLS);
        }
        workgroupBarrier();
        for (var quad = half * OCTETS; quad < (half + 1u) * OCTETS; quad++) {
            let value = sums_at(row, quad_in_row(quad)) / (row_sum * f32(V_FACTOR));
            let out_at = to * ROW_QUADS + slice * (MATRIX / 4u) + quad;
            if (is_there) {
                if (is_partial) { partial_out[out_at] = value; } else { out[out_at] = value; }
            }
        }
    }
}
