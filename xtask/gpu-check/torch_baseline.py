"""PyTorch on the same shapes, with random weights: what to hold Bindery's figures against.

    torch_baseline.py CONFIG.json OUT.json [--decode-tokens N]

Decode at batch size 1 in bf16 with sdpa attention and a static cache (transformers' Llama, its step captured as a CUDA graph),
a prefill of 512 tokens, and torch's matrix product and sdpa at the shapes of the kernels. Every figure is written as soon as
it is there; what fails is written as text in its place. Exit code 3: this Python has no torch with CUDA.
"""

import argparse
import json
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("config")
parser.add_argument("out")
parser.add_argument("--decode-tokens", type=int, default=64)
args = parser.parse_args()

try:
    import torch
except ImportError:
    sys.exit(3)
if not torch.cuda.is_available():
    sys.exit(3)

with open(args.config, encoding="utf-8") as file:
    shape = json.load(file)
results = {"torch": torch.__version__, "device": torch.cuda.get_device_name(), "config": args.config}


def keep(name, measure):
    """Measures, and writes everything there is so far."""
    try:
        results[name] = measure()
    except Exception as error:  # a baseline that cannot run is a result too
        results[name] = f"{type(error).__name__}: {error}"
    with open(args.out, "w", encoding="utf-8") as file:
        json.dump(results, file, indent=2)
    print(name, results[name], flush=True)


def seconds(run, repeats=20):
    """Median time of a call, after three that do not count."""
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return sorted(times)[len(times) // 2]


def matmul(rows):
    """TFLOP/s of the down and up projections and the output head at a number of rows."""
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    figures = {}
    for name, (n, k) in {"gate_up": (2 * inner, hidden), "down": (hidden, inner), "head": (shape["vocab_size"], hidden)}.items():
        x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
        weight = torch.randn(n, k, device="cuda", dtype=torch.bfloat16)
        took = seconds(lambda: torch.nn.functional.linear(x, weight))
        figures[name] = {"tflops": 2 * rows * n * k / took / 1e12, "gb_per_s": 2 * (n * k + rows * (n + k)) / took / 1e9}
    return figures


def attention(batch, queries, keys):
    """Microseconds, and bytes of keys and values per second, of sdpa with grouped heads."""
    heads, kv_heads, dim = shape["num_attention_heads"], shape["num_key_value_heads"], shape["head_dim"]
    q = torch.randn(batch, heads, queries, dim, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(batch, kv_heads, keys, dim, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    call = torch.nn.functional.scaled_dot_product_attention
    took = seconds(lambda: call(q, k, v, is_causal=queries > 1, enable_gqa=True))
    return {"us": took * 1e6, "kv_gb_per_s": 4 * batch * kv_heads * keys * dim / took / 1e9}


def copy_bandwidth():
    """Bytes per second of a copy within the device's memory, read and written."""
    source = torch.empty(512 << 20, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / seconds(lambda: target.copy_(source))


def build_model():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**{key: value for key, value in shape.items() if key != "model_type"})
    config._attn_implementation = "sdpa"
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        return LlamaForCausalLM(config).eval()


@torch.inference_mode()
def decode(model, graph):
    """Tokens per second at batch size 1 after 512 tokens, the step in a CUDA graph or launched each time."""
    from transformers import StaticCache

    prompt = torch.randint(0, shape["vocab_size"], (1, 512), device="cuda")
    cache = StaticCache(config=model.config, max_cache_len=512 + args.decode_tokens + 8)
    model(prompt, past_key_values=cache, cache_position=torch.arange(512, device="cuda"))
    token = torch.zeros(1, 1, dtype=torch.long, device="cuda")
    position = torch.tensor([512], device="cuda")

    def step():
        logits = model(token, past_key_values=cache, cache_position=position).logits
        token.copy_(logits[:, -1:].argmax(-1))

    step()
    run = step
    if graph:
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            step()
        run = captured.replay
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for index in range(args.decode_tokens):
        position.fill_(513 + index)
        run()
    torch.cuda.synchronize()
    return args.decode_tokens / (time.perf_counter() - begin)


@torch.inference_mode()
def prefill(model):
    """Prompt tokens per second of 512 at once."""
    prompt = torch.randint(0, shape["vocab_size"], (1, 512), device="cuda")
    return 512 / seconds(lambda: model(prompt, use_cache=False, logits_to_keep=1), repeats=5)


keep("copy_bytes_per_s", copy_bandwidth)
for rows in (1, 8, 64, 512, 2048):
    keep(f"matmul_{rows}_rows", lambda: matmul(rows))
for batch, queries, keys in ((1, 1, 4096), (64, 1, 4096), (1, 512, 512), (1, 2048, 2048)):
    keep(f"sdpa_batch{batch}_q{queries}_k{keys}", lambda: attention(batch, queries, keys))
try:
    model = build_model()
except Exception as error:  # no transformers, or no memory
    keep("transformers", lambda: f"{type(error).__name__}: {error}")
else:
    keep("prefill_512_tokens_per_s", lambda: prefill(model))
    keep("decode_batch1_tokens_per_s", lambda: decode(model, graph=False))
    keep("decode_batch1_cuda_graph_tokens_per_s", lambda: decode(model, graph=True))
