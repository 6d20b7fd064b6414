// Reductions over a workgroup that is exactly one subgroup, as software adapters like it: no memory, no barrier.
const REDUCE_WG = SUBGROUP_SIZE;
struct Invocation {
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
}

fn workgroup_sum(v: f32, inv: Invocation) -> f32 { return subgroupAdd(v); }
fn workgroup_max(v: f32, inv: Invocation) -> f32 { return subgroupMax(v); }
fn workgroup_min_u32(v: u32, inv: Invocation) -> u32 { return subgroupMin(v); }
fn workgroup_sum3(v: vec3<f32>, inv: Invocation) -> vec3<f32> {
    return vec3<f32>(subgroupAdd(v.x), subgroupAdd(v.y), subgroupAdd(v.z));
}
