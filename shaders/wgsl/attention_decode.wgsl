// Paged attention (Kwon et al. 2023) for decode with subgroup operations: a workgroup takes one query token and one KV
// head's HEADS_PER_GROUP query heads over at most SPLIT keys. A team of LANES lanes shares a key, each lane with every
// LANES-th octet of the head; every team keeps its own running softmax, so that the loop needs no barrier. The teams of a
// subgroup merge by shuffles, the subgroups through workgroup memory.
const TEAMS = WG / LANES; // keys of a round
const REGISTERS = (ROW_OCTETS + LANES - 1u) / LANES;
var<workgroup> subgroup_acc: array<vec4<f32>, MOST_SUBGROUPS * HEADS_PER_GROUP * ROW_QUADS>;
var<workgroup> subgroup_stats: array<vec2<f32>, MOST_SUBGROUPS * HEADS_PER_GROUP>;

// A lane's part of a key and its value, as they are loaded.
struct Loaded {
    k: array<KvOctet, REGISTERS>,
    v: array<KvOctet, REGISTERS>,
    k_scale: RawScale,
    v_scale: RawScale,
}
fn load(item: WorkItem, kv_head: u32, key: u32, lane: u32) -> Loaded {
    let page = page_of(block_of(item.block_table, key), kv_head);
    let offset = key % BLOCK_SIZE;
    var loaded: Loaded;
    for (var i = 0u; i < REGISTERS; i++) {
        let at = octet_at(page, offset) + min(i * LANES + lane, ROW_OCTETS - 1u);
        loaded.k[i] = k_pool[at];
        loaded.v[i] = v_pool[at];
    }
    loaded.k_scale = raw_k_scale(page, offset);
    loaded.v_scale = raw_v_scale(page, offset);
    return loaded;
}

@compute @workgroup_size(WG)
fn attention_decode(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) num_subgroups: u32,
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
    // Each round's keys and values are loaded while those of the round before are multiplied.
    let last_key = item.key_end - 1u;
    let rounds = (item.key_end - item.key_begin + TEAMS - 1u) / TEAMS; // uniform, so the shuffles are too
    var next = load(item, kv_head, min(item.key_begin + team, last_key), lane);
    for (var round = 0u; round < rounds; round++) {
        let key = item.key_begin + round * TEAMS + team;
        let valid = key <= last_key;
        let offset = min(key, last_key) % BLOCK_SIZE;
        let loaded = next;
        next = load(item, kv_head, min(key + TEAMS, last_key), lane);
        var s: array<f32, HEADS_PER_GROUP>;
        for (var g = 0u; g < HEADS_PER_GROUP; g++) { s[g] = 0.0; }
        for (var i = 0u; i < REGISTERS; i++) {
            let k = unpack_octet(loaded.k[i]);
            for (var g = 0u; g < HEADS_PER_GROUP; g++) { s[g] += dot8(q_row[g * REGISTERS + i], k); }
        }
        let k_factor = scale_in(loaded.k_scale, offset);
        let v_factor = scale_in(loaded.v_scale, offset);
        for (var g = 0u; g < HEADS_PER_GROUP; g++) {
            var score = s[g];
            for (var mask = 1u; mask < LANES; mask *= 2u) { score += subgroupShuffleXor(score, mask); }
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
            let v = unpack_octet(loaded.v[i]);
            for (var g = 0u; g < HEADS_PER_GROUP; g++) {
                acc[g * REGISTERS + i].lo += s[g] * v.lo;
                acc[g * REGISTERS + i].hi += s[g] * v.hi;
            }
        }
    }
    for (var mask = LANES; mask < min(subgroup_size, WG); mask *= 2u) {
        for (var g = 0u; g < HEADS_PER_GROUP; g++) {
            let new_max = max(row_max[g], subgroupShuffleXor(row_max[g], mask));
            let rescale = exp(row_max[g] - new_max);
            row_max[g] = new_max;
            row_sum[g] *= rescale;
            row_sum[g] += subgroupShuffleXor(row_sum[g], mask);
            for (var i = 0u; i < REGISTERS; i++) {
                let mine = Vec8(acc[g * REGISTERS + i].lo * rescale, acc[g * REGISTERS + i].hi * rescale);
                acc[g * REGISTERS + i].lo = mine.lo + subgroupShuffleXor(mine.lo, mask);
                acc[g * REGISTERS + i].hi = mine.hi + subgroupShuffleXor(mine.hi, mask);
            }
        }
    }
    if (subgroup_lane < LANES) {
        for (var g = 0u; g < HEADS_PER_GROUP; g++) {
            if (lane == 0u) { subgroup_stats[subgroup * HEADS_PER_GROUP + g] = vec2<f32>(row_max[g], row_sum[g]); }
            for (var i = 0u; i < REGISTERS; i++) {
                let octet = i * LANES + lane;
                if (octet < ROW_OCTETS) {
                    let at = (subgroup * HEADS_PER_GROUP + g) * ROW_QUADS + 2u * octet;
                    subgroup_acc[at] = acc[g * REGISTERS + i].lo;
                    subgroup_acc[at + 1u] = acc[g * REGISTERS + i].hi;
                }
            }
        }
    }
    workgroupBarrier();
    // Merge the subgroups in a fixed order: an invocation for each head and quad of elements.
    for (var i = li; i < HEADS_PER_GROUP * ROW_QUADS; i += WG) {
        let g = i / ROW_QUADS;
        let quad = i % ROW_QUADS;
        var top = LOWEST;
        for (var t = 0u; t < num_subgroups; t++) { top = max(top, subgroup_stats[t * HEADS_PER_GROUP + g].x); }
        var sum = 0.0;
        var value = vec4<f32>(0.0);
        for (var t = 0u; t < num_subgroups; t++) {
            let stats = subgroup_stats[t * HEADS_PER_GROUP + g];
            let weight = exp(stats.x - top);
            sum += weight * stats.y;
            value += weight * subgroup_acc[(t * HEADS_PER_GROUP + g) * ROW_QUADS + quad];
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
