"""/v1/completions by OpenAI's client."""

import statistics

import pytest

from server import MODEL

PROMPT = "The capital of France is"


def complete(client, prompt=PROMPT, **options):
    return client.completions.create(model=MODEL, prompt=prompt, **{"max_tokens": 8, "temperature": 0, **options})


def texts(completion):
    assert [choice.index for choice in completion.choices] == list(range(len(completion.choices)))
    return [choice.text for choice in completion.choices]


def test_greedy_answers_and_counts(client):
    completion = complete(client)
    assert "Paris" in completion.choices[0].text
    assert completion.choices[0].finish_reason == "length"
    assert completion.id.startswith("cmpl-") and completion.object == "text_completion" and completion.model == MODEL
    usage = completion.usage
    assert usage.completion_tokens == 8 and usage.total_tokens == usage.prompt_tokens + 8
    assert complete(client).choices[0].text == completion.choices[0].text


def test_several_prompts_and_token_ids_are_answered_in_order(client, http):
    others = ["One, two, three, four,", "Water boils at"]
    alone = [complete(client, prompt).choices[0].text for prompt in others]
    assert texts(complete(client, others)) == alone
    ids = [http.post("/tokenize", json={"prompt": prompt}).json()["tokens"] for prompt in others]
    assert texts(complete(client, ids)) == alone
    assert complete(client, ids[0]).choices[0].text == alone[0]
    assert http.post("/detokenize", json={"tokens": ids[0]}).json()["prompt"] == others[0]


def test_n_gives_different_samples_and_a_seed_repeats_them(client):
    def sample(seed):
        return texts(complete(client, n=4, temperature=1, seed=seed))

    first = sample(1)
    assert len(first) == 4 and len(set(first)) > 1
    assert sample(1) == first
    assert sample(2) != first


def test_best_of_are_the_likeliest_samples(client):
    options = {"temperature": 1, "seed": 5, "logprobs": 0}
    samples = complete(client, n=4, **options).choices
    ranked = sorted(samples, key=lambda choice: -statistics.mean(choice.logprobs.token_logprobs))
    best = complete(client, n=2, best_of=4, **options)
    assert texts(best) == [choice.text for choice in ranked[:2]]


def test_beams(client):
    def beams(width, **options):
        extra = {"use_beam_search": True, "beam_width": width}
        return complete(client, logprobs=0, extra_body=extra, **options)

    assert texts(beams(1)) == texts(complete(client))
    wide = beams(4, n=4)
    assert len(set(texts(wide))) == 4
    sums = [sum(choice.logprobs.token_logprobs) for choice in wide.choices]
    lengths = [len(choice.logprobs.tokens) for choice in wide.choices]
    scores = [total / length for total, length in zip(sums, lengths)]
    assert scores == sorted(scores, reverse=True)
    assert wide.model_extra["kv"]["blocks_shared"] > 0


def test_logprobs(client):
    choice = complete(client, logprobs=3).choices[0]
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text and len(logprobs.tokens) == 8
    for token, value, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs):
        # Greedy: the chosen token is the likeliest.
        assert len(top) == 3 and top[token] == value == max(top.values()) <= 0
    starts = [len("".join(logprobs.tokens[:i])) for i in range(8)]
    assert logprobs.text_offset == starts


def test_echo(client):
    plain = complete(client)
    echoed = complete(client, echo=True, logprobs=1).choices[0]
    assert echoed.text == PROMPT + plain.choices[0].text
    values = echoed.logprobs.token_logprobs
    assert values[0] is None and all(value <= 0 for value in values[1:])
    assert len(values) == plain.usage.prompt_tokens + 8
    scored = complete(client, echo=True, logprobs=1, max_tokens=0)
    assert scored.choices[0].text == PROMPT and scored.usage.completion_tokens == 0
    assert scored.choices[0].logprobs.tokens == echoed.logprobs.tokens[: plain.usage.prompt_tokens]


def test_stop_strings_and_tokens(client, http):
    counting = {"prompt": "One, two, three,", "max_tokens": 24}
    whole = complete(client, **counting).choices[0].text
    assert ", five" in whole
    stopped = complete(client, stop=["nowhere", ", five"], **counting).choices[0]
    assert stopped.text == whole[: whole.index(", five")]
    assert stopped.finish_reason == "stop" and stopped.model_extra["stop_reason"] == ", five"
    kept = complete(client, stop=", five", extra_body={"include_stop_str_in_output": True}, **counting).choices[0]
    assert kept.text == stopped.text + ", five"
    [five] = http.post("/tokenize", json={"prompt": " five"}).json()["tokens"]
    by_token = complete(client, extra_body={"stop_token_ids": [five]}, **counting).choices[0]
    assert by_token.finish_reason == "stop" and by_token.model_extra["stop_reason"] == five


def test_logit_bias_forces_and_forbids(client, http):
    [paris] = http.post("/tokenize", json={"prompt": " Paris"}).json()["tokens"]
    assert complete(client, logit_bias={str(paris): 100}, max_tokens=3).choices[0].text == " Paris" * 3
    assert "Paris" not in complete(client, logit_bias={str(paris): -100}).choices[0].text


def test_the_prefix_is_shared_and_salted(client):
    prompt = "A shared beginning of many words, so that it fills blocks. " * 4 + PROMPT

    def cached(salt):
        return complete(client, prompt, extra_body={"cache_salt": salt}).usage.prompt_tokens_details.cached_tokens

    assert cached("a") == 0
    assert cached("a") >= 32
    assert cached("b") == 0


@pytest.mark.parametrize("min_tokens", [1, 20])
def test_min_tokens_puts_the_end_off(client, min_tokens):
    # At the end of a chat message the model ends at once.
    prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!"
    answer = complete(client, prompt, max_tokens=40, extra_body={"min_tokens": min_tokens})
    assert answer.usage.completion_tokens >= min_tokens
