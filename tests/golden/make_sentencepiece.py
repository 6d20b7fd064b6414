"""Writes sentencepiece.json beside this file: a small SentencePiece BPE vocabulary, trained on the text below with
Llama 2's settings, and the ids and texts that the sentencepiece library makes with it.

Needs: pip install sentencepiece
Use:   make_sentencepiece.py
"""

import io
import json
import pathlib

import sentencepiece

TEXT = """
The PagedAttention paper cuts the KV cache into blocks. A block holds sixteen tokens of keys and values.
A block table maps the logical blocks of a sequence to the blocks of the pool. Blocks are shared between sequences.
When a shared block is written it is copied first. When the pool is empty a sequence is preempted and computed again.
The scheduler knows no prefill and no decode: every sequence has tokens that are computed and tokens that are not.
In 2023, 2024 and 2025 there were 1, 12, 123 and 1234 of them. Der Größe nach, à la carte, naïve café.
def forward(batch):
    for block in batch.blocks:
        attend(block.keys, block.values)
    return logits
"""
STRINGS = [
    "", " ", "  ", "a", "The block", " The block", "The  block", "blocks of tokens", "keys and values ", "\n", "\t x",
    "PagedAttention", "1234 blocks in 2025", "unseen wörds, quite", "café naïve", "日本語", "😀 emoji", "x😀y",
    "def f(x):\n    return x\n", "the the the", "▁", "a▁b", "...", "(!?)", "Zürich € 99", "scheduled sequences preempted",
]


def main():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.strip().split("\n")), model_writer=model, model_type="bpe", vocab_size=420,
        byte_fallback=True, split_digits=True, add_dummy_prefix=True, remove_extra_whitespaces=False,
        normalization_rule_name="identity", character_coverage=0.99, minloglevel=2, num_threads=1,
        allow_whitespace_only_pieces=True,
    )
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())

    def kind(i):  # GGUF's token types
        return 2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1

    ids = range(sp.get_piece_size())
    entries = [{"text": text, "ids": sp.encode(text), "decoded": sp.decode(sp.encode(text))} for text in STRINGS]
    out = {
        "made_with": {"sentencepiece": sentencepiece.__version__},
        "tokens": [sp.id_to_piece(i) for i in ids],
        "scores": [sp.get_score(i) for i in ids],
        "token_types": [kind(i) for i in ids],
        "bos": sp.bos_id(), "eos": sp.eos_id(), "unk": sp.unk_id(),
        "strings": entries,
    }
    pathlib.Path(__file__).with_name("sentencepiece.json").write_text(
        "{" + ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in out.items()) + "}\n"
    )


main()
