//! The host's tables of every kernel against its WGSL, as `naga` reads it.

use super::super::{AttentionShape, KvDtype, RopePairing, StepLimits};
use super::folded::{Epilogue, Folded};
use super::fusion::{ACCUMULATE, BIAS};
use super::kernel::{self, Binding, Input, Kernel, MatMulKernel, Matrices, WORKGROUP_BYTES};
use super::repack::DeviceFormat;
use super::step_words::{
    ADJUSTMENT_WORDS, ARGMAX, DRAW_WORDS, DRAWN, ITEM_WORDS, NO_PARTIAL, QUERY_WORDS, REDUCE_WORDS, header,
};
use super::uniformity::barriers_in_divergent_flow;
use super::{Tuning, Variant, tuning_candidates};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, Expression, Literal, Module, Scalar, StorageAccess, TypeInner};
use std::collections::{BTreeMap, BTreeSet};
use std::mem::offset_of;

/// A member of a `Params` struct: name, offset in bytes, type.
type Field = (&'static str, u32, Scalar);

trait HostScalar {
    const SCALAR: Scalar;
}

impl HostScalar for u32 {
    const SCALAR: Scalar = Scalar::U32;
}

impl HostScalar for f32 {
    const SCALAR: Scalar = Scalar::F32;
}

fn scalar_of<P, T: HostScalar>(_: fn(&P) -> T) -> Scalar {
    T::SCALAR
}

/// The fields of a host struct; none may be left out.
macro_rules! fields {
    ($name:ident: $($field:ident),+) => {{
        let fields: Vec<Field> = vec![$((
            stringify!($field),
            offset_of!(kernel::$name, $field) as u32,
            scalar_of::<kernel::$name, _>(|params| params.$field),
        )),+];
        assert_eq!(4 * fields.len(), size_of::<kernel::$name>(), "every field of {}", stringify!($name));
        fields
    }};
}

/// Variants with the subgroup sizes that their kernels are built for.
const VARIANTS: [(Variant, u32); 7] = [
    (Variant::Cpu, 4),
    (Variant::Cpu, 8),
    (Variant::Matrix, 8),
    (Variant::Matrix, 32),
    (Variant::Subgroup, 8),
    (Variant::Subgroup, 32),
    (Variant::Plain, 1),
];

fn shapes() -> Vec<AttentionShape> {
    let shape =
        |(num_heads, num_kv_heads, head_dim)| AttentionShape { num_heads, num_kv_heads, head_dim, scale: 0.125 };
    [(9, 3, 64), (32, 8, 128), (8, 2, 256), (4, 1, 80), (40, 40, 96), (6, 3, 16), (7, 1, 128)].map(shape).to_vec()
}

/// Every kernel of a variant and what to call it, with the fields of its parameters.
fn kernels(variant: Variant, subgroup_size: u32, tuning: &Tuning) -> Vec<(String, Kernel, Vec<Field>)> {
    let label = format!("{variant}/{subgroup_size}");
    let quads = || fields!(QuadsParams: quads);
    let mut all = vec![
        (label.clone(), kernel::rms_norm(variant, subgroup_size), fields!(RmsNormParams: quads, eps)),
        (
            label.clone(),
            kernel::rms_norm_of_partial_sums(variant, subgroup_size),
            fields!(RmsNormOfPartialSumsParams: quads, eps, rows, splits),
        ),
        (label.clone(), kernel::feed_tokens(), Vec::new()),
        (label.clone(), kernel::fma_peak(), fields!(FmaPeakParams: rounds, factor)),
        (label.clone(), kernel::select_logits_rows(), quads()),
        (label.clone(), kernel::silu_mul(), quads()),
        (label.clone(), kernel::copy_blocks(), quads()),
        (label.clone(), kernel::copy_blocks_of_three(), quads()),
        (label.clone(), kernel::argmax_chunks(variant, subgroup_size), fields!(ArgmaxChunksParams: vocab, chunks)),
        (label.clone(), kernel::argmax_rows(), fields!(ArgmaxRowsParams: chunks)),
        (label.clone(), kernel::top_k_chunks(variant, subgroup_size), fields!(TopKChunksParams: vocab, chunks)),
        (label.clone(), kernel::top_k_rows(variant, subgroup_size), fields!(TopKRowsParams: chunks)),
        (label.clone(), kernel::draw_blocks(), fields!(DrawBlocksParams: vocab, blocks)),
        (label.clone(), kernel::draw_rows(variant, subgroup_size), fields!(DrawRowsParams: blocks)),
        (label.clone(), kernel::score_rows(variant, subgroup_size), fields!(ScoreRowsParams: vocab)),
    ];
    for format in DeviceFormat::ALL {
        let label = format!("{label} {format:?}");
        for with_norm in [false, true].into_iter().filter(|_| format.has_scales()) {
            let kernel = kernel::quantize_rows(format, with_norm, variant, subgroup_size);
            all.push((format!("{label} {with_norm}"), kernel, fields!(QuantizeParams: blocks, norm_eps)));
        }
        all.push((label.clone(), kernel::embed(format, variant), fields!(EmbedParams: octets, first_row, num_rows)));
        for choice in products(variant, subgroup_size, format.has_scales(), tuning) {
            for (norm, epilogue) in [false, true].into_iter().flat_map(|norm| epilogues().map(move |end| (norm, end))) {
                let folded = Folded { norm, epilogue };
                if !choice.folds(epilogue) || (norm && choice.input() != Input::Any) {
                    continue;
                }
                let fields =
                    fields!(MatMulParams: blocks, cols, out_stride, first_row, rows, flags, grid_width, norm_eps);
                let kernel = choice.kernel(format, variant, subgroup_size, folded);
                all.push((format!("{label} {choice:?} {folded:?}"), kernel, fields));
            }
        }
    }
    let limits = StepLimits {
        max_tokens: 1,
        max_seqs: 1,
        max_logits_rows: 1,
        max_block_table_entries: 1,
        max_block_copies: 1,
        max_draws: 1,
        max_adjustments: 1,
        batch_invariant: false,
        cascade_attention: true,
        quantize_activations: false,
    };
    for shape in shapes() {
        for dtype in KvDtype::ALL {
            let label = format!("{label} {}/{}x{} {dtype:?}", shape.num_heads, shape.num_kv_heads, shape.head_dim);
            let fields = || fields!(AttentionParams: scale, items_at, first_item);
            for matrices in matrices(variant, subgroup_size) {
                let tiling = kernel::attention_tiling(variant, subgroup_size, matrices, &shape, dtype, &limits, tuning);
                let decode = kernel::attention_decode(variant, subgroup_size, &shape, dtype, &tiling);
                let prefill = kernel::attention_prefill(variant, subgroup_size, matrices, &shape, dtype, &tiling);
                all.push((format!("{label} decode"), decode, fields()));
                all.push((format!("{label} prefill {matrices:?}"), prefill, fields()));
            }
            let reduce = kernel::attention_reduce(variant, &shape);
            all.push((label.clone(), reduce, fields!(ReduceParams: first_item)));
            for pairing in [RopePairing::Halves, RopePairing::Interleaved] {
                for has_norm in [false, true] {
                    let rope = kernel::rope_and_cache(&shape, dtype, pairing, has_norm);
                    let label = format!("{label} {pairing:?}, norm {has_norm}");
                    all.push((label, rope, fields!(RopeParams: qkv_stride, norm_eps)));
                }
            }
        }
    }
    all
}

/// Every ending of a product; those that write a KV pool for both of its element types, and for both pairings.
fn epilogues() -> impl Iterator<Item = Epilogue> {
    let rope = shapes().into_iter().flat_map(|shape| {
        let of = move |kv, pairing| Epilogue::RopeAndCache { shape, kv, pairing };
        [of(KvDtype::F16, RopePairing::Halves), of(KvDtype::F32, RopePairing::Interleaved)]
    });
    [Epilogue::Plain, Epilogue::Gate].into_iter().chain(rope)
}

/// Cooperative matrices that adapters of a variant have, or none.
fn matrices(variant: Variant, subgroup_size: u32) -> Vec<Option<Matrices>> {
    let of_size = |size| Some(Matrices { size, max_subgroup_size: subgroup_size });
    match variant {
        Variant::Matrix => vec![of_size(8), of_size(16)],
        Variant::Cpu | Variant::Subgroup | Variant::Plain => vec![None],
    }
}

/// Every matrix product of a variant.
fn products(variant: Variant, subgroup_size: u32, quantised: bool, tuning: &Tuning) -> Vec<MatMulKernel> {
    let of = |matrices, int8| MatMulKernel::choices(variant, matrices, false, int8, tuning);
    let mut all: Vec<_> =
        matrices(variant, subgroup_size).into_iter().flat_map(|matrices| of(matrices, false)).collect();
    if quantised {
        all.extend(of(matrices(variant, subgroup_size)[0], true));
    }
    let all: Vec<_> = all.into_iter().map(|(_, choice)| choice).collect();
    let tiles = all.iter().filter(|choice| matches!(choice, MatMulKernel::Tiled { .. } | MatMulKernel::Coop { .. }));
    let split: Vec<_> = tiles.map(|choice| choice.split(4)).collect();
    all.into_iter().chain(split).collect()
}

/// What kernels may use; `SHADER_FLOAT16_IN_FLOAT32` is unpack2x16float and pack2x16float.
pub(super) fn capabilities(kernel: &Kernel) -> Capabilities {
    let base = Capabilities::IMMEDIATES | Capabilities::SUBGROUP | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    match kernel.name {
        "matmul_coop" | "attention_prefill_coop" => {
            base | Capabilities::SHADER_FLOAT16 | Capabilities::COOPERATIVE_MATRIX
        }
        _ => base,
    }
}

/// A parsed and validated kernel.
pub(super) struct Reflected {
    pub(super) label: String,
    pub(super) kernel: Kernel,
    fields: Vec<Field>,
    pub(super) module: Module,
}

/// Every kernel once: those of equal text are compiled once too.
pub(super) fn for_each_kernel(mut check: impl FnMut(&Reflected)) {
    let mut seen = BTreeSet::new();
    let tunings = tuning_candidates();
    for ((variant, subgroup_size), tuning) in VARIANTS.into_iter().flat_map(|v| tunings.iter().map(move |t| (v, t))) {
        for (label, kernel, fields) in kernels(variant, subgroup_size, tuning) {
            let source = kernel.source();
            if !seen.insert(source.clone()) {
                continue;
            }
            let label = format!("{} ({label})", kernel.name);
            let module = naga::front::wgsl::parse_str(&source)
                .unwrap_or_else(|error| panic!("{label}: {}", error.emit_to_string(&source)));
            check(&Reflected { label, kernel, fields, module });
        }
    }
    assert!(seen.len() > 100, "only {} kernels", seen.len());
}

fn size_of_type(module: &Module, ty: naga::Handle<naga::Type>) -> u32 {
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).expect("a valid module has a layout");
    layouter[ty].size
}

/// Members of the struct of this name, or of this type.
fn members(module: &Module, inner: &TypeInner) -> Vec<(String, u32, Option<Scalar>)> {
    let TypeInner::Struct { members, .. } = inner else { panic!("not a struct: {inner:?}") };
    let member = |m: &naga::StructMember| {
        let scalar = module.types[m.ty].inner.scalar();
        (m.name.clone().expect("members have names"), m.offset, scalar)
    };
    members.iter().map(member).collect()
}

/// Bytes of workgroup memory.
fn workgroup_bytes(module: &Module) -> u32 {
    let globals = module.global_variables.iter().filter(|(_, global)| global.space == AddressSpace::WorkGroup);
    globals.map(|(_, global)| size_of_type(module, global.ty).next_multiple_of(16)).sum()
}

#[test]
fn every_kernel_is_valid_wgsl_and_its_entry_point_bears_its_name() {
    for_each_kernel(|Reflected { label, kernel, module, .. }| {
        let mut validator = Validator::new(ValidationFlags::all(), capabilities(kernel));
        if let Err(error) = validator.validate(module) {
            panic!("{label}: {}", error.emit_to_string(&kernel.source()));
        }
        let names: Vec<&str> = module.entry_points.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, [kernel.name], "{label}");
        let size: u32 = module.entry_points[0].workgroup_size.iter().product();
        assert!((1..=256).contains(&size), "{label}: {size} invocations in a workgroup");
    });
}

#[test]
fn bindings_are_those_of_the_host() {
    for_each_kernel(|Reflected { label, kernel, module, .. }| {
        let mut declared = Vec::new();
        for (_, global) in module.global_variables.iter() {
            let Some(binding) = global.binding else { continue };
            let AddressSpace::Storage { access } = global.space else { panic!("{label}: {:?}", global.space) };
            assert_eq!(binding.group, 0, "{label}");
            assert!(access.contains(StorageAccess::LOAD), "{label}");
            declared.push(Binding { number: binding.binding, written: access.contains(StorageAccess::STORE) });
        }
        declared.sort_by_key(|binding| binding.number);
        assert_eq!(declared, kernel.bindings, "{label}: as declared in the WGSL, and as the host binds them");
        // The plan looks whether an adapter has more.
        let most = if declared.iter().any(|binding| binding.number == 9) { kernel::ROPE_AND_CACHE_BUFFERS } else { 8 };
        assert!(declared.len() as u32 <= most, "{label}: {} storage buffers, some adapters have 8", declared.len());
    });
}

#[test]
fn parameters_are_those_of_the_host() {
    for_each_kernel(|Reflected { label, kernel, fields, module }| {
        let immediate = module.global_variables.iter().find(|(_, global)| global.space == AddressSpace::Immediate);
        let Some((_, params)) = immediate else {
            assert_eq!((kernel.params_bytes, fields.len()), (0, 0), "{label}: no parameters in the WGSL");
            return;
        };
        let inner = &module.types[params.ty].inner;
        let host: Vec<(String, u32, Option<Scalar>)> =
            fields.iter().map(|&(name, offset, scalar)| (name.to_owned(), offset, Some(scalar))).collect();
        assert_eq!(members(module, inner), host, "{label}");
        assert_eq!(size_of_type(module, params.ty), kernel.params_bytes, "{label}");
        assert!(kernel.params_bytes <= 32, "{label}: adapters must have {} bytes of immediates", kernel.params_bytes);
    });
}

/// The fields of the host's `TokenDraw`, which goes to the device as it is.
const TOKEN_DRAW: [&str; DRAW_WORDS] = [
    "row",
    "first_adjustment",
    "num_adjustments",
    "top_k",
    "top_p",
    "min_p",
    "temperature",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "uniform",
];

/// The constants of type u32, by name.
fn constants(module: &Module) -> BTreeMap<&str, usize> {
    let value = |constant: &naga::Constant| match module.global_expressions[constant.init] {
        Expression::Literal(Literal::U32(value)) => Some(value as usize),
        _ => None,
    };
    let constants = module.constants.iter();
    constants.filter_map(|(_, constant)| Some((constant.name.as_deref()?, value(constant)?))).collect()
}

#[test]
fn flags_of_products_are_those_of_the_host() {
    for_each_kernel(|Reflected { label, module, fields, .. }| {
        if fields.iter().any(|&(name, ..)| name == "flags") {
            let constants = constants(module);
            for (name, value) in [("ACCUMULATE", ACCUMULATE), ("BIAS", BIAS)] {
                assert_eq!(constants.get(name), Some(&(value as usize)), "{label}: {name}");
            }
        }
    });
}

#[test]
fn step_metadata_is_that_of_the_host() {
    let header = [
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
    ];
    assert_eq!(header.len(), header::WORDS);
    let others = [
        ("ROWS_TOKENS", header::NUM_TOKENS),
        ("ROWS_LOGITS", header::NUM_LOGITS_ROWS),
        ("ITEM_WORDS", ITEM_WORDS),
        ("NO_PARTIAL", NO_PARTIAL as usize),
        ("DRAWN", DRAWN as usize),
        ("ARGMAX", ARGMAX as usize),
    ];
    let module = naga::front::wgsl::parse_str(&kernel::attention_reduce(Variant::Cpu, &shapes()[0]).source())
        .expect("it is valid");
    let draws = naga::front::wgsl::parse_str(&kernel::draw_blocks().source()).expect("it is valid");
    let constants = constants(&module);
    for (name, value) in header.into_iter().chain(others) {
        assert_eq!(constants.get(name), Some(&value), "{name} in step.wgsl");
    }
    // The order in which `StepWords` writes an item's words.
    let fields = |name: &str| -> Vec<String> {
        let modules = [&module, &draws];
        let mut types = modules.iter().flat_map(|module| module.types.iter().map(move |(_, ty)| (module, ty)));
        let (module, ty) = types.find(|(_, ty)| ty.name.as_deref() == Some(name)).expect(name);
        members(module, &ty.inner).into_iter().map(|(name, ..)| name).collect()
    };
    let items = [
        ("WorkItem", ITEM_WORDS, &["first_query", "num_queries", "block_table", "key_begin", "key_end", "split"][..]),
        ("Query", QUERY_WORDS, &["token", "partials"][..]),
        ("ReduceItem", REDUCE_WORDS, &["token", "first", "count"][..]),
        ("LogitAdjustment", ADJUSTMENT_WORDS, &["token", "seen", "count", "bias"][..]),
        ("TokenDraw", DRAW_WORDS, &TOKEN_DRAW),
    ];
    for (name, words, expected) in items {
        let found = fields(name);
        assert_eq!(found, expected, "{name}");
        assert_eq!(found.len(), words, "{name}");
    }
}

#[test]
fn workgroup_memory_is_within_what_every_adapter_has() {
    let mut most: BTreeMap<(String, &str), (u32, String)> = BTreeMap::new();
    for_each_kernel(|Reflected { label, kernel, module, .. }| {
        let bytes = workgroup_bytes(module);
        let variant = label.split(['(', '/']).nth(1).unwrap_or_default().to_owned();
        let entry = most.entry((variant, kernel.name)).or_default();
        if bytes >= entry.0 {
            *entry = (bytes, label.clone());
        }
    });
    for ((variant, name), (bytes, label)) in &most {
        println!("{variant:8} {name:24} {bytes:6} bytes of workgroup memory, most in {label}");
    }
    let over: Vec<_> = most.values().filter(|(bytes, _)| *bytes > WORKGROUP_BYTES).collect();
    assert!(over.is_empty(), "above {WORKGROUP_BYTES} bytes of workgroup memory: {over:?}");
}

#[test]
fn barriers_and_subgroup_operations_are_in_uniform_control_flow() {
    for_each_kernel(|Reflected { label, module, .. }| {
        let found = barriers_in_divergent_flow(module);
        assert!(found.is_empty(), "{label}: {found:?}");
    });
}
