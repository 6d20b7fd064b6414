//! What the device reports, and that it computes what WGSL says.

use bindery_lockstep::{Gpu, adapter};

mod support;
use support::{WORDS, kernel, run_on};

fn run(gpu: Gpu, source: &str) -> Result<Vec<u32>, String> {
    run_on(&adapter(gpu), source)
}

/// Subgroups of 16.
const GPU: Gpu = Gpu { subgroup_sizes: &[16], matrix_sizes: &[8], ..Gpu::NVIDIA };

#[track_caller]
fn assert_fault(declarations: &str, body: &str, says: &str) {
    assert_fault_on(GPU, declarations, body, says);
}

#[track_caller]
fn assert_fault_on(gpu: Gpu, declarations: &str, body: &str, says: &str) {
    let fault = run(gpu, &kernel(declarations, body)).expect_err("a fault");
    assert!(fault.contains(says), "{fault}");
}

#[track_caller]
fn assert_gives(declarations: &str, body: &str, want: impl Fn(u32) -> u32) {
    assert_gives_on(GPU, declarations, body, want);
}

#[track_caller]
fn assert_gives_on(gpu: Gpu, declarations: &str, body: &str, want: impl Fn(u32) -> u32) {
    let got = run(gpu, &kernel(declarations, body)).unwrap_or_else(|fault| panic!("{fault}"));
    let want: Vec<u32> = (0..WORDS as u32).map(want).collect();
    assert_eq!(got, want);
}

const SHARED: &str = "var<workgroup> shared_words: array<u32, 32>;";

#[test]
fn a_race_between_invocations_of_a_workgroup() {
    let neighbour = "data[id] = shared_words[li ^ 1u];";
    assert_fault(SHARED, &format!("shared_words[li] = id; {neighbour}"), "data race: invocation 0");
    assert_gives(SHARED, &format!("shared_words[li] = id; workgroupBarrier(); {neighbour}"), |id| id ^ 1);
    let overwritten = "shared_words[li] = id; workgroupBarrier(); let other = shared_words[li ^ 1u];";
    assert_fault(SHARED, &format!("{overwritten} shared_words[li] = other;"), "writes word");
    assert_gives(
        SHARED,
        &format!("{overwritten} workgroupBarrier(); shared_words[li] = other; data[id] = shared_words[li];"),
        |id| id ^ 1,
    );
    assert_fault(SHARED, "shared_words[3] = id;", "data race");
    assert_fault(SHARED, "shared_words[3] = 7u;", "data race");
}

#[test]
fn a_barrier_orders_one_kind_of_memory() {
    let through_buffer = |barrier: &str| {
        format!("data[id] = li; {barrier}(); let other = data[id ^ 1u]; storageBarrier(); data[id] = other;")
    };
    assert_fault("", &through_buffer("workgroupBarrier"), "reads word 1 of data");
    assert_gives("", &through_buffer("storageBarrier"), |id| (id % 32) ^ 1);
}

#[test]
fn a_race_between_workgroups() {
    assert_fault("", "data[li] = 1u;", "of workgroup 0 wrote");
    assert_fault("", "if (id == 0u) { data[40] = 1u; } if (id == 63u) { data[1] = data[40]; }", "reads word 40");
    assert_fault("", "if (id == 0u) { data[1] = data[40]; } if (id == 63u) { data[40] = 1u; }", "writes word 40");
    assert_gives("", "data[63u - id] = given[id];", |id| 63 - id);
}

#[test]
fn atomics_do_not_race() {
    let words = "var<workgroup> sum: atomic<u32>;";
    let cleared = "if (li == 0u) { atomicStore(&sum, 0u); } workgroupBarrier();";
    let added = "atomicAdd(&sum, id); let some = atomicLoad(&sum); workgroupBarrier(); data[id] = atomicLoad(&sum);";
    assert_gives(words, &format!("{cleared} {added}"), |id| if id < 32 { 496 } else { 1520 });
    assert_fault(words, added, "never written");
}

#[test]
fn workgroup_memory_that_nobody_wrote() {
    assert_fault(
        SHARED,
        "if (li != 5u) { shared_words[li] = 1u; } workgroupBarrier(); data[id] = shared_words[li];",
        "word 5 ",
    );
    // What another workgroup left there is as good as nothing.
    assert_fault(SHARED, "if (wg.x == 0u) { shared_words[li] = 1u; } data[id] = shared_words[li];", "never written");
}

#[test]
fn accesses_out_of_bounds() {
    assert_fault("", "data[id + 1u] = 0u;", "index 64 of 64 in invocation 31");
    assert_fault("", "data[id] = given[id + 32u];", "word 64 of given, which has 64");
    assert_fault("", "data[id] = given[i32(id) - 1];", "of given, which has 64");
    assert_fault("", "var local = array<u32, 4>(); data[id] = local[li / 4u];", "index 4 of 4");
    assert_gives("", "if (id < 63u) { data[id] = given[id + 1u]; }", |id| 63.min(id + 1));
}

#[test]
fn barriers_and_subgroups_in_divergent_flow() {
    assert_fault("", "if (li < 16u) { workgroupBarrier(); }", "a barrier that some invocations");
    assert_fault("", "if (li == 7u) { return; } workgroupBarrier();", "a barrier that some invocations");
    assert_gives("", "if (wg.x == 0u) { workgroupBarrier(); data[id] = 5u; }", |id| if id < 32 { 5 } else { id });
    assert_fault("", "if (li < 20u) { data[id] = subgroupAdd(1u); }", "in 4 of its 16 invocations");
    assert_gives("", "if (li < 16u) { data[id] = subgroupAdd(1u); }", |id| if id % 32 < 16 { 16 } else { id });
}

#[test]
fn subgroups() {
    assert_gives("", "data[id] = subgroupMax(id);", |id| id | 15);
    assert_gives("", "data[id] = subgroupShuffleXor(id, 5u);", |id| id ^ 5);
    assert_gives("", "data[id] = subgroupShuffle(id, 15u - lane);", |id| id ^ 15);
    assert_fault("", "data[id] = subgroupShuffleXor(id, 16u);", "lane 16 of a subgroup of 16");
    let scattered = Gpu { scattered_subgroups: true, ..GPU };
    assert_gives_on(scattered, "", "data[id] = 32u * wg.x + 2u * lane + subgroup;", |id| id);
    // 16 and 16 of 24, and those of them that there are.
    let uneven = Gpu { subgroup_sizes: &[24], ..GPU };
    assert_gives_on(uneven, "", "data[id] = subgroupAdd(1u);", |id| if id % 32 < 24 { 24 } else { 8 });
}

#[test]
fn branches_and_loops() {
    let steps = "var n = id; var steps = 0u;
        while (n > 1u) { steps++; if (n % 2u == 0u) { n /= 2u; continue; } n = 3u * n + 1u; }";
    let collatz = |id: u32| {
        let next = |&n: &u32| Some(if n.is_multiple_of(2) { n / 2 } else { 3 * n + 1 });
        std::iter::successors(Some(id), next).take_while(|&n| n > 1).count() as u32
    };
    assert_gives("", &format!("{steps} data[id] = steps;"), collatz);
    let left = "var n = 0u; loop { if (n == 40u) { break; } continuing { n += 3u; break if n > id; } } data[id] = n;";
    assert_gives("", left, |id| (id / 3 + 1) * 3);
    let find =
        "fn find(wanted: u32) -> u32 { for (var i = 0u; ; i++) { if (given[i] >= wanted) { return i; } } return 0u; }";
    assert_gives(find, "if (li % 2u == 0u) { data[id] = find(id / 2u); }", |id| if id % 2 == 0 { id / 2 } else { id });
    let add = "fn add(to: ptr<function, vec2<u32>>) { (*to).y += 3u; }";
    assert_gives(add, "var v = vec2(id, 1u); add(&v); data[id] = v.x + v.y;", |id| id + 4);
}

#[test]
fn elements_and_layouts() {
    // Three words and a gap, then one word: five words with the next vector's alignment are eight.
    let padded = "struct Padded { v: vec3<u32>, n: u32, w: vec3<u32> }
        @group(0) @binding(1) var<storage, read> padded: array<Padded>;";
    let source = kernel(padded, "let p = padded[id / 8u]; data[id] = p.v.z * 10000u + p.n * 100u + p.w.y;");
    let source = source.replace("@binding(1) var<storage, read> given", "@binding(2) var<storage, read> given");
    let got = run(GPU, &source).unwrap_or_else(|fault| panic!("{fault}"));
    let want: Vec<u32> =
        (0..WORDS as u32).map(|id| id / 8 * 8).map(|at| (at + 2) * 10_000 + (at + 3) * 100 + at + 5).collect();
    assert_eq!(got, want);
    let by_value =
        "let all = array<vec2<u32>, 2>(vec2(7u, id), vec2(9u, 1u)); if (li > 4u) { data[id] = all[id % 2u].x; }";
    assert_gives("", by_value, |id| if id % 32 > 4 { 7 + id % 2 * 2 } else { id });
    assert_gives("", "var v = vec4(0u); v[id % 4u] = id; data[id] = v.x + v.y + v.z + v.w;", |id| id);
}

#[test]
fn halves_and_conversions() {
    assert_gives("enable f16;", "data[id] = u32(f16(2048u + id));", |id| {
        let step = 2048 + id;
        // To the nearest of the even numbers, to the multiple of four where two are as near.
        if step % 2 == 0 {
            step
        } else if step % 4 == 1 {
            step - 1
        } else {
            step + 1
        }
    });
    assert_gives("", "data[id] = u32(unpack2x16float(pack2x16float(vec2(1.0, f32(id))))[1]);", |id| id);
    assert_gives("", "data[id] = u32(i32(f32(id) - 40.5) + 50);", |id| {
        (id as i32 - 40 + 50 - i32::from(id > 40)) as u32
    });
}

#[test]
fn matrices() {
    let declarations = "enable f16; enable wgpu_cooperative_matrix;
        var<workgroup> left: array<f16, 64>; var<workgroup> right: array<f16, 64>; var<workgroup> sums: array<f32, 128>;";
    // Each subgroup multiplies two matrices, the second of which it reads by columns, and adds a third.
    let body = "for (var i = li; i < 64u; i += 32u) { left[i] = f16(i); right[i] = f16(i * i % 11u); }
        for (var i = li; i < 128u; i += 32u) { sums[i] = f32(i); }
        workgroupBarrier();
        let a = coopLoadT<coop_mat8x8<f16, A>>(&left[0], 8u);
        let b = coopLoad<coop_mat8x8<f16, B>>(&right[0], 8u);
        var c = coopLoadT<coop_mat8x8<f32, C>>(&sums[subgroup * 64u], 8u);
        c = coopMultiplyAdd(a, b, c);
        coopStoreT(c, &sums[subgroup * 64u], 8u);
        workgroupBarrier();
        data[id] = u32(sums[wg.x * 64u + li]);";
    let product =
        |row: u32, column: u32| (0..8).map(|k| (row * 8 + k) * ((column * 8 + k) * (column * 8 + k) % 11)).sum::<u32>();
    assert_gives(declarations, body, |id| id / 32 * 64 + id % 32 + product(id % 32 / 8, id % 8));
    assert_fault(declarations, &body.replace("subgroup * 64u", "0u"), "data race");
    assert_fault(declarations, &body.replace("&left[0]", "&left[lane]"), "different places of a cooperative matrix");
    assert_fault(declarations, &body.replace("&left[0]", "&left[8]"), "word 64 of left, which has 64");
    // A subgroup that is the whole workgroup: who holds which element is unknown all the same.
    let whole = Gpu { subgroup_sizes: &[32], ..GPU };
    let unordered = "for (var i = li; i < 64u; i += 32u) { left[i] = f16(i); sums[i] = 0.0; }
        let a = coopLoadT<coop_mat8x8<f16, A>>(&left[0], 8u);
        data[id] = li;";
    assert_fault_on(whole, declarations, unordered, "some invocation of subgroup 0");
}

#[test]
fn what_a_gpu_does_not_have() {
    assert_fault_on(Gpu::SMALL, "", "data[id] = subgroupAdd(1u);", "SUBGROUP");
    let few = Gpu { storage_buffers: 1, ..GPU };
    assert_fault_on(few, "", "data[id] = given[id];", "main: 2 storage buffers, the GPU has 1");
    let large = "var<workgroup> large: array<vec4<f32>, 1025>;";
    assert_fault(large, "large[li].x = 1.0;", "16400 bytes of workgroup memory");
}
