// Reductions over a workgroup: within each subgroup, then over the subgroups through workgroup memory. Correct for any
// subgroup size from 4 up.
const REDUCE_WG = 128u;
struct Invocation {
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(num_subgroups) num_subgroups: u32,
}
const REDUCE_MAX_SUBGROUPS = REDUCE_WG / 4u;
var<workgroup> reduce_f32: array<f32, REDUCE_MAX_SUBGROUPS>;
var<workgroup> reduce_u32: array<u32, REDUCE_MAX_SUBGROUPS>;
var<workgroup> reduce_vec3: array<vec3<f32>, REDUCE_MAX_SUBGROUPS>;

fn workgroup_sum(v: f32, inv: Invocation) -> f32 {
    let part = subgroupAdd(v);
    workgroupBarrier();
    if (inv.lane == 0u) { reduce_f32[inv.subgroup] = part; }
    workgroupBarrier();
    var all = reduce_f32[0];
    for (var i = 1u; i < inv.num_subgroups; i++) { all = all + reduce_f32[i]; }
    return all;
}
fn workgroup_max(v: f32, inv: Invocation) -> f32 {
    let part = subgroupMax(v);
    workgroupBarrier();
    if (inv.lane == 0u) { reduce_f32[inv.subgroup] = part; }
    workgroupBarrier();
    var all = reduce_f32[0];
    for (var i = 1u; i < inv.num_subgroups; i++) { all = max(all, reduce_f32[i]); }
    return all;
}
fn workgroup_min_u32(v: u32, inv: Invocation) -> u32 {
    let part = subgroupMin(v);
    workgroupBarrier();
    if (inv.lane == 0u) { reduce_u32[inv.subgroup] = part; }
    workgroupBarrier();
    var all = reduce_u32[0];
    for (var i = 1u; i < inv.num_subgroups; i++) { all = min(all, reduce_u32[i]); }
    return all;
}
fn workgroup_sum3(v: vec3<f32>, inv: Invocation) -> vec3<f32> {
    let part = vec3<f32>(subgroupAdd(v.x), subgroupAdd(v.y), subgroupAdd(v.z));
    workgroupBarrier();
    if (inv.lane == 0u) { reduce_vec3[inv.subgroup] = part; }
    workgroupBarrier();
    var all = reduce_vec3[0];
    for (var i = 1u; i < inv.num_subgroups; i++) { all = all + reduce_vec3[i]; }
    return all;
}
