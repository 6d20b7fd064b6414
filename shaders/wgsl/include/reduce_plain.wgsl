// Reductions over a workgroup by a tree in workgroup memory: for adapters without subgroup operations.
const REDUCE_WG = 64u;
struct Invocation {
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
}
var<workgroup> reduce_f32: array<f32, REDUCE_WG>;
var<workgroup> reduce_u32: array<u32, REDUCE_WG>;
var<workgroup> reduce_vec3: array<vec3<f32>, REDUCE_WG>;

fn workgroup_sum(v: f32, inv: Invocation) -> f32 {
    workgroupBarrier();
    reduce_f32[inv.index] = v;
    for (var half = REDUCE_WG / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (inv.index < half) { reduce_f32[inv.index] = reduce_f32[inv.index] + reduce_f32[inv.index + half]; }
    }
    workgroupBarrier();
    return reduce_f32[0];
}
fn workgroup_max(v: f32, inv: Invocation) -> f32 {
    workgroupBarrier();
    reduce_f32[inv.index] = v;
    for (var half = REDUCE_WG / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (inv.index < half) { reduce_f32[inv.index] = max(reduce_f32[inv.index], reduce_f32[inv.index + half]); }
    }
    workgroupBarrier();
    return reduce_f32[0];
}
fn workgroup_min_u32(v: u32, inv: Invocation) -> u32 {
    workgroupBarrier();
    reduce_u32[inv.index] = v;
    for (var half = REDUCE_WG / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (inv.index < half) { reduce_u32[inv.index] = min(reduce_u32[inv.index], reduce_u32[inv.index + half]); }
    }
    workgroupBarrier();
    return reduce_u32[0];
}
fn workgroup_sum3(v: vec3<f32>, inv: Invocation) -> vec3<f32> {
    workgroupBarrier();
    reduce_vec3[inv.index] = v;
    for (var half = REDUCE_WG / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (inv.index < half) { reduce_vec3[inv.index] = reduce_vec3[inv.index] + reduce_vec3[inv.index + half]; }
    }
    workgroupBarrier();
    return reduce_vec3[0];
}
