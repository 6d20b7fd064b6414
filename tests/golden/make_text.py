"""Writes smollm2_text.json beside this file: token ids and chat prompts as Hugging Face's libraries make them.

Needs: pip install gguf tokenizers transformers jinja2
Use:   make_text.py models/SmolLM2-135M-Instruct.Q4_1.gguf [HF_DIR]

The tokenizer is put together from the GGUF's vocabulary and merges with the pre-tokenizer that SmolLM2's own
tokenizer.json has (Digits, individual; then ByteLevel). With HF_DIR, a folder that transformers can load, every id is
compared with that folder's tokenizer too.
"""

import hashlib
import json
import pathlib
import sys

import tokenizers
import transformers
from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

STRINGS = [
    "", " ", "  ", "\n", "\n\n\n", "\t", "a", "Hello, world!", " leading", "trailing ", "  two  spaces  ",
    "The quick brown fox jumps over the lazy dog.", "don't can't we'll I'm you're they'd it's I've",
    "DON'T CAN'T WE'LL", "0", "12", "1234567890", "3.14159", "1,000,000", "2024-02-29T12:34:56Z", "x1y22z333",
    "½ ² ٣ ४ 五 Ⅷ", "abc123def456", "fn main() { println!(\"{}\", 1 << 3); }\n",
    "def f(x):\n    if x > 0:\n        return x ** 2\n\n    return None\n", "\tif (a && b) {\r\n\t\treturn;\r\n\t}\r\n",
    "SELECT * FROM t WHERE a='b' AND c<>3;", "https://example.org/a?b=c&d=%20#e", "user@example.com",
    "{\"key\": [1, 2, {\"n\": null}], \"s\": \"\\u00e9\"}", "<html><body class=\"x\">&amp;</body></html>",
    "$E = mc^2$ and \\frac{a}{b} \\leq \\sum_{i=0}^{n} x_i", "snake_case camelCase PascalCase kebab-case SCREAMING",
    "...", "?!?!", "---===***", "«Guillemets» „Quotes“ ‘single’ — dash … ellipsis", "café naïve façade Ångström",
    "cafe\u0301 (decomposed) n\u0303", "Straße Größe übermäßig", "Привет, мир! Как дела?", "Γειά σου Κόσμε",
    "שלום עולם", "مرحبا بالعالم، كيف حالك؟", "नमस्ते दुनिया", "สวัสดีชาวโลก", "你好,世界!今天天气怎么样?", "こんにちは世界。カタカナ",
    "안녕하세요 세계", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝒎𝒂𝒕𝒉 𝟙𝟚𝟛", "😀", "👍🏽👩‍👩‍👧‍👦🏳️‍🌈🇩🇪", "text😀with🎉emoji", "zero\u200bwidth\u200djoiner\ufeffbom",
    "non\u00a0breaking\u2003em\u3000ideographic", "\u0000\u0001\u007f\u0085", "a\r\nb\rc\nd", "line\n \n  \n   x",
    " " * 37 + "x", "\n" * 20, "a" * 100, "word " * 60, "ab" * 200, "\U0010ffff\ufffd\ue000",
    "<|im_start|>user\nhi<|im_end|>\n", "<|im_end|>", "x<|im_end|>y", "<|im_end", "|im_end|>", "<|endoftext|><file_sep>",
    " <|im_start|> ", "<repo_name>bindery<file_sep>src/lib.rs\n", "<|IM_END|>", "<empty_output>7<jupyter_code>",
    "The PagedAttention paper (2309.06180) cuts the KV cache into blocks of 16 tokens. " * 25,
]


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


# Nothing here holds a special token's text: transformers would honour it, Bindery does not.
CHATS = [
    [user("What is the capital of France?")],
    [system("You are a pirate."), user("Who are you?")],
    [user("Hi"), assistant("Hello! How can I help?"), user("Tell me a joke.")],
    [system(""), user("")],
    [user(" surrounded by blanks \n")],
    [user("\n\nstarts with newlines")],
    [user("def f(x):\n    return x < 3 and x > 1\n")],
    [user("你好 😀 مرحبا 👩‍👩‍👧‍👦")],
    [system("Answer in one word."), user("1+1?"), assistant("2"), user("2+2?"), assistant("4"), user("3*37?")],
    [user("a < b | c > d <|x|> <im_end> [INST]")],
    [user("{{ 7 * 7 }} {% raw %} {# not a template #}")],
    [user("long " * 200), assistant("ok"), user("0123456789 " * 20)],
    [assistant("an answer first")],
]


def from_gguf(path):
    fields = {key: field.contents() for key, field in GGUFReader(path).fields.items() if key.startswith("tokenizer")}
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    raw = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    raw.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds) if kind == 3]
    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    name = {key: tokens[fields[f"tokenizer.ggml.{key}_token_id"]] for key in ("bos", "eos")}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=name["bos"], eos_token=name["eos"], clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = fields["tokenizer.chat_template"]
    return tokenizer


def ids_of_chat(tokenizer, chat, generate):
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=generate, tokenize=True)
    return list(ids["input_ids"] if hasattr(ids, "keys") else ids)


def main():
    gguf = sys.argv[1]
    tokenizer = from_gguf(gguf)
    others = [AutoTokenizer.from_pretrained(folder) for folder in sys.argv[2:]]
    strings, chats = [], []
    for text in STRINGS:
        ids = tokenizer(text)["input_ids"]
        assert all(other(text)["input_ids"] == ids for other in others), text
        strings.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=True)})
    for i, chat in enumerate(CHATS):
        generate = i != len(CHATS) - 1
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=generate, tokenize=False)
        ids = ids_of_chat(tokenizer, chat, generate)
        assert all(ids_of_chat(other, chat, generate) == ids for other in others), chat
        chats.append({"messages": chat, "add_generation_prompt": generate, "prompt": prompt, "ids": ids})
    made_with = {
        "model": pathlib.Path(gguf).name,
        "sha256": hashlib.sha256(pathlib.Path(gguf).read_bytes()).hexdigest(),
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
    }
    out = pathlib.Path(__file__).with_name("smollm2_text.json")
    lines = [json.dumps(entry, ensure_ascii=True) for entry in strings]
    chat_lines = [json.dumps(entry, ensure_ascii=True) for entry in chats]
    out.write_text(
        f'{{"made_with": {json.dumps(made_with)},\n"strings": [\n'
        + ",\n".join(lines) + '\n],\n"chats": [\n' + ",\n".join(chat_lines) + "\n]}\n"
    )
    print(f"{out.name}: {len(strings)} strings, {len(chats)} chats")


main()
