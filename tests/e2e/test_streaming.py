"""A streamed answer is the answer: the same text, the same ends, and no broken character on the way."""

import pytest

from server import MODEL

# Random tokens at a high temperature are pieces of characters, in every script.
WILD = {"temperature": 1.9, "ignore_eos": True, "max_tokens": 24, "seed": 7}
COMPLETIONS = {
    "greedy": {"temperature": 0},
    "n of 4": {"n": 4, "seed": 1},
    "best of": {"n": 2, "best_of": 4, "seed": 2},
    "beams": {"n": 3, "use_beam_search": True, "beam_width": 3},
    "wild": {"prompt": "Emoji: 🎉🌍 日本語", "n": 3, **WILD},
    "echo": {"prompt": "Grüße 🎉", "echo": True, "logprobs": 2, "temperature": 0},
    "stop": {"prompt": "One, two, three,", "stop": ["five, s"], "temperature": 0, "max_tokens": 20},
    "several prompts": {"prompt": ["Hello", "World"], "n": 2, "seed": 3},
    "tokens": {"return_token_ids": True, "temperature": 0},
}
CHATS = {
    "greedy": {"temperature": 0},
    "n of 4": {"n": 4, "seed": 1},
    "wild": {"n": 2, **WILD},
    "logprobs": {"logprobs": True, "top_logprobs": 2, "temperature": 0},
    "best of": {"n": 1, "best_of": 3, "seed": 4},
}
# What the client has no argument for goes into the body as it is.
EXTRA = {"ignore_eos", "use_beam_search", "beam_width", "return_token_ids", "best_of"}


def arguments(body, streamed):
    extra = {name: value for name, value in body.items() if name in EXTRA}
    own = {name: value for name, value in body.items() if name not in EXTRA}
    options = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
    return {"model": MODEL, "max_tokens": 12, **own, **options, "extra_body": extra}


def assert_same(create, body, text_of_piece, text_of_choice):
    """Streams, asks again in one piece, and compares choice by choice. Gives the joined texts."""
    whole = create(**arguments(body, streamed=False))
    chunks = list(create(**arguments(body, streamed=True)))
    assert len({chunk.id for chunk in chunks}) == 1 and {chunk.model for chunk in chunks} == {MODEL}
    usage = chunks.pop()
    assert usage.choices == [] and usage.usage.completion_tokens == whole.usage.completion_tokens
    assert usage.usage.prompt_tokens == whole.usage.prompt_tokens
    taken = usage.model_extra["kv"]
    assert taken.keys() == whole.model_extra["kv"].keys()
    assert taken["blocks_allocated"] + taken["blocks_shared"] > 0
    assert all(chunk.usage is None for chunk in chunks)
    pieces = [choice for chunk in chunks for choice in chunk.choices]
    joined = []
    for choice in whole.choices:
        own = [piece for piece in pieces if piece.index == choice.index]
        joined.append("".join(text_of_piece(piece) or "" for piece in own))
        assert joined[-1] == text_of_choice(choice)
        # A piece that ended inside a character would show as one more U+FFFD.
        assert sum((text_of_piece(piece) or "").count("\ufffd") for piece in own) == joined[-1].count("\ufffd")
        assert [piece.finish_reason for piece in own if piece.finish_reason] == [choice.finish_reason]
        assert own[-1].finish_reason, "the last piece tells the end"
    return joined


@pytest.mark.parametrize("case", COMPLETIONS)
def test_completions(client, case):
    body = {"prompt": "Once upon a time", **COMPLETIONS[case]}
    texts = assert_same(client.completions.create, body, lambda piece: piece.text, lambda choice: choice.text)
    if case == "wild":
        assert not all(text.isascii() for text in texts), "the texts were meant to be harder"
    if case == "stop":
        assert "five, s" not in texts[0]


@pytest.mark.parametrize("case", CHATS)
def test_chats(client, case):
    body = {"messages": [{"role": "user", "content": "Say hi 🎉"}], **CHATS[case]}
    assert_same(
        client.chat.completions.create,
        body,
        lambda piece: piece.delta.content,
        lambda choice: choice.message.content,
    )


def test_a_chat_begins_with_its_role_and_tells_the_prompt_to_nobody(client):
    messages = [{"role": "user", "content": "Xyzzy plugh"}]
    stream = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=4, temperature=0, stream=True)
    chunks = list(stream)
    first = chunks[0].choices[0].delta
    assert first.role == "assistant" and first.content == ""
    assert all(chunk.choices[0].delta.role is None for chunk in chunks[1:])
    assert "Xyzzy" not in "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:3])


def test_the_client_s_own_helper_collects_a_stream(client):
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    options = {"model": MODEL, "messages": messages, "temperature": 0}
    with client.chat.completions.stream(**options) as stream:
        for _ in stream:
            pass
        collected = stream.get_final_completion()
    whole = client.chat.completions.create(**options)
    assert collected.choices[0].message.content == whole.choices[0].message.content
    assert collected.choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
