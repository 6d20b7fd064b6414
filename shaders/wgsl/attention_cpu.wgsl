// Paged attention (Kwon et al. 2023) for software adapters, decode and prefill: a workgroup is one subgroup and takes
// TOKENS query tokens times HEADS_PER_GROUP query heads of one KV head, and walks the keys block by block. Scores have a key
// of the block in each lane, or several; the weighted sum of V has octets of the head in each lane. Values cross lanes by
// shuffles only (see matmul_cpu.wgsl): subgroupMax and subgroupAdd are loops over the lanes there.
const ROWS = TOKENS * HEADS_PER_GROUP;
const KEYS = BLOCK_SIZE / SUBGROUP_SIZE;       // keys of a block in each lane
const LINE_OCTETS = 64u / OCTET_BYTES;         // octets in a cache line
const REGISTERS = (ROW_OCTETS + SUBGROUP_SIZE - 1u) / SUBGROUP_SIZE; // register i of lane l: octet i * SUBGROUP_SIZE + l

fn max_of_lanes(v: f32) -> f32 {
    var top = v;
    for (var mask = 1u; mask < SUBGROUP_SIZE; mask *= 2u) { top = max(top, subgroupShuffleXor(top, mask)); }
    return top;
}
fn sum_of_lanes(v: f32) -> f32 {
    var sum = v;
    for (var mask = 1u; mask < SUBGROUP_SIZE; mask *= 2u) { sum += subgroupShuffleXor(sum, mask); }
    return sum;
}

// Each row's next octets of q first: a loop that is not unrolled must not index an array, which would go to memory.
fn rotate(q_row: ptr<function, array<Vec8, ROWS * REGISTERS>>) {
    for (var r = 0u; r < ROWS; r++) {
        let first = (*q_row)[r * REGISTERS];
        for (var i = 1u; i < REGISTERS; i++) { (*q_row)[r * REGISTERS + i - 1u] = (*q_row)[r * REGISTERS + i]; }
        (*q_row)[r * REGISTERS + REGISTERS - 1u] = first;
    }
}

// Reads every cache line of a page, in K and V, one after the other: the lines come from memory side by side, which they
// do not where they are used, as the processor does not look ahead over so many instructions.
fn touch(page: u32, lane: u32) -> u32 {
    var words = 0u;
    for (var octet = 0u; octet < PAGE_QUADS / 2u; octet += LINE_OCTETS * SUBGROUP_SIZE) {
        let at = octet_at(page, 0u) + min(octet + LINE_OCTETS * lane, PAGE_QUADS / 2u - 1u);
        words |= first_word(k_pool[at]) | first_word(v_pool[at]);
    }
    return words;
}

@compute @workgroup_size(SUBGROUP_SIZE)
fn attention_cpu(@builtin(workgroup_id) wg: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let item = work_item(params.items_at, params.first_item + wg.x);
    let kv_head = wg.y / (GROUP / HEADS_PER_GROUP);
    let first_head = wg.y * HEADS_PER_GROUP;
    var q_row: array<Vec8, ROWS * REGISTERS>;
    var acc: array<Vec8, ROWS * REGISTERS>;
    var row_max: array<f32, ROWS>;
    var row_sum: array<f32, ROWS>; // of the keys in this lane
    var last_key: array<u32, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
        let token = query(item, r / HEADS_PER_GROUP).token;
        last_key[r] = position(token);
        row_max[r] = LOWEST;
        row_sum[r] = 0.0;
        let row_at = (token * HEADS + first_head + r % HEADS_PER_GROUP) * ROW_QUADS;
        for (var i = 0u; i < REGISTERS; i++) {
            let at = row_at + 2u * min(i * SUBGROUP_SIZE + lane, ROW_OCTETS - 1u);
            q_row[r * REGISTERS + i] = Vec8(q[at] * params.scale, q[at + 1u] * params.scale);
            acc[r * REGISTERS + i] = Vec8(vec4<f32>(0.0), vec4<f32>(0.0));
        }
    }
    var touched = 0u;
    for (var first_key = item.key_begin; first_key < item.key_end; first_key += BLOCK_SIZE) {
        let page = page_of(block_of(item.block_table, first_key), kv_head);
        touched |= touch(page, lane);
        // Past the last key p is 0, but what lies there may be NaN: read a valid slot instead.
        let last = min(BLOCK_SIZE, item.key_end - first_key) - 1u;
        var p: array<f32, ROWS * KEYS>;
        for (var i = 0u; i < ROWS * KEYS; i++) { p[i] = 0.0; }
        for (var first_octet = 0u; first_octet < ROW_OCTETS; first_octet += SUBGROUP_SIZE) {
            for (var l = 0u; l < min(SUBGROUP_SIZE, ROW_OCTETS - first_octet); l++) {
                var k: array<Vec8, KEYS>;
                for (var c = 0u; c < KEYS; c++) {
                    let row_at = octet_at(page, min(c * SUBGROUP_SIZE + lane, last));
                    k[c] = unpack_octet(k_pool[row_at + first_octet + l]);
                }
                for (var r = 0u; r < ROWS; r++) {
                    let mine = q_row[r * REGISTERS];
                    let q_octet = Vec8(subgroupShuffle(mine.lo, l), subgroupShuffle(mine.hi, l));
                    for (var c = 0u; c < KEYS; c++) { p[r * KEYS + c] += dot8(q_octet, k[c]); }
                }
            }
            rotate(&q_row);
        }
        for (var c = 0u; c < KEYS; c++) {
            let scale = k_scale(page, min(c * SUBGROUP_SIZE + lane, last));
            for (var r = 0u; r < ROWS; r++) {
                let offset = c * SUBGROUP_SIZE + lane;
                let valid = offset <= last && first_key + offset <= last_key[r];
                p[r * KEYS + c] = select(LOWEST, p[r * KEYS + c] * scale, valid);
            }
        }
        for (var r = 0u; r < ROWS; r++) {
            var top = p[r * KEYS];
            for (var c = 1u; c < KEYS; c++) { top = max(top, p[r * KEYS + c]); }
            let new_max = max(row_max[r], max_of_lanes(top));
            let rescale = exp(row_max[r] - new_max);
            row_max[r] = new_max;
            row_sum[r] *= rescale;
            for (var c = 0u; c < KEYS; c++) {
                let score = p[r * KEYS + c];
                let weight = select(0.0, exp(score - new_max), score > LOWEST);
                row_sum[r] += weight;
                p[r * KEYS + c] = weight;
            }
            for (var i = 0u; i < REGISTERS; i++) {
                acc[r * REGISTERS + i].lo *= rescale;
                acc[r * REGISTERS + i].hi *= rescale;
            }
        }
        for (var c = 0u; c < KEYS; c++) {
            let scale = v_scale(page, min(c * SUBGROUP_SIZE + lane, last));
            for (var r = 0u; r < ROWS; r++) { p[r * KEYS + c] *= scale; }
        }
        // The keys of a lane inside: a loop that is not unrolled must not index an array, which would go to memory.
        for (var j = 0u; j < SUBGROUP_SIZE; j++) {
            for (var c = 0u; c < KEYS; c++) {
                let v_at = octet_at(page, min(c * SUBGROUP_SIZE + j, last));
                for (var i = 0u; i < REGISTERS; i++) {
                    let v = unpack_octet(v_pool[v_at + min(i * SUBGROUP_SIZE + lane, ROW_OCTETS - 1u)]);
                    for (var r = 0u; r < ROWS; r++) {
                        let weight = vec4<f32>(subgroupShuffle(p[r * KEYS + c], j));
                        let at = r * REGISTERS + i;
                        acc[at].lo = fma(weight, v.lo, acc[at].lo);
                        acc[at].hi = fma(weight, v.hi, acc[at].hi);
                    }
                }
            }
        }
    }
    // Changes nothing, which the compiler cannot know: it would leave out what is touched for nothing.
    if (touched == 1u) { row_max[0] = max(row_max[0], LOWEST); }
    for (var r = 0u; r < ROWS; r++) {
        let sum = sum_of_lanes(row_sum[r]);
        if (r / HEADS_PER_GROUP < item.num_queries) {
            let head = first_head + r % HEADS_PER_GROUP;
            let its = query(item, r / HEADS_PER_GROUP);
            let partial = its.partials + item.split;
            for (var i = 0u; i < REGISTERS; i++) {
                let octet = i * SUBGROUP_SIZE + lane;
                let value = acc[r * REGISTERS + i];
                if (octet < ROW_OCTETS) {
                    if (its.partials == NO_PARTIAL) {
                        let at = (its.token * HEADS + head) * ROW_QUADS + 2u * octet;
                        out[at] = value.lo / sum;
                        out[at + 1u] = value.hi / sum;
                    } else {
                        let at = (partial * HEADS + head) * ROW_QUADS + 2u * octet;
                        partial_out[at] = value.lo / sum;
                        partial_out[at + 1u] = value.hi / sum;
                    }
                }
            }
            if (its.partials != NO_PARTIAL && lane == 0u) {
                partial_stats[partial * HEADS + head] = vec2<f32>(row_max[r], sum);
            }
        }
    }
}
