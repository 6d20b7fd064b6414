// Sums over a workgroup of SUMS numbers of each invocation, all by one tree in workgroup memory.
const HALF_WG = REDUCE_WG / 2u;
var<workgroup> sums_of_tree: array<f32, SUMS * HALF_WG>; // [SUMS][HALF_WG]

fn add_up(mine: ptr<function, array<f32, SUMS>>, inv: Invocation) {
    if (inv.index >= HALF_WG) {
        for (var s = 0u; s < SUMS; s++) { sums_of_tree[s * HALF_WG + inv.index - HALF_WG] = (*mine)[s]; }
    }
    workgroupBarrier();
    if (inv.index < HALF_WG) {
        for (var s = 0u; s < SUMS; s++) { sums_of_tree[s * HALF_WG + inv.index] += (*mine)[s]; }
    }
    for (var half = HALF_WG / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (inv.index < half) {
            for (var at = inv.index; at < SUMS * HALF_WG; at += HALF_WG) { sums_of_tree[at] += sums_of_tree[at + half]; }
        }
    }
    workgroupBarrier();
}
fn sum_of_all(s: u32, inv: Invocation) -> f32 { return sums_of_tree[s * HALF_WG]; }
