//! The host's tables of every kernel against its text.

use super::super::super::{AttentionShape, KvDtype};
use super::super::fusion::{ACCUMULATE, BIAS};
use super::super::step_words::{ARGMAX, DRAWN, ITEM_WORDS, NO_PARTIAL, QUERY_WORDS, header};
use super::{Kernel, WORKGROUP_BYTES, attention_prefill, attention_tiling, cuda, kernel_variants};

/// What stands between the first `open` and the next `close`.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let rest = &text[text.find(open)? + open.len()..];
    Some(&rest[..rest.find(close)?])
}

/// The lines without their comments.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Type and name of each field of the file's `Params`.
fn fields(source: &str) -> Vec<(String, String)> {
    let Some(members) = between(source, "struct Params {", "};") else { return Vec::new() };
    let members = members.replace("/*", "//");
    let mut fields = Vec::new();
    for declaration in code(&members).split(';').map(str::trim).filter(|declaration| !declaration.is_empty()) {
        let (kind, names) = declaration.split_once(' ').expect("a type and names");
        let host = match kind {
            "float" => "f32",
            other => other,
        };
        fields.extend(names.split(',').map(|name| (host.to_owned(), name.trim().to_owned())));
    }
    fields
}

/// The arguments of the kernel's function.
fn arguments(kernel: &Kernel, source: &str) -> Vec<String> {
    let open = format!("{}(\n", kernel.name);
    let text = between(source, &open, ") {").unwrap_or_else(|| panic!("no function {}", kernel.name));
    let mut text = code(text);
    for macro_name in ["WEIGHT_ARGUMENTS", "INPUT_ARGUMENTS", "OUTPUT_ARGUMENTS"] {
        let arguments = between(source, &format!("#define {macro_name} "), "\n").unwrap_or_default();
        text = text.replace(macro_name, arguments);
    }
    text.split(',').map(|argument| argument.trim().to_owned()).collect()
}

#[test]
fn parameters_are_those_of_the_host() {
    for (label, kernel) in kernel_variants() {
        let host: Vec<(String, String)> =
            kernel.fields.iter().map(|&(kind, name)| (kind.to_owned(), name.to_owned())).collect();
        assert_eq!(fields(&kernel.source()), host, "{label}");
        assert_eq!(4 * host.len() as u32, kernel.params_bytes, "{label}");
    }
}

#[test]
fn arguments_are_the_step_then_buffers_then_parameters() {
    for (label, kernel) in kernel_variants() {
        let mut arguments = arguments(&kernel, &kernel.source());
        if kernel.params_bytes > 0 {
            assert_eq!(arguments.pop().as_deref(), Some("Params params"), "{label}");
        }
        // One kernel writes there.
        let step = if kernel.name == "feed_tokens" { "u32* step" } else { "Step step" };
        assert_eq!(arguments[0], step, "{label}");
        assert!(arguments[1..].iter().all(|argument| argument.contains('*')), "{label}: {arguments:?}");
        assert_eq!(arguments.len() as u32, kernel.buffers, "{label}: {arguments:?}");
    }
}

#[test]
fn step_metadata_is_that_of_the_host() {
    let constants = [
        ("NUM_TOKENS", header::NUM_TOKENS),
        ("NUM_LOGITS_ROWS", header::NUM_LOGITS_ROWS),
        ("NUM_BLOCK_COPIES", header::NUM_BLOCK_COPIES),
        ("TOKEN_IDS_AT", header::TOKEN_IDS_AT),
        ("POSITIONS_AT", header::POSITIONS_AT),
        ("SLOT_MAPPING_AT", header::SLOT_MAPPING_AT),
        ("BLOCK_TABLES_AT", header::BLOCK_TABLES_AT),
        ("LOGITS_INDICES_AT", header::LOGITS_INDICES_AT),
        ("BLOCK_COPIES_AT", header::BLOCK_COPIES_AT),
        ("DECODE_ITEMS_AT", header::DECODE_ITEMS_AT),
        ("PREFILL_ITEMS_AT", header::PREFILL_ITEMS_AT),
        ("REDUCE_ITEMS_AT", header::REDUCE_ITEMS_AT),
        ("NUM_TOP_K_ROWS", header::NUM_TOP_K_ROWS),
        ("TOP_K", header::TOP_K),
        ("TOP_K_ROWS_AT", header::TOP_K_ROWS_AT),
        ("NUM_DECODE_ITEMS", header::NUM_DECODE_ITEMS),
        ("NUM_PREFILL_ITEMS", header::NUM_PREFILL_ITEMS),
        ("NUM_REDUCE_ITEMS", header::NUM_REDUCE_ITEMS),
        ("DRAWS_AT", header::DRAWS_AT),
        ("ADJUSTMENTS_AT", header::ADJUSTMENTS_AT),
        ("QUERIES_AT", header::QUERIES_AT),
        ("NUM_FED_TOKENS", header::NUM_FED_TOKENS),
        ("FED_TOKENS_AT", header::FED_TOKENS_AT),
        ("NUM_DRAWS", header::NUM_DRAWS),
        ("NUM_SCORED", header::NUM_SCORED),
        ("SCORED_AT", header::SCORED_AT),
        ("ROWS_TOKENS", header::NUM_TOKENS),
        ("ROWS_LOGITS", header::NUM_LOGITS_ROWS),
        ("ITEM_WORDS", ITEM_WORDS),
        ("QUERY_WORDS", QUERY_WORDS),
    ];
    let text = cuda!("include/step.cuh");
    for (name, value) in constants {
        let line = format!("constexpr u32 {name} = {value}u;");
        assert!(text.contains(&line), "step.cuh has no {line:?}");
    }
    assert!(text.contains(&format!("constexpr u32 NO_PARTIAL = {NO_PARTIAL:#x}u;")));
    assert!(text.contains(&format!("constexpr u32 DRAWN = {DRAWN:#x}u;")));
    assert!(text.contains(&format!("constexpr u32 ARGMAX = {ARGMAX:#x}u;")));
    // The order in which `StepWords` writes an item's words.
    let names = |text: &str| -> Vec<String> {
        let declared = code(text).replace("u32", "").replace(';', ",");
        declared.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
    };
    let work = between(text, "struct WorkItem {", "};").expect("it is there");
    assert_eq!(names(work), ["first_query", "num_queries", "block_table", "key_begin", "key_end", "split"]);
    let query = between(text, "struct Query {", "};").expect("it is there");
    assert_eq!(names(query), ["token", "partials"]);
    let reduce = between(text, "struct ReduceItem {", "};").expect("it is there");
    assert_eq!(names(reduce), ["token", "first", "count"]);
}

#[test]
fn flags_of_products_are_those_of_the_host() {
    let text = cuda!("include/matmul.cuh");
    for (name, value) in [("ACCUMULATE", ACCUMULATE), ("BIAS", BIAS)] {
        assert!(text.contains(&format!("constexpr u32 {name} = {value}u;")), "{name}");
    }
}

/// Declared and asked for, as the least of the devices with tensor cores has it: those of compute capability 8.6.
#[test]
fn workgroup_memory_is_within_what_devices_have() {
    for (label, kernel) in kernel_variants() {
        let bytes = kernel.shared_bytes + kernel.limits.workgroup_bytes;
        assert!(bytes <= 99 << 10, "{label}: {bytes} bytes");
    }
}

/// Of heads larger than those of the variants, fewer rows are prefilled at once.
#[test]
fn prefills_of_large_heads_fit() {
    for (kv, num_heads) in [(KvDtype::F16, 4), (KvDtype::Int8, 4), (KvDtype::F16, 3), (KvDtype::Int8, 1)] {
        let shape = AttentionShape { num_heads, num_kv_heads: 1, head_dim: 512, scale: 1.0 };
        let tiling = attention_tiling(&shape, kv, 90, false, true);
        let Kernel { limits, threads, .. } = attention_prefill(&shape, kv, &tiling, 90);
        let rows = tiling.prefill_tokens * tiling.heads_per_group;
        assert!(limits.workgroup_bytes <= WORKGROUP_BYTES && threads >= 4 * rows, "{kv:?}: {limits:?}, {rows} rows");
    }
}

#[test]
fn every_kernel_has_a_twin_in_wgsl() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/wgsl");
    // Tensor cores take halves, which has no twin: WGSL's rounds as it stages.
    for (label, kernel) in kernel_variants().into_iter().filter(|(_, kernel)| kernel.name != "round_rows") {
        // Tensor cores are one more way to a product, and blocks one more to take keys.
        let name = kernel.name.trim_end_matches("_tensor").trim_end_matches("_block");
        let twin = std::path::Path::new(folder).join(format!("{name}.wgsl"));
        assert!(twin.is_file(), "{label}: {}", twin.display());
    }
}
