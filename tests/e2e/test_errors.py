"""Mistakes come back as the exceptions that OpenAI's client has for them."""

import openai
import pytest

from server import MODEL

# Field that is wrong, and what was sent.
BAD = {
    "n": {"n": 10**9},
    "best_of": {"n": 3, "best_of": 2},
    "temperature": {"temperature": -1},
    "top_p": {"top_p": 0},
    "max_tokens": {"max_tokens": 0},
    "logprobs": {"logprobs": 1000},
    "stop": {"stop": [""]},
    "logit_bias": {"logit_bias": {"1": 1000}},
    "presence_penalty": {"presence_penalty": 9},
}


@pytest.mark.parametrize("field", BAD)
def test_a_bad_field_is_named(client, field):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt="Hi", **BAD[field])
    assert caught.value.param == field and f"`{field}`" in caught.value.message
    assert caught.value.request_id
    assert client.completions.create(model=MODEL, prompt="Hi", max_tokens=1).choices


@pytest.mark.parametrize("streamed", [False, True])
def test_prompts_that_cannot_be(client, streamed):
    for prompt, says in [("", "empty"), ([], "empty"), ("word " * 600, "shorten"), ([10**6], "vocabulary")]:
        with pytest.raises(openai.BadRequestError, match=says):
            client.completions.create(model=MODEL, prompt=prompt, stream=streamed)
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model=MODEL, messages=[], stream=streamed)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_request_that_leaves_no_token(client, streamed):
    # Nothing but the end of the sequence, and not yet.
    extra = {"allowed_token_ids": [2], "min_tokens": 3}
    with pytest.raises(openai.APIError, match="no token can be sampled") as caught:
        list(client.completions.create(model=MODEL, prompt="Hi", max_tokens=4, stream=streamed, extra_body=extra))
    assert caught.value.body["code"] == 400


def test_a_body_that_is_too_large(client):
    with pytest.raises(openai.APIStatusError) as caught:
        client.completions.create(model=MODEL, prompt="a" * (2 << 20))
    assert caught.value.status_code == 413


def test_keys_models_and_paths(server, client):
    with pytest.raises(openai.AuthenticationError):
        server.client(api_key="sesamf").models.list()
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.completions.create(model="gpt-7", prompt="Hi")
    with pytest.raises(openai.NotFoundError, match="nothing at"):
        client.embeddings.create(model=MODEL, input="Hi")
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.models.retrieve("gpt-7")
