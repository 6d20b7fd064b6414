"""KV events, read by ZeroMQ's own library."""

import struct

import httpx2 as httpx
import msgpack
import pytest
import zmq

from server import MODEL, Server

CONFIG = '{"enable_kv_cache_events": true, "endpoint": "tcp://127.0.0.1:0", "replay_endpoint": "tcp://127.0.0.1:0"}'
TEXT = "The quick brown fox jumps over the lazy dog, and then it does so again and again. " * 6
END = struct.pack(">q", -1)


@pytest.fixture(scope="module")
def publishing():
    with Server("--max-model-len", "512", "--num-gpu-blocks-override", "32", "--kv-events-config", CONFIG) as running:
        yield running


@pytest.fixture(scope="module")
def source(publishing):
    with publishing.http() as http:
        source = http.get("/kv_event_sources").raise_for_status().json()["0"]
    return source


def replay(source, first: int) -> list[tuple[int, list]]:
    """Everything from the message of this number on."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.RCVTIMEO, 20_000)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(source["replay_endpoint"])
        socket.send_multipart([b"", struct.pack(">Q", first)])
        messages = []
        while True:
            empty, number, payload = socket.recv_multipart()
            assert empty == b""
            if number == END:
                return messages
            seconds, events, rank = msgpack.unpackb(payload)
            assert seconds > 1.6e9 and rank == 0
            messages.append((struct.unpack(">Q", number)[0], events))


def test_subscribers_learn_what_is_cached(publishing, source):
    assert source["data_parallel_rank"] == 0 and source["topic"] == ""
    client = publishing.client()
    tokens = httpx.post(
        f"{publishing.url}/tokenize", json={"prompt": TEXT}, headers={"Authorization": "Bearer sesame"}
    ).json()["tokens"]
    client.completions.create(model=MODEL, prompt=TEXT, max_tokens=1)
    full = len(tokens) // 16
    ((number, (stored,)),) = replay(source, 0)
    assert number == 0 and stored["type"] == "BlockStored"
    assert stored["parent_block_hash"] is None and stored["block_size"] == 16 and stored["medium"] == "GPU"
    assert len(stored["block_hashes"]) == full and all(len(hash) == 32 for hash in stored["block_hashes"])
    assert stored["token_ids"] == tokens[: full * 16]

    # The same beginning: only what follows it is new, and names the block before it.
    with zmq.Context() as context, context.socket(zmq.SUB) as live:
        live.setsockopt(zmq.RCVTIMEO, 20_000)
        live.setsockopt(zmq.LINGER, 0)
        live.setsockopt(zmq.SUBSCRIBE, b"")
        live.connect(source["endpoint"])
        received = []
        for attempt in range(50):
            # A subscription takes effect a moment after it is made: events are made until one comes.
            client.completions.create(model=MODEL, prompt=f"{TEXT} {attempt} {'and so on ' * 20}", max_tokens=1)
            if live.poll(200):
                received = live.recv_multipart()
                break
        topic, number, payload = received
        (stored_later, *_) = [e for e in msgpack.unpackb(payload)[1] if e["type"] == "BlockStored"]
    assert topic == b"" and struct.unpack(">Q", number)[0] >= 1
    assert stored_later["parent_block_hash"] == stored["block_hashes"][-1]


def test_an_index_of_the_events_is_what_the_cache_holds(publishing, source):
    client = publishing.client()
    # More than 32 blocks hold: some are evicted.
    for number in range(8):
        client.completions.create(model=MODEL, prompt=f"{number} " + "another story " * 60, max_tokens=1)
    known = set()
    messages = replay(source, 0)
    assert [number for number, _ in messages] == list(range(len(messages))), "none is missing"
    removed = 0
    for _, events in messages:
        for event in events:
            if event["type"] == "BlockStored":
                known |= set(event["block_hashes"])
            elif event["type"] == "BlockRemoved":
                removed += 1
                known -= set(event["block_hashes"])
    cached = [
        float(line.rsplit(" ", 1)[1])
        for line in httpx.get(f"{publishing.url}/metrics").text.splitlines()
        if line.startswith("bindery_cached_blocks")
    ]
    assert removed > 0 and len(known) == cached[0]
