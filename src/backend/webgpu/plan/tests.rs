//! How many dispatches a step takes, on a Llama of small layers.

use super::super::super::kernel_cases::{SeqPlan, StepData};
use super::super::super::{
    ActId, Activation, AttentionShape, Backend, HostWeight, KvDtype, KvLayout, Op, Program, RopePairing, RopeTable,
    Rows, StepLimits, WeightFormat, WeightId, WeightPart,
};
use super::super::step_words::StepWords;
use super::super::{GpuDevice, Variant, WebGpuBackend};
use super::Int8Rows;
use std::borrow::Cow;

const HIDDEN: u32 = 64;
/// So many that the product of them is split in two where steps have some rows.
const INTERMEDIATE: u32 = 1056;
const HEADS: AttentionShape = AttentionShape { num_heads: 4, num_kv_heads: 2, head_dim: 16, scale: 0.25 };

const HIDDEN_STATE: ActId = ActId(0);
const NORMED: ActId = ActId(1);
const QKV: ActId = ActId(2);
const Q: ActId = ActId(3);
const ATTENTION: ActId = ActId(4);
const GATE_UP: ActId = ActId(5);
const MLP: ActId = ActId(6);
const COLS: [u32; 7] = [HIDDEN, HIDDEN, 128, HIDDEN, HIDDEN, 2 * INTERMEDIATE, INTERMEDIATE];

fn matrix(backend: &mut WebGpuBackend, cols: u32, parts: &[(WeightFormat, u32)]) -> WeightId {
    let part = |&(format, rows): &(WeightFormat, u32)| {
        let bytes = rows as usize * format.row_bytes(cols as usize).expect("whole blocks");
        WeightPart { format, rows: rows as usize, data: Cow::Owned(vec![0; bytes]) }
    };
    let parts = parts.iter().map(part).collect();
    let weight = HostWeight { name: "weight".to_owned(), cols: cols as usize, parts };
    backend.upload_weight(&weight).expect("it fits")
}

/// Formats of the weights that consist of parts.
#[derive(Clone, Copy)]
struct Formats {
    /// Of q and k, and of v.
    qk_v: [WeightFormat; 2],
    gate_up: [WeightFormat; 2],
}

fn program(backend: &mut WebGpuBackend, layers: u32, Formats { qk_v, gate_up }: Formats) -> Program {
    let [norm, qkv, output, mlp, down] = [
        (HIDDEN, &[(WeightFormat::F32, 1)][..]),
        (HIDDEN, &[(qk_v[0], 96), (qk_v[1], 32)]),
        (HIDDEN, &[(WeightFormat::Q4_1, HIDDEN)]),
        (HIDDEN, &[(gate_up[0], INTERMEDIATE), (gate_up[1], INTERMEDIATE)]),
        (INTERMEDIATE, &[(WeightFormat::Q4_1, HIDDEN)]),
    ]
    .map(|(cols, parts)| matrix(backend, cols, parts));
    let rms_norm = |x, out| Op::RmsNorm { x, weight: norm, eps: 1e-5, out };
    let matmul = |x, weight, out, accumulate| Op::MatMul { x, weight, bias: None, out, accumulate };
    let of_layer = |layer| {
        [
            rms_norm(HIDDEN_STATE, NORMED),
            matmul(NORMED, qkv, QKV, false),
            Op::RopeAndCache { layer, qkv: QKV, q: Q, pairing: RopePairing::Halves, norm: None },
            Op::PagedAttention { layer, q: Q, out: ATTENTION },
            matmul(ATTENTION, output, HIDDEN_STATE, true),
            rms_norm(HIDDEN_STATE, NORMED),
            matmul(NORMED, mlp, GATE_UP, false),
            Op::SiluMul { gate_up: GATE_UP, out: MLP },
            matmul(MLP, down, HIDDEN_STATE, true),
        ]
    };
    let activation = |cols| Activation { name: "activation", rows: Rows::Tokens, cols };
    let rope = RopeTable { cos: vec![1.0; 512 * 8], sin: vec![0.0; 512 * 8] };
    Program {
        activations: COLS.map(activation).to_vec(),
        ops: (0..layers).flat_map(of_layer).collect(),
        attention: HEADS,
        rope,
        logits: None,
    }
}

const LIMITS: StepLimits = StepLimits {
    max_tokens: 64,
    max_seqs: 8,
    max_logits_rows: 8,
    max_block_table_entries: 64,
    max_block_copies: 8,
    max_draws: 8,
    max_adjustments: 8,
    batch_invariant: false,
    cascade_attention: true,
    quantize_activations: false,
};

/// The kernels of a step of a model of so many layers, in order.
fn kernels(
    variant: Variant,
    layers: u32,
    formats: Formats,
    dtype: KvDtype,
    int8: bool,
    step: &StepData,
) -> Vec<&'static str> {
    let gpu = GpuDevice::open(Some("llvmpipe"), Some(variant)).unwrap_or_else(|error| {
        panic!("{error}; `cargo xtask test` installs the adapter: mesa-vulkan-drivers (llvmpipe)")
    });
    let mut backend = WebGpuBackend::new(gpu);
    let program = program(&mut backend, layers, formats);
    let (num_kv_heads, head_dim) = (HEADS.num_kv_heads, HEADS.head_dim);
    let kv = KvLayout { num_layers: layers, num_blocks: 64, block_size: 16, num_kv_heads, head_dim, dtype };
    backend.prepare(program, kv, StepLimits { quantize_activations: int8, ..LIMITS }).expect("the kernels compile");
    let mut words = StepWords::default();
    let prepared = backend.prepared();
    words.build(&step.input(), kv.block_size, &prepared.tiling, &prepared.round_limits);
    backend.prepared().plan.dispatches(&words.counts).map(|dispatch| dispatch.kernel()).collect()
}

/// Dispatches of one layer in a step, whatever comes before and after the layers.
fn dispatches_per_layer(variant: Variant, formats: Formats, dtype: KvDtype, step: &StepData) -> usize {
    let [two, five] = [2, 5].map(|layers| kernels(variant, layers, formats, dtype, false, step).len());
    (five - two) / 3
}

fn decode(context_len: u32, tokens: u32) -> StepData {
    let table = |seq: u32| (0..context_len / 16 + 1).map(|block| block + seq * (context_len / 16 + 1)).collect();
    let seqs: Vec<SeqPlan> = (0..tokens).map(|seq| SeqPlan { context_len, query_len: 1, table: table(seq) }).collect();
    StepData::new(&seqs)
}

const EACH_VARIANT: [Variant; 3] = [Variant::Cpu, Variant::Subgroup, Variant::Plain];

const SAME: Formats = Formats { qk_v: [WeightFormat::Q4_1; 2], gate_up: [WeightFormat::Q4_1; 2] };
const DIFFERENT: [WeightFormat; 2] = [WeightFormat::Q4_1, WeightFormat::F16];

#[test]
fn a_decode_takes_five_dispatches_a_layer_and_six_where_its_context_is_split() {
    for variant in EACH_VARIANT {
        let dispatches = |dtype, step: &StepData| dispatches_per_layer(variant, SAME, dtype, step);
        for tokens in [1, 4] {
            assert_eq!(dispatches(KvDtype::F16, &decode(100, tokens)), 5, "{variant}, {tokens} sequences");
        }
        assert_eq!(dispatches(KvDtype::F16, &decode(1400, 1)), 6, "{variant}");
        assert_eq!(
            dispatches(KvDtype::Int8, &decode(100, 1)),
            6,
            "{variant}: a row of an int8 pool is rounded as a whole"
        );
    }
}

#[test]
fn products_of_many_rows_leave_rope_and_cache_to_its_kernel_on_software_adapters() {
    let rope_and_cache = |variant, step: &StepData| {
        let names = kernels(variant, 1, SAME, KvDtype::F16, false, step);
        names.iter().filter(|&&kernel| kernel == "rope_and_cache").count()
    };
    for (variant, dispatches) in [(Variant::Cpu, [0, 1]), (Variant::Subgroup, [0, 0]), (Variant::Plain, [0, 0])] {
        let counts = [4, 20].map(|tokens| rope_and_cache(variant, &StepData::of_tokens(tokens)));
        assert_eq!(counts, dispatches, "{variant}");
    }
}

#[test]
fn split_products_take_no_dispatch_more_than_norms_of_their_own() {
    for variant in [Variant::Subgroup, Variant::Plain] {
        let of_tokens = |tokens| kernels(variant, 3, SAME, KvDtype::F16, false, &StepData::of_tokens(tokens));
        let count = |tokens, name| of_tokens(tokens).iter().filter(|&&kernel| kernel == name).count();
        // The last layer's has no norm after it.
        assert_eq!([8, 9, 64, 65].map(|tokens| count(tokens, "rms_norm_of_partial_sums")), [0, 2, 2, 0], "{variant}");
        assert_eq!([9, 65].map(|tokens| count(tokens, "rms_norm")), [0, 0], "{variant}");
        let per_layer = |tokens| dispatches_per_layer(variant, SAME, KvDtype::F16, &StepData::of_tokens(tokens));
        assert_eq!([9, 65].map(per_layer), [6, 5], "{variant}");
    }
}

#[test]
fn gate_and_up_of_different_formats_take_two_more() {
    let formats = Formats { gate_up: DIFFERENT, ..SAME };
    for variant in EACH_VARIANT {
        assert_eq!(dispatches_per_layer(variant, formats, KvDtype::F16, &decode(100, 1)), 7, "{variant}");
    }
}

#[test]
fn v_of_another_format_than_q_and_k_takes_one_more() {
    let formats = Formats { qk_v: DIFFERENT, ..SAME };
    for variant in EACH_VARIANT {
        for (context_len, dispatches) in [(100, 6), (1400, 7)] {
            let step = decode(context_len, 1);
            assert_eq!(dispatches_per_layer(variant, formats, KvDtype::F16, &step), dispatches, "{variant}");
        }
    }
}

#[test]
fn activations_are_rounded_to_int8_where_that_is_allowed_and_the_weight_is_quantised() {
    let formats = Formats { gate_up: DIFFERENT, ..SAME };
    let decode = decode(100, 1);
    for variant in [Variant::Subgroup, Variant::Plain] {
        let names = kernels(variant, 1, formats, KvDtype::F16, true, &decode);
        let count = |name| names.iter().filter(|&&kernel| kernel == name).count();
        // All but gate and up, which have a part that is not quantised.
        assert_eq!((count("quantize_rows"), count("matvec_int8"), count("matvec")), (3, 3, 2), "{names:?}");
        assert!(!kernels(variant, 1, formats, KvDtype::F16, false, &decode).contains(&"quantize_rows"), "{variant}");
    }
}

#[test]
fn activations_in_int8_are_refused_where_no_kernel_takes_them() {
    let invariant = StepLimits { batch_invariant: true, ..LIMITS };
    for (variant, limits, word) in
        [(Variant::Cpu, LIMITS, "--variant subgroup"), (Variant::Plain, invariant, "--batch-invariant")]
    {
        let error = Int8Rows::check(variant, &limits).expect_err(word).to_string();
        assert!(error.contains(word), "{error}");
    }
    assert!(Int8Rows::check(Variant::Subgroup, &LIMITS).is_ok());
}
