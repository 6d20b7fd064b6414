// Paged attention (Kwon et al. 2023) for prefill and chunked prefill by cooperative matrices, for pools of f16 and of bytes: q,
// K, V and the weights are f16, sums are f32. A workgroup has ROWS rows, for an item's query tokens times HEADS_PER_GROUP heads
// of one KV head, and walks the keys block by block, staged in workgroup memory. The rows are cut into pieces of one matrix;
// subgroups, of whatever size and number, take turns with the pieces.
//
// Sums in matrices cannot be rescaled when a larger score comes, so the keys are walked twice: for the rows' largest scores,
// and for the weighted sum of V.
const WG = 2u * ROWS; // two invocations to a row, with half of a block's keys each
const PIECES = ROWS / MATRIX;
// Pieces of one subgroup, where there are as few subgroups as there may be.
const MOST_PIECES = (PIECES * MAX_SUBGROUP_SIZE + WG - 1u) / WG;
const SLICES = HEAD_DIM / MATRIX;
const KEY_MATRICES = BLOCK_SIZE / MATRIX;
const OWN_KEYS = BLOCK_SIZE / 2u;
const OWN_QUADS = MATRIX / 8u; // of a row of a matrix
const SLICE = BLOCK_SIZE * MATRIX;
var<workgroup> k_rows: array<f16, BLOCK_SIZE * HEAD_DIM>; // [SLICES][BLOCK_SIZE][MATRIX]: a matrix in one stretch
var<workgroup> v_rows: array<f16, BLOCK_SIZE * HEAD_DIM>; // the same shape
var<workgroup> halves: array<f16, ROWS * BLOCK_SIZE>;     // [ROWS][MATRIX], a slice of q; [ROWS][BLOCK_SIZE], the weights
var<workgroup> sums: array<f32, ROWS * BLOCK_SIZE>;       // [ROWS][BLOCK_SIZE], scores; [ROWS][MATRIX], a slice of the result

// A large value becomes the largest f16, not infinity.
fn half(v: f32) -> f16 { return f16(clamp(v, -65504.0, 65504.0)); }

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
    for (var i = li; i < ROWS * BLOCK_SIZE; i += WG) { sums[i] = 0.0; }
    workgroupBarrier();
    let zero = coopLoadT<MatrixC>(&sums[0], BLOCK_SIZE);
    var q_slices: array<MatrixA, MOST_PIECES * SLICES>;
    var acc: array<MatrixC, MOST_PIECES * SLICES>;
    for (var slice = 0u; slice < SLICES; slice++) {
        workgroupBarrier();
        for (var i = li; i < ROWS * MATRIX / 4u; i += WG) {
            // Rows past the item's queries repeat its last one, and are not written.
            let row = i / (MATRIX / 4u);
            let token = query(item, row / HEADS_PER_GROUP).token;
            let at = (token * HEADS + first_head + row % HEADS_PER_GROUP) * ROW_QUADS + slice * (MATRIX / 4u);
            let v = q[at + i % (MATRIX / 4u)] * params.scale;
            for (var e = 0u; e < 4u; e++) { halves[4u * i + e] = half(v[e]); }
        }
        workgroupBarrier();
        for (var p = 0u; p < MOST_PIECES; p++) {
            let piece = subgroup + p * num_subgroups;
            if (piece >= PIECES) { break; }
            q_slices[p * SLICES + slice] = coopLoadT<MatrixA>(&halves[piece * MATRIX * MATRIX], MATRIX);
            acc[p * SLICES + slice] = zero;
        }
    }

    let row = li / 2u;
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
                let col = i % ROW_OCTETS * 8u;
                let to = col / MATRIX * SLICE + i / ROW_OCTETS * MATRIX + col % MATRIX;
                let k = unpack_octet(k_pool[at]);
                for (var e = 0u; e < 4u; e++) {
                    k_rows[to + e] = f16(k.lo[e]);
                    k_rows[to + 4u + e] = f16(k.hi[e]);
                }
                if (turn == 1u) {
                    let v = unpack_octet(v_pool[at]);
                    for (var e = 0u; e < 4u; e++) {
                        v_rows[to + e] = f16(v.lo[e]);
                        v_rows[to + 4u + e] = f16(v.hi[e]);
                    }
                }
            }
            workgroupBarrier();
            for (var p = 0u; p < MOST_PIECES; p++) {
                let piece = subgroup + p * num_subgroups;
                if (piece >= PIECES) { break; }
                for (var m = 0u; m < KEY_MATRICES; m++) {
                    var score = zero;
                    for (var slice = 0u; slice < SLICES; slice++) {
                        // The transpose of the keys' rows.
                        let k = coopLoad<MatrixB>(&k_rows[slice * SLICE + m * MATRIX * MATRIX], MATRIX);
                        score = coopMultiplyAdd(q_slices[p * SLICES + slice], k, score);
                    }
                    coopStoreT(score, &sums[piece * MATRIX * BLOCK_SIZE + m * MATRIX], BLOCK_SIZE);
                }
            }
            workgroupBarrier();
            for (var i = 0u; i < OWN_KEYS; i++) {
                let j = li % 2u * OWN_KEYS + i;
                let valid = j <= last && first_key + j <= last_key;
                let score = select(LOWEST, sums[row * BLOCK_SIZE + j] * k_scale(page, min(j, last)), valid);
                if (turn == 0u) {
                    row_max = max(row_max, score);
                } else {
                    let weight = select(0.0, exp(score - row_max), valid);
                    row_sum += weight;
                    halves[row * BLOCK_SIZE + j] = half(weight * v_scale(page, min(j, last)) * f32(V_FACTOR));
                }
            }
            if (turn == 0u) { continue; }
            workgroupBarrier();
            for (var p = 0u; p < MOST_PIECES; p++) {
                let piece = subgroup + p * num_subgroups;
                if (piece >= PIECES) { break; }
                for (var m = 0u; m < KEY_MATRICES; m++) {
                    let weights = coopLoadT<MatrixA>(&halves[piece * MATRIX * BLOCK_SIZE + m * MATRIX], BLOCK_SIZE);
                    for (var slice = 0u; slice < SLICES; slice++) {
                        let v = coopLoadT<MatrixB>(&v_rows[slice * SLICE + m * MATRIX * MATRIX], MATRIX);
                        acc[p * SLICES + slice] = coopMultiplyAdd(weights, v, acc[p * SLICES + slice]);
                    }
                }
            }
        }
        // The two invocations of a row meet.
        workgroupBarrier();
        sums[li] = select(row_sum, row_max, turn == 0u);
        workgroupBarrier();
        if (turn == 0u) {
            row_max = max(sums[2u * row], sums[2u * row + 1u]);
        } else {
            row_sum = sums[2u * row] + sums[2u * row + 1u];
        }
    }

    let is_partial = its.partials != NO_PARTIAL;
    let to = select(its.token, its.partials + item.split, is_partial) * HEADS + first_head + row % HEADS_PER_GROUP;
    let is_there = row / HEADS_PER_GROUP < item.num_queries;
    if (is_there && is_partial && li % 2u == 0u) { partial_stats[to] = vec2<f32>(row_max, row_sum); }
    for (var slice = 0u; slice < SLICES; slice++) {
        workgroupBarrier();
        for (var p = 0u; p < MOST_PIECES; p++) {
            let piece = subgroup + p * num_subgroups;
            if (piece >= PIECES) { break; }
            coopStoreT(acc[p * SLICES + slice], &sums[piece * MATRIX * MATRIX], MATRIX);
        }
        workgroupBarrier();
        for (var i = 0u; i < OWN_QUADS; i++) {
            let quad = li % 2u * OWN_QUADS + i;
            let at = row * MATRIX + 4u * quad;
            let value = vec4<f32>(sums[at], sums[at + 1u], sums[at + 2u], sums[at + 3u]) / (row_sum * f32(V_FACTOR));
            let out_at = to * ROW_QUADS + slice * (MATRIX / 4u) + quad;
            if (is_there) {
                if (is_partial) { partial_out[out_at] = value; } else { out[out_at] = value; }
            }
        }
    }
}
