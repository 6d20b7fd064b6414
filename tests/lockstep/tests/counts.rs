//! What the device counts.

use bindery_lockstep::{Access, Counts, Gpu, Meter, metered_adapter};

mod support;
use support::{kernel, run_on};

/// What a kernel of 32 invocations in one subgroup does in each of its two workgroups, one of which is run.
fn count(declarations: &str, body: &str) -> Counts {
    let meter = Meter::new(1);
    let gpu = Gpu { matrix_sizes: &[8], ..Gpu::NVIDIA };
    let adapter = metered_adapter(gpu, meter.clone());
    run_on(&adapter, &kernel(declarations, body)).unwrap_or_else(|fault| panic!("{fault}"));
    let [counts] = &meter.take()[..] else { panic!("one dispatch") };
    assert_eq!((counts.workgroups, counts.sampled), (2, 1));
    assert_eq!((counts.kernel.as_str(), counts.workgroup_size, counts.subgroup_size), ("main", 32, 32));
    assert!(meter.take().is_empty(), "told once");
    counts.clone()
}

/// The only access to this memory that writes or does not.
fn access(counts: &Counts, memory: &str, writes: bool) -> Access {
    let mut found = counts.accesses.iter().filter(|access| access.memory == memory && access.writes == writes);
    let first = found.next().unwrap_or_else(|| panic!("{memory} in {:?}", counts.accesses));
    assert!(found.next().is_none(), "accesses of one line");
    first.clone()
}

/// Requests, passes, fewest passes and sectors.
fn numbers(access: &Access) -> [u64; 4] {
    [access.requests, access.passes, access.fewest_passes, access.sectors]
}

#[test]
fn neighbours_that_load_neighbouring_words_share_sectors() {
    let counts = count("", "data[id] = given[id];");
    assert_eq!(numbers(&access(&counts, "given", false)), [1, 1, 1, 4]);
    assert_eq!(numbers(&access(&counts, "data", true)), [1, 1, 1, 4]);
    let counts = count("", "data[id] = given[2u * li];");
    assert_eq!(numbers(&access(&counts, "given", false)), [1, 2, 1, 8]);
    let counts = count("", "data[id] = given[li / 32u];");
    assert_eq!(numbers(&access(&counts, "given", false)), [1, 1, 1, 1]);
    let buffer = |counts: &Counts, name: &str| {
        let found = counts.buffers.iter().find(|traffic| traffic.buffer == name).expect("it is bound");
        (found.used_bytes, found.moved_bytes)
    };
    // What a workgroup has asked for once does not come again; a sector comes whole.
    let twice = count("", "data[id] = given[li] + given[31u - li];");
    assert_eq!(buffer(&twice, "given"), (128, 128));
    let apart = count("", "if (li < 8u) { data[id] = given[8u * li]; }");
    assert_eq!(buffer(&apart, "given"), (32, 256));
}

#[test]
fn words_of_one_bank_come_one_after_the_other() {
    let words = "var<workgroup> of_workgroup: array<u32, 1024>;";
    for (at, passes) in [("li", 1), ("2u * li", 2), ("8u * li", 8), ("32u * li", 32), ("33u * li % 1024u", 1)] {
        let counts = count(words, &format!("of_workgroup[{at}] = id;"));
        let access = access(&counts, "of_workgroup", true);
        assert_eq!((access.passes, access.fewest_passes), (passes, 1), "{at}");
        assert!(access.is_of_workgroup && access.line.contains(at), "{}", access.line);
    }
    // Eight invocations at a time have vectors of four.
    let vectors = "var<workgroup> vectors: array<vec4<u32>, 64>;";
    for (at, passes) in [("li", 4), ("2u * li", 8), ("li % 2u * 32u + li", 4)] {
        let counts = count(vectors, &format!("vectors[{at}] = vec4<u32>(id);"));
        let access = access(&counts, "vectors", true);
        assert_eq!((access.requests, access.passes, access.fewest_passes), (1, passes, 4), "{at}");
    }
    // Two halves are a word.
    let halves = "enable f16; var<workgroup> halves: array<f16, 64>;";
    for (at, passes) in [("li", 1), ("2u * li", 1), ("63u - li", 1), ("li % 2u * 32u + li / 2u", 1)] {
        let counts = count(halves, &format!("halves[{at}] = 1.0h;"));
        let access = access(&counts, "halves", true);
        assert_eq!((access.passes, access.words), (passes, if at == "2u * li" { 32 } else { 16 }), "{at}");
    }
}

#[test]
fn operations_that_a_gpu_would_make() {
    let operations = |body: &str| count("", body).operations;
    let store = operations("data[id] = 0u;");
    // As a compiler would: one for a product and its sum, none for what is the same everywhere or multiplied by 1.
    assert_eq!(operations("data[id] = id + 7u;") - store, 1);
    assert_eq!(operations("data[id] = id * 3u + 7u;") - store, 1);
    assert_eq!(operations("data[id] = id * 1u / 1u + 0u;") - store, 0);
    assert_eq!(operations("data[id] = (id & 15u) | 64u;") - store, 1);
    assert_eq!(operations("var sum = 0u; for (var i = 0u; i < 9u; i++) { sum += i; } data[id] = sum;") - store, 0);
    assert_eq!(operations("let v = vec4<f32>(f32(id)); data[id] = u32(dot(v, v));") - store, 4);
    // A branch costs what the subgroup does.
    assert_eq!(operations("var v = id; if (li < 3u) { v = v * 5u; } data[id] = v;") - store, 2);
    let counts = count("", "data[id] = u32(exp(f32(li) * 0.5));");
    assert_eq!((counts.conversions, counts.special), (2, 1));
    let counts = count("", "let v = unpack2x16float(given[id] * 0x04000400u); data[id] = bitcast<u32>(v.x + v.y);");
    assert_eq!(counts.conversions, 2);
    assert!(counts.lines.iter().all(|(line, times)| line.contains("data[id]") && *times > 0), "{:?}", counts.lines);
}

#[test]
fn halves_are_computed_by_two() {
    let declarations = "enable f16; var<workgroup> halves: array<vec4<f16>, 32>;";
    let of_words = "vec4<f16>(vec4<f32>(unpack2x16float(given[id] * 0x04000400u), unpack2x16float(given[63u - id] * 0x04000400u)))";
    let counts = count(declarations, &format!("halves[li] = {of_words};"));
    let before = counts.operations;
    assert_eq!(counts.conversions, 0, "they are in the words as they come");
    assert_eq!(access(&counts, "halves", true).passes, 2);
    let counts = count(declarations, &format!("halves[li] = fma({of_words}, vec4<f16>(3.0h), vec4<f16>(1.0h));"));
    assert_eq!(counts.operations - before, 2);
}

#[test]
fn exchanges_and_matrices() {
    let counts = count("", "data[id] = subgroupShuffleXor(id, 1u) + subgroupAdd(id);");
    assert_eq!(counts.exchanges, 1 + 5);
    let declarations = "enable f16; enable wgpu_cooperative_matrix; var<workgroup> factors: array<f16, 64>;
        var<workgroup> sums: array<f32, 64>;";
    let counts = count(
        declarations,
        "factors[li] = f16(li); factors[li + 32u] = 1.0h; sums[li] = 0.0; sums[li + 32u] = 0.0; workgroupBarrier();
        let a = coopLoadT<coop_mat8x8<f16, A>>(&factors[0], 8u);
        let b = coopLoadT<coop_mat8x8<f16, B>>(&factors[0], 8u);
        let sum = coopMultiplyAdd(a, b, coopLoadT<coop_mat8x8<f32, C>>(&sums[0], 8u)); workgroupBarrier();
        coopStoreT(sum, &sums[0], 8u); data[id] = li;",
    );
    assert_eq!(counts.matrix_multiply_adds, 512);
    let loads: Vec<(u64, u64)> = counts
        .accesses
        .iter()
        .filter(|access| access.memory == "factors" && !access.writes)
        .map(|access| (access.requests, access.passes))
        .collect();
    assert_eq!(loads, [(1, 1), (1, 1)], "64 halves are 32 words");
}
