"""Clients that go away, and many at once."""

import asyncio

import pytest

from server import MODEL, wait_until

LONG = {"model": MODEL, "prompt": "Once", "max_tokens": 400, "extra_body": {"ignore_eos": True}}


def assert_nothing_is_left(server, client):
    """Every block is free again, and the next request is served at once."""
    wait_until(lambda: server.load() == 0)
    next_one = client.completions.create(model=MODEL, prompt="Hi", max_tokens=1)
    assert next_one.model_extra["kv"]["preemptions"] == 0


def test_a_stream_that_is_closed_ends_at_once(server, client):
    with client.completions.create(stream=True, n=4, **LONG) as stream:
        for _, _ in zip(range(6), stream):
            pass
        assert server.load() == 1
    assert_nothing_is_left(server, client)


@pytest.mark.parametrize("streamed", [False, True])
def test_many_that_are_cancelled_leave_nothing(server, client, streamed):
    async def cancel_all():
        async with server.async_client() as others:
            tasks = [asyncio.create_task(others.completions.create(stream=streamed, **LONG)) for _ in range(24)]
            # When one is answered by its first token, or 24 are waiting: they are at every stage.
            await asyncio.to_thread(wait_until, lambda: server.load() >= 24)
            for task in tasks:
                task.cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(cancel_all())
    assert_nothing_is_left(server, client)


def test_many_at_once_get_their_own_answers(server, client):
    """More than there are seats: each greedy text is the one it has alone."""
    prompts = [f"{number}, {number + 1}, {number + 2}," for number in range(10, 20)]
    options = {"model": MODEL, "max_tokens": 3, "temperature": 0}

    async def ask_all():
        async with server.async_client() as others:
            answers = await asyncio.gather(*(others.completions.create(prompt=prompt, **options) for prompt in prompts))
        return [answer.choices[0].text for answer in answers]

    together = asyncio.run(ask_all())
    for prompt, text in zip(prompts, together):
        assert text == client.completions.create(prompt=prompt, **options).choices[0].text
    assert_nothing_is_left(server, client)
