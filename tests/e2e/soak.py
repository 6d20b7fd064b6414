"""Many clients for minutes: `python soak.py [SECONDS] [CLIENTS]`, with the environment variable BINDERY for the binary.

Random lengths, n, streams and aborts against a pool that is too small for them, so that requests are preempted; some
clients read slowly, some connect and say nothing. Every finished request must have the text that it has alone, no
request may be lost, all blocks must come back, and the memory must stay flat. Greedy requests are compared with the same
request alone on an idle server (`--batch-invariant`, so that they must be equal); sampled ones have a seed and are
compared likewise.
"""

import asyncio
import random
import re
import socket
import sys
import time
from urllib.parse import urlsplit

import httpx2 as httpx

from server import KEY, MODEL, Server, wait_until

FLAGS = ["--max-model-len", "256", "--num-gpu-blocks-override", "32", "--max-num-seqs", "24", "--batch-invariant"]
TOPICS = ["the sea", "old maps", "a paged cache", "rain in May", "trains", "the number seven", "bread", "a lighthouse"]


def requests(count: int) -> list[dict]:
    draw = random.Random(7)
    made = []
    for number in range(count):
        n = draw.choice([1, 1, 1, 2, 4])
        made.append({
            "model": MODEL,
            "prompt": f"Write about {draw.choice(TOPICS)}. " * draw.randint(1, 8) + f"Number {number}:",
            "max_tokens": draw.randint(1, 40),
            "n": n,
            "temperature": 0.9 if n > 1 else draw.choice([0, 0.8]),
            "seed": number,
        })
    return made


def metric(server: Server, name: str) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    return float(re.search(rf"^{re.escape(name)}\S* (\S+)$", text, re.MULTILINE)[1])


async def one(client: httpx.AsyncClient, body: dict, draw: random.Random) -> list[str] | None:
    """The texts of a request; `None` when this client went away in the middle."""
    abort_after = draw.choice([None, None, None, draw.uniform(0, 2)])
    try:
        async with asyncio.timeout(abort_after):
            if draw.random() < 0.5:
                answer = await client.post("/v1/completions", json=body)
                answer.raise_for_status()
                return [choice["text"] for choice in answer.json()["choices"]]
            texts = [""] * body["n"]
            slow = draw.random() < 0.2
            async with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as stream:
                stream.raise_for_status()
                async for line in stream.aiter_lines():
                    if line.startswith("data: {"):
                        for choice in httpx.Response(200, content=line[6:]).json()["choices"]:
                            texts[choice["index"]] += choice["text"]
                    if slow:
                        await asyncio.sleep(0.2)
            return texts
    except TimeoutError:
        return None


async def soak(server: Server, bodies: list[dict], alone: list[list[str]], seconds: float, clients: int) -> dict:
    counts = {"finished": 0, "aborted": 0}
    end = time.monotonic() + seconds

    async def client(number: int) -> None:
        draw = random.Random(number)
        options = {"base_url": server.url, "headers": {"Authorization": f"Bearer {KEY}"}, "timeout": 300}
        async with httpx.AsyncClient(**options) as http:
            while time.monotonic() < end:
                at = draw.randrange(len(bodies))
                texts = await one(http, bodies[at], draw)
                if texts is None:
                    counts["aborted"] += 1
                    continue
                assert texts == alone[at], f"request {at} alone: {alone[at]!r}, among others: {texts!r}"
                counts["finished"] += 1

    await asyncio.gather(*(client(number) for number in range(clients)))
    return counts


def half_open(server: Server, count: int) -> list[socket.socket]:
    """Connections that begin a request and never end it."""
    address = urlsplit(server.url)
    opened = [socket.create_connection((address.hostname, address.port)) for _ in range(count)]
    for connection in opened:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    return opened


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 300
    clients = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    bodies = requests(48)
    with Server(*FLAGS) as server:
        with server.http() as http:
            ask = lambda body: http.post("/v1/completions", json=body).raise_for_status().json()
            alone = [[choice["text"] for choice in ask(body)["choices"]] for body in bodies]
        connections = half_open(server, 8)
        asyncio.run(soak(server, bodies, alone, min(20, seconds), clients))
        resident = server.resident_bytes()
        counts = asyncio.run(soak(server, bodies, alone, seconds, clients))
        grown = server.resident_bytes() - resident
        wait_until(lambda: metric(server, "bindery_used_blocks") == 0)
        preemptions = metric(server, "vllm:num_preemptions_total")
        swaps = metric(server, "bindery_swapped_requests_total")
        assert metric(server, "bindery_free_blocks") == 32 and metric(server, "bindery_host_blocks_used") == 0
        assert preemptions > 0, "the pool was large enough"
        assert grown < 64 << 20, f"memory grew by {grown >> 20} MiB"
        for connection in connections:
            connection.close()
    print(f"{clients} clients, {seconds:.0f} s: {counts['finished']} finished, each as alone; {counts['aborted']} aborted; "
          f"{preemptions:.0f} preemptions, {swaps:.0f} by swap; memory grew by {grown / (1 << 20):.1f} MiB; "
          "all blocks free")


if __name__ == "__main__":
    main()
