"""Makes a Hugging Face folder of SmolLM2's GGUF file, to test the safetensors path with the same model.

    pip install gguf==0.19.0 numpy safetensors tokenizers
    python models/gguf_to_hf.py models/SmolLM2-135M-Instruct.Q4_1.gguf models/SmolLM2-135M-Instruct-hf

Writes config.json, generation_config.json, tokenizer.json, tokenizer_config.json, special_tokens_map.json and
model.safetensors (f16, 269 MB: the dequantised values, so outputs differ from the GGUF's by rounding to f16 only).
For llama-architecture files with a GPT-2 style tokenizer and no RoPE scaling.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

CONTROL_TOKEN = 3  # tokenizer.ggml.token_type of <|im_start|> and its like

MODEL_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def halves(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Undoes the converter's row order: RoPE pairs (2i, 2i + 1) in GGUF, (i, i + head_dim / 2) in Hugging Face."""
    pairs = weight.reshape(num_heads, weight.shape[0] // num_heads // 2, 2, *weight.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def tensors(reader: GGUFReader, num_heads: int, num_kv_heads: int) -> dict[str, np.ndarray]:
    out = {}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if tensor.name in MODEL_NAMES:
            name = MODEL_NAMES[tensor.name]
        else:
            _, layer, kind, suffix = tensor.name.split(".")
            name = f"model.layers.{layer}.{LAYER_NAMES[kind]}.{suffix}"
            if kind in ("attn_q", "attn_k"):
                weight = halves(weight, num_heads if kind == "attn_q" else num_kv_heads)
        out[name] = np.ascontiguousarray(weight.astype(np.float16))
    return out


def tokenizer(fields: dict[str, Any]) -> Tokenizer:
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    out = Tokenizer(BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges, fuse_unk=False))
    digits = pre_tokenizers.Digits(individual_digits=True)
    out.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    out.decoder = decoders.ByteLevel()
    out.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens(fields)])
    return out


def special_tokens(fields: dict[str, Any]) -> list[str]:
    kinds = zip(fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"])
    return [token for token, kind in kinds if kind == CONTROL_TOKEN]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    reader = GGUFReader(args.gguf)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    architecture = fields["general.architecture"]
    size = {key.removeprefix(f"{architecture}."): value for key, value in fields.items()}
    num_heads, num_kv_heads = size["attention.head_count"], size["attention.head_count_kv"]

    weights = tensors(reader, num_heads, num_kv_heads)
    save_file(weights, args.folder / "model.safetensors", metadata={"format": "pt"})

    ids = {f"{name}_token_id": fields[f"tokenizer.ggml.{key}_token_id"]
           for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))}
    words = {f"{name}_token": fields["tokenizer.ggml.tokens"][fields[f"tokenizer.ggml.{key}_token_id"]]
             for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))}
    special = special_tokens(fields)
    config = dict(
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        hidden_act="silu",
        hidden_size=size["embedding_length"],
        intermediate_size=size["feed_forward_length"],
        num_hidden_layers=size["block_count"],
        num_attention_heads=num_heads,
        num_key_value_heads=num_kv_heads,
        head_dim=size["rope.dimension_count"],
        max_position_embeddings=size["context_length"],
        rms_norm_eps=size["attention.layer_norm_rms_epsilon"],
        rope_theta=size["rope.freq_base"],
        rope_scaling=None,
        rope_interleaved=False,
        attention_bias=False,
        attention_dropout=0.0,
        mlp_bias=False,
        tie_word_embeddings="lm_head.weight" not in weights,
        vocab_size=size["vocab_size"],
        torch_dtype="float16",
        use_cache=True,
        **ids,
    )
    positions = fields["tokenizer.ggml.tokens"].index
    tokenizer_config = dict(
        tokenizer_class="PreTrainedTokenizerFast",
        add_prefix_space=False,
        clean_up_tokenization_spaces=False,
        model_max_length=size["context_length"],
        chat_template=fields["tokenizer.chat_template"],
        additional_special_tokens=[words["bos_token"], words["eos_token"]],
        added_tokens_decoder={
            str(positions(token)): dict(content=token, lstrip=False, rstrip=False, normalized=False,
                                        single_word=False, special=True)
            for token in special
        },
        **words,
    )
    tokenizer(fields).save(str(args.folder / "tokenizer.json"))
    for name, value in (("config", config), ("generation_config", ids), ("tokenizer_config", tokenizer_config),
                        ("special_tokens_map", words)):
        text = json.dumps(value, indent=2, ensure_ascii=False)
        (args.folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(f"{args.folder}: {len(weights)} tensors, {len(special)} special tokens")


if __name__ == "__main__":
    main()
