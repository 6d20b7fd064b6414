//! Paged attention alone: over long contexts, with blocks in order and scattered, and with a common prefix read once or by
//! each sequence.
//!
//! `cargo bench --bench attention -- [--device NAME] [--heads QUERY,KV,DIM] [FILTER]`, by default at the heads of
//! SmolLM2-135M. Rows that are compared run in turns, so that a machine that is busy with other things as well disturbs them
//! alike; figures are medians.

use bindery::backend::kernel_cases::{BLOCK_SIZE, SeqPlan, SplitMix64, StepData};
use bindery::backend::webgpu::{GpuDevice, WebGpuBackend};
use bindery::backend::{
    ActId, Activation, AttentionShape, Backend, BackendError, KvDtype, KvLayout, Op, Program, RopeTable, Rows,
    StepLimits, StepOutput,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Attention ops in a step, each over a pool of its own: so many that the rest of a step does not count.
const LAYERS: u32 = 8;

/// Steps that are timed of each case.
const ROUNDS: usize = 15;

/// Attention of `text`, its query heads, KV heads and their dimension with commas between.
fn heads(text: &str) -> Option<AttentionShape> {
    let numbers: Vec<u32> = text.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [num_heads, num_kv_heads, head_dim] = numbers[..] else { return None };
    let shape = AttentionShape { num_heads, num_kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt() };
    (num_kv_heads > 0 && num_heads % num_kv_heads == 0 && head_dim > 0).then_some(shape)
}

/// One thing to time.
struct Case {
    name: String,
    dtype: KvDtype,
    /// Context tokens of each sequence, of which the first `common` are in the same blocks.
    contexts: Vec<u32>,
    common: u32,
    scattered: bool,
    cascade: bool,
}

impl Case {
    fn new(name: &str, dtype: KvDtype, contexts: Vec<u32>) -> Self {
        Self { name: name.to_owned(), dtype, contexts, common: 0, scattered: true, cascade: true }
    }

    /// The sequences on a pool of exactly their blocks, each about to decode a token, and the number of blocks.
    fn sequences(&self) -> (Vec<SeqPlan>, u32) {
        let common = self.common / BLOCK_SIZE;
        let own = |context: &u32| context / BLOCK_SIZE + 1 - common;
        let num_blocks = common + self.contexts.iter().map(own).sum::<u32>();
        let blocks = match self.scattered {
            true => SplitMix64::from_name("attention").permutation(num_blocks),
            false => (0..num_blocks).collect(),
        };
        let (start, mut rest) = blocks.split_at(common as usize);
        let mut seqs = Vec::new();
        for context in &self.contexts {
            let (own, others) = rest.split_at(own(context) as usize);
            seqs.push(SeqPlan { context_len: *context, query_len: 1, table: [start, own].concat() });
            rest = others;
        }
        (seqs, num_blocks)
    }

    fn prepare(&self, gpu: Arc<GpuDevice>, shape: AttentionShape) -> Result<Prepared, BackendError> {
        let (seqs, num_blocks) = self.sequences();
        let step = StepData::new(&seqs);
        let width = shape.num_heads * shape.head_dim;
        let activation = |name| Activation { name, rows: Rows::Tokens, cols: width };
        let program = Program {
            activations: vec![activation("q"), activation("out")],
            ops: (0..LAYERS).map(|layer| Op::PagedAttention { layer, q: ActId(0), out: ActId(1) }).collect(),
            attention: shape,
            rope: RopeTable::default(),
            logits: None,
        };
        let kv = KvLayout {
            num_layers: LAYERS,
            num_blocks,
            block_size: BLOCK_SIZE,
            num_kv_heads: shape.num_kv_heads,
            head_dim: shape.head_dim,
            dtype: self.dtype,
        };
        let limits = StepLimits {
            max_tokens: seqs.len() as u32,
            max_seqs: seqs.len() as u32,
            max_logits_rows: 1,
            max_block_table_entries: step.block_tables.len() as u32,
            max_block_copies: 0,
            max_draws: 0,
            max_adjustments: 0,
            batch_invariant: false,
            cascade_attention: self.cascade,
            quantize_activations: false,
        };
        let mut backend = WebGpuBackend::new(gpu);
        backend.prepare(program, kv, limits)?;
        let mut random = SplitMix64::from_name(&self.name);
        let pool = random.values(kv.layer_elements(), 1.0);
        (0..LAYERS as usize).try_for_each(|layer| backend.write_kv(layer, &pool, &pool))?;
        backend.write_activation(ActId(0), &random.values(seqs.len() * width as usize, 1.0))?;
        let kv_bytes = seqs.iter().map(|seq| u64::from(seq.seq_len())).sum::<u64>() * kv.block_bytes()
            / u64::from(BLOCK_SIZE * LAYERS);
        Ok(Prepared { backend, step, kv_bytes, times: Vec::new() })
    }
}

struct Prepared {
    backend: WebGpuBackend,
    step: StepData,
    /// K and V of all tokens of all sequences, in one layer.
    kv_bytes: u64,
    times: Vec<Duration>,
}

impl Prepared {
    fn median_s(&mut self) -> f64 {
        self.times.sort();
        self.times[self.times.len() / 2].as_secs_f64() / f64::from(LAYERS)
    }
}

/// Times cases in turns, and prints each with its time over that of the first.
fn compare(gpu: &Arc<GpuDevice>, shape: AttentionShape, title: &str, cases: &[Case]) -> Result<(), BackendError> {
    let mut prepared =
        cases.iter().map(|case| case.prepare(gpu.clone(), shape)).collect::<Result<Vec<Prepared>, BackendError>>()?;
    let mut output = StepOutput::default();
    for round in 0..=ROUNDS {
        for one in &mut prepared {
            let start = Instant::now();
            one.backend.forward(&one.step.input(), &mut output)?;
            // The first compiles the kernels.
            if round > 0 {
                one.times.push(start.elapsed());
            }
        }
    }
    println!("{title}");
    let first = prepared[0].median_s();
    for (case, one) in cases.iter().zip(&mut prepared) {
        let seconds = one.median_s();
        println!(
            "  {:<34} {:>9.1} us a layer  {:>7.2} GB/s of K and V  {:>6.3} x the first",
            case.name,
            1e6 * seconds,
            one.kv_bytes as f64 / seconds / 1e9,
            seconds / first
        );
    }
    Ok(())
}

fn main() -> Result<(), BackendError> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut device, mut filter, mut wanted) = (None, String::new(), "9,3,64".to_owned());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--device" => device = arguments.next(),
            "--heads" => wanted = arguments.next().unwrap_or_default(),
            _ => filter = argument,
        }
    }
    let Some(shape) = heads(&wanted) else {
        eprintln!(
            "error: --heads {wanted:?}: give query heads, KV heads that divide them, and their dimension, as 32,8,128"
        );
        std::process::exit(2);
    };
    let gpu = GpuDevice::open(device.as_deref(), None)?;
    println!("{}: {} kernels, heads {wanted}", gpu.summary().name, gpu.variant());
    let run = |title: &str, cases: &[Case]| match title.contains(&filter) {
        true => compare(&gpu, shape, title, cases),
        false => Ok(()),
    };
    let dtypes = [KvDtype::F16, KvDtype::Int8, KvDtype::F32];

    for dtype in dtypes {
        let of = |context: u32| Case::new(&format!("{context} tokens"), dtype, vec![context]);
        run(&format!("context, one sequence, {}", dtype.name()), &[of(128), of(1024), of(4096)])?;
    }
    for dtype in dtypes {
        let scattered = Case::new("scattered blocks", dtype, vec![2047; 4]);
        let ordered = Case { name: "ascending blocks".into(), scattered: false, ..Case::new("", dtype, vec![2047; 4]) };
        run(&format!("block table, 4 sequences of 2048 tokens, {}", dtype.name()), &[ordered, scattered])?;
    }
    for dtype in dtypes {
        let apart = Case { common: 2048, cascade: false, ..Case::new("by each", dtype, vec![2048 + 20; 16]) };
        let once = Case { common: 2048, ..Case::new("once for all", dtype, vec![2048 + 20; 16]) };
        run(&format!("common prefix, 16 sequences, 2048 tokens, {}", dtype.name()), &[apart, once])?;
    }
    Ok(())
}
