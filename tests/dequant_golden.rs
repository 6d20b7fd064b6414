//! The weight formats, bit for bit against the `gguf` Python package (files made by `tests/golden/make_dequant.py`).
#![cfg(feature = "runtime")]

use std::path::Path;

use bindery::backend::{WeightFormat, dequantize_row, quantize_row};
use bindery::model::gguf::GgmlQuant;

const FORMATS: [(WeightFormat, &str); 6] = [
    (WeightFormat::F32, "f32"),
    (WeightFormat::F16, "f16"),
    (WeightFormat::Bf16, "bf16"),
    (WeightFormat::Q8_0, "q8_0"),
    (WeightFormat::Q4_0, "q4_0"),
    (WeightFormat::Q4_1, "q4_1"),
];

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/dequant").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect()
}

#[test]
fn dequantised_rows_are_the_bits_of_gguf_py() {
    for (format, name) in FORMATS {
        let want = floats(&golden(&format!("{name}.f32")));
        let mut got = vec![f32::NAN; want.len()];
        dequantize_row(format, &golden(&format!("{name}.bin")), &mut got);
        for (i, (want, got)) in want.iter().zip(&got).enumerate() {
            assert_eq!(want.to_bits(), got.to_bits(), "{format:?}, element {i}: {want} and {got}");
        }
    }
}

#[test]
fn quantised_rows_are_the_bytes_of_gguf_py() {
    let input = floats(&golden("input.f32"));
    for (format, name) in FORMATS {
        let mut got = Vec::new();
        quantize_row(format, &input, &mut got);
        let want = golden(&format!("{name}.bin"));
        for (block, want) in want[..got.len()].chunks(format.block_bytes()).enumerate() {
            assert_eq!(&got[block * want.len()..][..want.len()], want, "{format:?}, block {block}");
        }
    }
}

#[test]
fn formats_that_the_kernels_do_not_read_are_the_bits_of_gguf_py_too() {
    for quant in GgmlQuant::ALL {
        let name = quant.name().to_lowercase();
        let (bytes, want) = (golden(&format!("{name}.bin")), floats(&golden(&format!("{name}.f32"))));
        let mut got = vec![f32::NAN; want.len()];
        quant.dequantize(&bytes, &mut got);
        for (i, (want, got)) in want.iter().zip(&got).enumerate() {
            assert_eq!(want.to_bits(), got.to_bits(), "{quant:?}, element {i}: {want} and {got}");
        }
    }
}

/// Q4_K keeps its quants, so that only scale and minimum are rounded to halves (2^-11 of 15 scales and of the minimum);
/// of Q8_0 an element may be off by half a step, 1/254 of the largest in its block, and its
/// scale is rounded to a half.
#[test]
fn repacked_blocks_are_as_near_as_their_format_can_be() {
    for quant in GgmlQuant::ALL {
        let name = quant.name().to_lowercase();
        let (bytes, want) = (golden(&format!("{name}.bin")), floats(&golden(&format!("{name}.f32"))));
        let mut got = vec![f32::NAN; want.len()];
        dequantize_row(quant.device_format(), &quant.repack(&bytes), &mut got);
        for (want, got) in want.chunks(32).zip(got.chunks(32)) {
            let largest = want.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let range =
                want.iter().fold(f32::MIN, |most, &x| most.max(x)) - want.iter().fold(f32::MAX, |a, &x| a.min(x));
            let bound = match quant.device_format() {
                WeightFormat::Q4_1 => (range + largest) / 2048.0,
                _ => largest / 254.0 + largest / 2048.0,
            };
            for (want, got) in want.iter().zip(got) {
                assert!((want - got).abs() <= bound, "{quant:?}: {want} became {got}, bound {bound}");
            }
        }
    }
}
