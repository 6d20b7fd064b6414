// Paged attention (Kwon et al. 2023) for prefill and chunked prefill, without subgroup operations: flash tiles (Dao et al.
// 2022, arXiv:2205.14135). A workgroup takes TOKENS query tokens times HEADS_PER_GROUP heads of one KV head, and walks the
// keys KEYS at a time (a whole KV block, or an even part of one), K and then V staged in workgroup memory. A team of 16 lanes
// owns four rows: it computes their scores, a key in each lane, and then their weighted sum of V, every 16th quad of the head
// in each lane, so that what is read from workgroup memory serves four rows.
const TEAM_ROWS = 4u;
const LANES = 16u;
const TEAMS = (TOKENS * HEADS_PER_GROUP + TEAM_ROWS - 1u) / TEAM_ROWS; // rows past the last are not written
const WG = TEAMS * LANES;
const REGISTERS = (ROW_QUADS + LANES - 1u) / LANES;
var<workgroup> q_rows: array<vec4<f32>, TEAMS * TEAM_ROWS * ROW_QUADS>;
var<workgroup> kv_rows: array<KvOctet, KEYS * ROW_OCTETS>;
var<workgroup> scores: array<vec4<f32>, TEAMS * KEYS>;  // of a team's rows
var<workgroup> weights: array<vec4<f32>, TEAMS * KEYS>; // exp(score - max), times V's scale

@compute @workgroup_size(WG)
fn attention_prefill(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let item = work_item(params.items_at, params.first_item + wg.x);
    let kv_head = wg.y / (GROUP / HEADS_PER_GROUP);
    let first_head = wg.y * HEADS_PER_GROUP;
    for (var i = li; i < TEAMS * TEAM_ROWS * ROW_QUADS; i += WG) {
        let r = i / ROW_QUADS;
        let token = query(item, r / HEADS_PER_GROUP).token;
        q_rows[i] = q[(token * HEADS + first_head + r % HEADS_PER_GROUP) * ROW_QUADS + i % ROW_QUADS] * params.scale;
    }
    let team = li / LANES;
    let lane = li % LANES;
    let first_row = team * TEAM_ROWS;
    var last_key: vec4<u32>;
    var acc: array<vec4<f32>, TEAM_ROWS * REGISTERS>; // [register][row]
    for (var r = 0u; r < TEAM_ROWS; r++) {
        last_key[r] = position(query(item, (first_row + r) / HEADS_PER_GROUP).token);
        for (var i = 0u; i < REGISTERS; i++) { acc[i * TEAM_ROWS + r] = vec4<f32>(0.0); }
    }
    var row_max = vec4<f32>(LOWEST);
    var row_sum = vec4<f32>(0.0); // of the keys in this lane
    for (var first_key = item.key_begin; first_key < item.key_end; first_key += KEYS) {
        let page = page_of(block_of(item.block_table, first_key), kv_head);
        let first_offset = first_key % BLOCK_SIZE;
        let staged_at = octet_at(page, first_offset);
        // Slots past the end may hold NaN: a valid one stands there instead, and weighs nothing.
        let num_keys = min(KEYS, item.key_end - first_key);
        let last_octet = num_keys * ROW_OCTETS - 1u;
        let key = min(lane, num_keys - 1u);

        workgroupBarrier();
        // Each row begins an octet further on, so that lanes read neighbouring rows from different banks.
        for (var i = li; i < KEYS * ROW_OCTETS; i += WG) {
            let row = i / ROW_OCTETS;
            kv_rows[row * ROW_OCTETS + (i + row) % ROW_OCTETS] = k_pool[staged_at + min(i, last_octet)];
        }
        workgroupBarrier();
        var score = vec4<f32>(0.0);
        for (var octet = 0u; octet < ROW_OCTETS; octet++) {
            let k = unpack_octet(kv_rows[key * ROW_OCTETS + (octet + key) % ROW_OCTETS]);
            let at = first_row * ROW_QUADS + 2u * octet;
            score += vec4<f32>(
                dot(k.lo, q_rows[at]),
                dot(k.lo, q_rows[at + ROW_QUADS]),
                dot(k.lo, q_rows[at + 2u * ROW_QUADS]),
                dot(k.lo, q_rows[at + 3u * ROW_QUADS]),
            );
            score += vec4<f32>(
                dot(k.hi, q_rows[at + 1u]),
                dot(k.hi, q_rows[at + ROW_QUADS + 1u]),
                dot(k.hi, q_rows[at + 2u * ROW_QUADS + 1u]),
                dot(k.hi, q_rows[at + 3u * ROW_QUADS + 1u]),
            );
        }
        let valid = vec4<bool>(lane < num_keys) & (vec4<u32>(first_key + lane) <= last_key);
        score = select(vec4<f32>(LOWEST), score * k_scale(page, first_offset + key), valid);
        if (lane < KEYS) { scores[team * KEYS + lane] = score; }

        workgroupBarrier();
        for (var i = li; i < KEYS * ROW_OCTETS; i += WG) { kv_rows[i] = v_pool[staged_at + min(i, last_octet)]; }
        // Every lane of a team computes the same running maxima.
        var new_max = row_max;
        for (var j = 0u; j < KEYS; j++) { new_max = max(new_max, scores[team * KEYS + j]); }
        let rescale = exp(row_max - new_max);
        row_max = new_max;
        let weight = select(vec4<f32>(0.0), exp(score - new_max), score > vec4<f32>(LOWEST));
        row_sum = row_sum * rescale + weight;
        if (lane < KEYS) { weights[team * KEYS + lane] = weight * v_scale(page, first_offset + key); }
        for (var i = 0u; i < REGISTERS; i++) {
            for (var r = 0u; r < TEAM_ROWS; r++) { acc[i * TEAM_ROWS + r] *= rescale[r]; }
        }

        workgroupBarrier();
        for (var j = 0u; j < KEYS; j++) {
            let w = weights[team * KEYS + j];
            for (var i = 0u; i < REGISTERS; i++) {
                let quad = min(i * LANES + lane, ROW_QUADS - 1u);
                let octet = unpack_octet(kv_rows[j * ROW_OCTETS + quad / 2u]);
                let v = select(octet.lo, octet.hi, (quad & 1u) == 1u);
                for (var r = 0u; r < TEAM_ROWS; r++) { acc[i * TEAM_ROWS + r] += w[r] * v; }
            }
        }
    }
    // The lanes' sums meet: nobody reads scores after the barrier above.
    if (lane < KEYS) { scores[team * KEYS + lane] = row_sum; }
    workgroupBarrier();
    row_sum = vec4<f32>(0.0);
    for (var j = 0u; j < KEYS; j++) { row_sum += scores[team * KEYS + j]; }
    for (var r = 0u; r < TEAM_ROWS; r++) {
        let row = first_row + r;
        let its = query(item, row / HEADS_PER_GROUP);
        if (row / HEADS_PER_GROUP < item.num_queries) {
            let is_partial = its.partials != NO_PARTIAL;
            let to = select(its.token, its.partials + item.split, is_partial) * HEADS + first_head + row % HEADS_PER_GROUP;
            for (var i = 0u; i < REGISTERS; i++) {
                let quad = i * LANES + lane;
                if (quad < ROW_QUADS) {
                    let value = acc[i * TEAM_ROWS + r] / row_sum[r];
                    if (is_partial) { partial_out[to * ROW_QUADS + quad] = value; } else { out[to * ROW_QUADS + quad] = value; }
                }
            }
            if (is_partial && lane == 0u) { partial_stats[to] = vec2<f32>(row_max[r], row_sum[r]); }
        }
    }
}
