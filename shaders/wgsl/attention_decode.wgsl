// Paged attention (Kwon et al. 2023) for decode with subgroup operations: a workgroup takes one query token and one KV
// head's HEADS_PER_GROUP query heads over at most SPLIT keys. Eight lanes share a key, each with every eighth octet of the
// head; every team of eight keeps its own running softmax, so that the loop needs no barrier; the teams merge at the end.
// Needs subgroups of at least 8.
const LANES = 8u;                 // lanes that share a key
const TEAMS = WG / LANES;         // keys in flight
const REGISTERS = (ROW_OCTETS + LANES - 1u) / LANES;
var<workgroup> team_acc: array<vec4<f32>, TEAMS * HEADS_PER_GROUP * ROW_QUADS>;
var<workgroup> team_stats: array<vec2<f32>, TEAMS * HEADS_PER_GROUP>;

@compute @workgroup_size(WG)
fn attention_decode(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) subgroup_size: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
) {
    // Not local_invocation_index: a team must lie within one subgroup.
    let li = subgroup * subgroup_size + subgroup_lane;
    let item = work_item(params.items_at, params.first_item + wg.x);
    let its = query(item, 0u);
    let partial = its.partials + item.split;
    let kv_head = wg.y / (GROUP / HEADS_PER_GROUP);
    let first_head = wg.y * HEADS_PER_GROUP;
    let lane = li % LANES;
    let team = li / LANES;
    var q_row: array<Vec8, HEADS_PER_GROUP * REGISTERS>;
    var acc: array<Vec8, HEADS_PER_GROUP * REGISTERS>;
    var row_max: array<f32, HEADS_PER_GROUP>;
    var row_sum: array<f32, HEADS_PER_GROUP>;
    for (var g = 0u; g < HEADS_PER_GROUP; g++) {
        row_max[g] = LOWEST;
        row_sum[g] = 0.0;
        for (var i = 0u; i < REGISTERS; i++) {
            let octet = i * LANES + lane;
            let at = (its.token * HEADS + first_head + g) * ROW_QUADS + 2u * min(octet, ROW_OCTETS - 1u);
            let s = select(0.0, params.scale, octet < ROW_OCTETS);
            q_row[g * REGISTERS + i] = Vec8(q[at] * s, q[at + 1u] * s);
            acc[g * REGISTERS + i] = Vec8(vec4<f32>(0.0), vec4<f32>(0.0));
        }
    }
    let rounds = (item.key_end - item.key_begin + TEAMS - 1u) / TEAMS; // uniform, so the shuffles are too
    for (var round = 0u; round < rounds; round++) {
        let wanted = item.key_begin + round * TEAMS + team;
        let valid = wanted < item.key_end;
        let key = min(wanted, item.key_end - 1u);
        let page = page_of(block_of(item.block_table, key), kv_head);
        let row_at = octet_at(page, key % BLOCK_SIZE);
        let k_factor = k_scale(page, key % BLOCK_SIZE);
        let v_factor = v_scale(page, key % BLOCK_SIZE);
        var s: array<f32, HEADS_PER_GROUP>;
        for (var g = 0u; g < HEADS_PER_GROUP; g++) { s[g] = 0.0; }
        for (var i = 0u; i < REGISTERS; i++) {
            let k = unpack_octet(k_pool[row_at + min(i * LANES + lane, ROW_OCTETS - 1u)]);
            for (var g = 0u; g < HEADS_PER_GROUP; g++) { s[g] += dot8(q_row[g * REGISTERS + i], k); }
        }
        for (var g = 0u; g < HEADS_PER_GROUP; g++) {
            var score = s[g];
            score += subgroupShuffleXor(score, 1u);
            score += subgroupShuffleXor(score, 2u);
            score += subgroupShuffleXor(score, 4u);
            score = select(LOWEST, score * k_factor, valid);
            let new_max = max(row_max[g], score);
            let rescale = exp(row_max[g] - new_max);
            let p = select(0.0, exp(score - new_max), valid);
            row_max[g] = new_max;
            row_sum[g] = row_sum[g] * rescale + p;
            s[g] = p * v_factor;
            for (var i = 0u; i < REGISTERS; i++) {
                acc[g * REGISTERS + i].lo *= rescale;
                acc[g * REGISTERS + i].hi *= rescale;
            }
        }
        for (var i = 0u; i < REGISTERS; i++) {
            let v = unpack_octet(v_pool[row_at + min(i * LANES + lane, ROW_OCTETS - 1u)]);
            for (var g = 0u; g < HEADS_PER_GROUP; g++) {
                acc[g * REGISTERS + i].lo += s[g] * v.lo;
                acc[g * REGISTERS + i].hi += s[g] * v.hi;
            }
        }
    }
    for (var g = 0u; g < HEADS_PER_GROUP; g++) {
        if (lane == 0u) { team_stats[team * HEADS_PER_GROUP + g] = vec2<f32>(row_max[g], row_sum[g]); }
        for (var i = 0u; i < REGISTERS; i++) {
            let octet = i * LANES + lane;
            if (octet < ROW_OCTETS) {
                let at = (team * HEADS_PER_GROUP + g) * ROW_QUADS + 2u * octet;
                team_acc[at] = acc[g * REGISTERS + i].lo;
                team_acc[at + 1u] = acc[g * REGISTERS + i].hi;
            }
        }
    }
    workgroupBarrier();
    // Merge the teams in a fixed order: an invocation for each head and quad of elements.
    for (var i = li; i < HEADS_PER_GROUP * ROW_QUADS; i += WG) {
        let g = i / ROW_QUADS;
        let quad = i % ROW_QUADS;
        var top = LOWEST;
        for (var t = 0u; t < TEAMS; t++) { top = max(top, team_stats[t * HEADS_PER_GROUP + g].x); }
        var sum = 0.0;
        var value = vec4<f32>(0.0);
        for (var t = 0u; t < TEAMS; t++) {
            let stats = team_stats[t * HEADS_PER_GROUP + g];
            let weight = exp(stats.x - top);
            sum += weight * stats.y;
            value += weight * team_acc[(t * HEADS_PER_GROUP + g) * ROW_QUADS + quad];
        }
        value /= sum;
        let head = first_head + g;
        if (its.partials == NO_PARTIAL) {
            out[(its.token * HEADS + head) * ROW_QUADS + quad] = value;
        } else {
            partial_out[(partial * HEADS + head) * ROW_QUADS + quad] = value;
            if (quad == 0u) { partial_stats[partial * HEADS + head] = vec2<f32>(top, sum); }
        }
    }
}
