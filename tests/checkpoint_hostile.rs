//! Damaged and malicious checkpoints: opening one gives `Ok` or `Err`; it never panics, and never allocates much more
//! than the file has bytes.
//!
//! The mutations come from a seed that is printed; `BINDERY_SEED=n` runs another one.
#![cfg(feature = "runtime")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use bindery::backend::WeightFormat;
use bindery::model::gguf::GgufFile;
use bindery::model::roles::TensorRole;
use bindery::model::safetensors::SafetensorsFiles;
use bindery::model::{Checkpoint, LoadError, ModelConfig};

#[path = "support/checkpoints.rs"]
mod checkpoints;
use checkpoints::{GgufWriter, Random, TinyLlama, safetensors};

/// Remembers the largest single allocation.
struct Watched;

static LARGEST_ALLOCATION: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands every call on to the system's allocator.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST_ALLOCATION.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// The test files have less than 100 KB.
const MOST_BYTES_AT_ONCE: usize = 4 << 20;
const MUTATIONS: u64 = 3000;
const TINY: TinyLlama = TinyLlama { qkv_bias: false, tied: true, head_norms: false };

fn seed() -> u64 {
    let seed = std::env::var("BINDERY_SEED").map_or(20261123, |seed| seed.parse().expect("BINDERY_SEED is a number"));
    eprintln!("BINDERY_SEED={seed}");
    seed
}

fn check_allocations() {
    let largest = LARGEST_ALLOCATION.load(Ordering::Relaxed);
    assert!(largest < MOST_BYTES_AT_ONCE, "an allocation of {largest} bytes");
}

/// Opens it, and reads every weight when that succeeds.
fn open_gguf(bytes: Vec<u8>) -> Result<(), LoadError> {
    read_all(&Checkpoint::from_gguf(GgufFile::from_bytes(Path::new("hostile.gguf"), bytes)?)?);
    Ok(())
}

fn open_safetensors(bytes: Vec<u8>) -> Result<(), LoadError> {
    let config = TINY.hf_config().to_string();
    let config = ModelConfig::from_hf_json(Path::new("hostile/config.json"), &config, None)?;
    let files = SafetensorsFiles::from_bytes(Path::new("hostile/model.safetensors"), bytes)?;
    read_all(&Checkpoint::from_safetensors(Path::new("hostile"), config, files)?);
    Ok(())
}

fn read_all(checkpoint: &Checkpoint) {
    for role in TensorRole::all(checkpoint.config()) {
        let weight = match role.is_vector() {
            true => checkpoint.vector("vector", &[role]),
            false => checkpoint.matrix("matrix", &[role]),
        };
        for part in &weight.parts {
            assert_eq!(Some(part.data.len()), part.format.row_bytes(weight.cols).map(|bytes| bytes * part.rows));
        }
    }
    assert!(!checkpoint.tensors().is_empty() && checkpoint.weight_bytes() > 0);
}

/// Damages a file in one to three places within its first `header` bytes, or cuts it off.
fn mutate(random: &mut Random, file: &mut Vec<u8>, header: usize) {
    const NUMBERS: [u64; 12] = [
        0,
        1,
        7,
        0x7f,
        0xff,
        0x7fff_ffff,
        0xffff_ffff,
        1 << 32,
        (1 << 61) + 1,
        i64::MAX as u64,
        u64::MAX - 31,
        u64::MAX,
    ];
    for _ in 0..=random.below(3) {
        let at = random.below(header.min(file.len() - 8));
        let number = NUMBERS[random.below(NUMBERS.len())];
        match random.below(6) {
            0 => file[at] ^= 1 << random.below(8),
            1 => file[at] = random.bits() as u8,
            2 => file[at..at + 4].copy_from_slice(&number.to_le_bytes()[..4]),
            3 => file[at..at + 8].copy_from_slice(&number.to_le_bytes()),
            4 => file.truncate((at + 8).max(16)),
            _ => {
                let from = random.below(header.min(file.len() - 8));
                let len = random.below(64).min(file.len() - from.max(at));
                file.copy_within(from..from + len, at);
            }
        }
    }
}

/// Runs the mutations; returns how many files still opened.
fn mutations(seed: u64, whole: &[u8], header: usize, open: impl Fn(Vec<u8>) -> Result<(), LoadError>) -> u64 {
    let mut opened = 0;
    for number in 0..MUTATIONS {
        let mut random = Random(seed.wrapping_add(number));
        let mut file = whole.to_vec();
        mutate(&mut random, &mut file, header);
        match open(file) {
            Ok(()) => opened += 1,
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    opened
}

#[test]
fn mutated_gguf_files() {
    let seed = seed();
    for format in [WeightFormat::Q8_0, WeightFormat::F16] {
        let writer = TINY.gguf_writer("llama", format);
        let whole = writer.finish();
        open_gguf(whole.clone()).unwrap();
        let opened = mutations(seed, &whole, writer.header_len(), open_gguf);
        assert!((1..MUTATIONS).contains(&opened), "{opened} of {MUTATIONS} opened");
    }
    check_allocations();
}

#[test]
fn mutated_safetensors_files() {
    let seed = seed();
    let whole = safetensors(&TINY.hf_tensors("F16"));
    open_safetensors(whole.clone()).unwrap();
    let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let opened = mutations(seed, &whole, header, open_safetensors);
    assert!((1..MUTATIONS).contains(&opened), "{opened} of {MUTATIONS} opened");
    check_allocations();
}

#[test]
fn mutated_configurations() {
    let seed = seed();
    let whole = TINY.hf_config();
    let values = ["0", "-1", "1e308", "4294967295", "18446744073709551616", "null", "[]", "\"x\"", "{}", "true", "0.5"];
    for number in 0..MUTATIONS {
        let mut random = Random(seed.wrapping_add(number));
        let mut config = whole.clone();
        let object = config.as_object_mut().unwrap();
        let key = object.keys().nth(random.below(object.len())).unwrap().clone();
        let value = serde_json::from_str(values[random.below(values.len())]).unwrap();
        object.insert(key, value);
        let mut text = config.to_string().into_bytes();
        if random.below(2) == 0 {
            let header = text.len();
            mutate(&mut random, &mut text, header);
        }
        let text = String::from_utf8_lossy(&text);
        if let Ok(config) = ModelConfig::from_hf_json(Path::new("config.json"), &text, Some(&text)) {
            let shape = config.attention_shape();
            assert!(shape.head_dim >= 8 && shape.num_heads % shape.num_kv_heads == 0);
        }
    }
    check_allocations();
}

/// Every length of a truncated file is refused before a weight is read.
#[test]
fn truncated_files_are_refused() {
    let writer = TINY.gguf_writer("llama", WeightFormat::Q4_0);
    let whole = writer.finish();
    for len in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
        let error = open_gguf(whole[..len].to_vec()).expect_err("a truncated file was opened");
        assert!(matches!(error, LoadError::Malformed { .. }), "{len}: {error}");
    }
    let whole = safetensors(&TINY.hf_tensors("F16"));
    for len in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
        let error = open_safetensors(whole[..len].to_vec()).expect_err("a truncated file was opened");
        assert!(matches!(error, LoadError::Malformed { .. }), "{len}: {error}");
    }
}

/// What the error says about a GGUF file made by changing the tiny one.
fn gguf_error(change: impl FnOnce(&mut GgufWriter)) -> String {
    let mut writer = TINY.gguf_writer("llama", WeightFormat::Q8_0);
    change(&mut writer);
    let error = open_gguf(writer.finish()).expect_err("a hostile file was opened").to_string();
    assert!(error.contains("hostile.gguf"), "{error}");
    error
}

#[test]
fn crafted_gguf_files() {
    let array = |element: u32, len: u64| [element.to_le_bytes().as_slice(), &len.to_le_bytes()].concat();
    let nested: Vec<u8> = (0..10_000).flat_map(|_| array(9, 1)).collect();
    let contains = |error: String, part: &str| assert!(error.contains(part), "{error}");
    contains(gguf_error(|file| _ = file.raw("x", 9, &nested)), "nested more than");
    contains(gguf_error(|file| _ = file.raw("x", 9, &array(8, 1 << 60))), "cannot fit");
    contains(gguf_error(|file| _ = file.raw("x", 9, &array(12, (1 << 61) + 1))), "cannot fit");
    contains(gguf_error(|file| _ = file.raw("x", 8, &u64::MAX.to_le_bytes())), "bytes");
    contains(gguf_error(|file| _ = file.raw("x", 77, &[])), "unknown metadata type 77");
    contains(gguf_error(|file| _ = file.raw("x", 7, &[2])), "boolean");
    let not_utf8 = [1u64.to_le_bytes().as_slice(), &[0xff]].concat();
    contains(gguf_error(|file| _ = file.raw("x", 8, &not_utf8)), "UTF-8");
    contains(gguf_error(|file| _ = file.string("general.architecture", "llama")), "twice");
    contains(gguf_error(|file| _ = file.u32("general.alignment", 0)), "power of two");
    contains(gguf_error(|file| _ = file.u32("general.alignment", 24)), "power of two");
    contains(gguf_error(|file| file.pair_count = u64::MAX), "cannot fit");
    contains(gguf_error(|file| file.tensor_count = u64::MAX / 8), "cannot fit");
    contains(gguf_error(|file| file.tensor_count += 1), "0 dimensions");
    contains(gguf_error(|file| file.version = 1), "version 1");
    contains(gguf_error(|file| file.version = 3u32.swap_bytes()), "big-endian");
    contains(gguf_error(|file| _ = file.tensor_at("x", &[], 0, 0)), "0 dimensions");
    contains(gguf_error(|file| _ = file.tensor_at("x", &[1; 5], 0, 0)), "5 dimensions");
    contains(gguf_error(|file| _ = file.tensor_at("x", &[32, 0], 0, 0)), "empty dimension");
    contains(gguf_error(|file| _ = file.tensor_at("x", &[1 << 32, 1 << 32], 0, 0)), "cannot be of type F32");
    contains(gguf_error(|file| _ = file.tensor_at("x", &[33], 8, 0)), "cannot be of type Q8_0");
    contains(gguf_error(|file| _ = file.tensor_at("x", &[1 << 60], 0, 0)), "truncated");
    contains(gguf_error(|file| _ = file.tensor_at("x", &[8], 0, u64::MAX - 31)), "truncated");
    contains(gguf_error(|file| _ = file.tensor_at("x", &[8], 0, 4)), "not a multiple of 32");
    contains(gguf_error(|file| _ = file.tensor_at("x", &[8], 4, 0)), "type number 4");
    contains(gguf_error(|file| _ = file.tensor_at("output_norm.weight", &[32], 0, 0)), "twice");
    contains(gguf_error(|file| _ = file.tensor_at("blk.0.attn_q_norm.weight", &[8], 0, 0)), "attn_q_norm");
    check_allocations();
}

#[test]
fn wrong_models_are_refused_with_a_hint() {
    let gguf = |change: &dyn Fn(&mut GgufWriter)| {
        let mut writer = GgufWriter::default();
        writer.string("general.architecture", "llama");
        change(&mut writer);
        open_gguf(writer.finish()).unwrap_err().to_string()
    };
    let error = gguf(&|_| {});
    assert!(error.contains("`llama.attention.head_count` is missing"), "{error}");

    let with_output = |type_id: u32, dims: [u64; 2], bytes: usize| {
        let mut writer = TINY.gguf_writer("llama", WeightFormat::F16);
        writer.tensor("output.weight", &dims, type_id, &vec![0; bytes]);
        open_gguf(writer.finish()).unwrap_err().to_string()
    };
    let error = with_output(12, [256, 96], 144 * 96);
    assert!(error.contains("`output.weight` has shape [96, 256]") && error.contains("[96, 32]"), "{error}");
    let error = with_output(20, [32, 96], 18 * 96);
    assert!(error.contains("`output.weight` is of type IQ4_NL") && error.contains("Q5_1 and Q2_K to Q6_K"), "{error}");

    let bytes = safetensors(&TINY.hf_tensors("F16")[1..]);
    let error = open_safetensors(bytes).unwrap_err().to_string();
    assert!(error.contains("`model.embed_tokens.weight` is missing"), "{error}");
}

/// Eight tensors of 2^61 - 1 bytes: adding the eight bytes of the header's length to their sum overflows.
#[test]
fn safetensors_offsets_that_overflow() {
    let mut entries = Vec::new();
    let mut start = 0u64;
    let size = (1u64 << 61) - 1;
    for number in 0..8 {
        let end = start.wrapping_add(size);
        entries.push(format!(r#""t{number}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{start},{end}]}}"#));
        start = end;
    }
    let header = format!("{{{}}}", entries.join(","));
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    let error = open_safetensors(bytes).unwrap_err().to_string();
    assert!(error.contains("truncated"), "{error}");
}
