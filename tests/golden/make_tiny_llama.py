"""Golden logits of the tiny model of tests/support/checkpoints.rs, from a forward pass in numpy, in f64.

    pip install numpy
    python tests/golden/make_tiny_llama.py

Written from the papers and from the rope functions of transformers (modeling_rope_utils.py), apart from the Rust code.
Writes tests/golden/tiny_{llama3,qwen2,qwen3}.f32: [7 tokens][96] little-endian. Read by tests/checkpoint_forms.rs.
"""

import math
from pathlib import Path

import numpy as np

OUT = Path(__file__).parent
TOKENS = [3, 17, 95, 0, 42, 42, 9]
LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INNER, VOCAB = 2, 32, 4, 2, 8, 64, 96
EPS, THETA = 1e-5, 1e4
LLAMA3 = dict(factor=8.0, low=1.0, high=4.0, original=64)
MASK = (1 << 64) - 1


def tensor(name: str, *shape: int) -> np.ndarray:
    """The numbers of one tensor, seeded by its name (SplitMix64)."""
    state = 1
    for byte in name.encode():
        state = (state * 31 + byte) & MASK
    out = []
    for _ in range(math.prod(shape)):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        z ^= z >> 31
        unit = np.float32(z >> 40) / np.float32(1 << 23) - np.float32(1)
        norm = name.endswith("norm.weight")
        out.append(np.float32(1) + np.float32(0.2) * unit if norm else np.float32(0.4) * unit)
    return np.array(out, dtype=np.float64).reshape(shape)


def rms_norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + EPS) * weight


def frequencies(scaled: bool) -> np.ndarray:
    inv_freq = 1.0 / THETA ** (np.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    if not scaled:
        return inv_freq
    low_wavelength = LLAMA3["original"] / LLAMA3["low"]
    high_wavelength = LLAMA3["original"] / LLAMA3["high"]
    wavelength = 2 * math.pi / inv_freq
    out = np.where(wavelength > low_wavelength, inv_freq / LLAMA3["factor"], inv_freq)
    smooth = (LLAMA3["original"] / wavelength - LLAMA3["low"]) / (LLAMA3["high"] - LLAMA3["low"])
    blended = (1 - smooth) * out / LLAMA3["factor"] + smooth * out
    medium = (wavelength >= high_wavelength) & (wavelength <= low_wavelength)
    assert medium.any() and (wavelength > low_wavelength).any() and (wavelength < high_wavelength).any()
    return np.where(medium, blended, out)


def rotate(x: np.ndarray, inv_freq: np.ndarray) -> np.ndarray:
    """`x` is [T][heads][HEAD_DIM], positions 0..T."""
    angles = np.arange(len(x))[:, None, None] * np.concatenate([inv_freq, inv_freq])
    first, second = x[..., : HEAD_DIM // 2], x[..., HEAD_DIM // 2 :]
    return x * np.cos(angles) + np.concatenate([-second, first], axis=-1) * np.sin(angles)


def forward(qkv_bias: bool = False, tied: bool = False, llama3: bool = False, head_norms: bool = False) -> np.ndarray:
    embedding = tensor("model.embed_tokens.weight", VOCAB, HIDDEN)
    inv_freq = frequencies(llama3)
    count = len(TOKENS)
    x = embedding[TOKENS]
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        attention, mlp = prefix + "self_attn.", prefix + "mlp."

        def project(name: str, heads: int, h: np.ndarray) -> np.ndarray:
            y = h @ tensor(f"{attention}{name}_proj.weight", heads * HEAD_DIM, HIDDEN).T
            if qkv_bias:
                y = y + tensor(f"{attention}{name}_proj.bias", heads * HEAD_DIM)
            y = y.reshape(count, heads, HEAD_DIM)
            if head_norms and name != "v":
                y = rms_norm(y, tensor(f"{attention}{name}_norm.weight", HEAD_DIM))
            return y

        h = rms_norm(x, tensor(prefix + "input_layernorm.weight", HIDDEN))
        q = rotate(project("q", HEADS, h), inv_freq)
        k = np.repeat(rotate(project("k", KV_HEADS, h), inv_freq), HEADS // KV_HEADS, axis=1)
        v = np.repeat(project("v", KV_HEADS, h), HEADS // KV_HEADS, axis=1)
        scores = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(HEAD_DIM)
        scores = np.where(np.tri(count, dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", weights, v).reshape(count, -1)
        x = x + mixed @ tensor(attention + "o_proj.weight", HIDDEN, HEADS * HEAD_DIM).T
        h = rms_norm(x, tensor(prefix + "post_attention_layernorm.weight", HIDDEN))
        gate = h @ tensor(mlp + "gate_proj.weight", INNER, HIDDEN).T
        up = h @ tensor(mlp + "up_proj.weight", INNER, HIDDEN).T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ tensor(mlp + "down_proj.weight", HIDDEN, INNER).T
    head = embedding if tied else tensor("lm_head.weight", VOCAB, HIDDEN)
    return rms_norm(x, tensor("model.norm.weight", HIDDEN)) @ head.T


def main() -> None:
    forward(llama3=True).astype("<f4").tofile(OUT / "tiny_llama3.f32")
    forward(qkv_bias=True, tied=True).astype("<f4").tofile(OUT / "tiny_qwen2.f32")
    forward(head_norms=True).astype("<f4").tofile(OUT / "tiny_qwen3.f32")


if __name__ == "__main__":
    main()
