"""Golden files of the weight formats: what the `gguf` package makes of the same numbers.

    pip install gguf==0.19.0 numpy
    python tests/golden/make_dequant.py

Writes to tests/golden/dequant/, all little-endian:
    input.f32        256 numbers
    FORMAT.bin       gguf.quantize(input), then 8 blocks of random quants; of formats that the kernels do not read random
                     quants only, 256 to 512 of them
    FORMAT.f32       gguf.dequantize of that
Read by tests/dequant_golden.rs.
"""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import dequantize, quantize

OUT = Path(__file__).parent / "dequant"
BLOCK = 32
SEED = 20240613
# Formats that are repacked: blocks, bytes of a block, where its halves are.
REPACKED = {
    Type.Q5_0: (8, 22, [0]),
    Type.Q5_1: (8, 24, [0, 2]),
    Type.Q2_K: (2, 84, [80, 82]),
    Type.Q3_K: (2, 110, [108]),
    Type.Q4_K: (2, 144, [0, 2]),
    Type.Q5_K: (2, 176, [0, 2]),
    Type.Q6_K: (2, 210, [208]),
}


def numbers(random: np.random.Generator) -> np.ndarray:
    """Eight blocks: ordinary weights, then the corners of the formats."""
    blocks = random.normal(0.0, 0.05, (8, BLOCK)).astype(np.float32)
    blocks[2] *= 2000.0
    blocks[3] = 0.0
    blocks[4] = 0.125
    blocks[5] = np.abs(blocks[5])
    blocks[6] *= 1e-6  # the scale is a subnormal half
    blocks[7, ::2] = 0.0
    return blocks.reshape(1, -1)


def random_blocks(random: np.random.Generator, kind: Type) -> np.ndarray:
    """Eight blocks of every bit pattern, with finite scales."""
    count = 8 * BLOCK
    if kind in (Type.F32, Type.F16, Type.BF16):
        values = random.normal(0.0, 3.0, (1, count)).astype(np.float32)
        return quantize(values, kind).view(np.uint8)
    halves, block_bytes = {Type.Q8_0: (1, 34), Type.Q4_0: (1, 18), Type.Q4_1: (2, 20)}[kind]
    blocks = random.integers(0, 256, (8, block_bytes), dtype=np.uint8)
    blocks[:, : 2 * halves] = random.normal(0.0, 0.1, (8, halves)).astype(np.float16).view(np.uint8)
    return blocks.reshape(1, -1)


def repacked_blocks(random: np.random.Generator, kind: Type) -> np.ndarray:
    """Blocks of every bit pattern, with finite scales."""
    count, block_bytes, halves = REPACKED[kind]
    blocks = random.integers(0, 256, (count, block_bytes), dtype=np.uint8)
    for at in halves:
        blocks[:, at : at + 2] = random.normal(0.0, 0.1, (count, 1)).astype(np.float16).view(np.uint8)
    return blocks.reshape(1, -1)


def main() -> None:
    random = np.random.default_rng(SEED)
    OUT.mkdir(exist_ok=True)
    values = numbers(random)
    values.astype("<f4").tofile(OUT / "input.f32")
    for kind in (Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1):
        stored = np.concatenate([quantize(values, kind).view(np.uint8), random_blocks(random, kind)], axis=1)
        plain = dequantize(stored.view({Type.F32: np.float32, Type.F16: np.float16}.get(kind, np.uint8)), kind)
        stored.tofile(OUT / f"{kind.name.lower()}.bin")
        plain.astype("<f4").tofile(OUT / f"{kind.name.lower()}.f32")
    for kind in REPACKED:
        stored = repacked_blocks(random, kind)
        stored.tofile(OUT / f"{kind.name.lower()}.bin")
        dequantize(stored, kind).astype("<f4").tofile(OUT / f"{kind.name.lower()}.f32")


if __name__ == "__main__":
    main()
