// Sums over a workgroup of SUMS numbers of each invocation behind one barrier: over subgroups here, over the workgroup by
// whoever asks for one.
var<workgroup> sums_of_subgroups: array<f32, SUMS * REDUCE_MAX_SUBGROUPS>; // [SUMS][REDUCE_MAX_SUBGROUPS]

fn add_up(mine: ptr<function, array<f32, SUMS>>, inv: Invocation) {
    for (var s = 0u; s < SUMS; s++) {
        let part = subgroupAdd((*mine)[s]);
        if (inv.lane == 0u) { sums_of_subgroups[s * REDUCE_MAX_SUBGROUPS + inv.subgroup] = part; }
    }
    workgroupBarrier();
}
fn sum_of_all(s: u32, inv: Invocation) -> f32 {
    var all = sums_of_subgroups[s * REDUCE_MAX_SUBGROUPS];
    for (var i = 1u; i < inv.num_subgroups; i++) { all += sums_of_subgroups[s * REDUCE_MAX_SUBGROUPS + i]; }
    return all;
}
