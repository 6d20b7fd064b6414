"""Two replicas behind vllm-router, which routes by the prefixes that each holds."""

import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx2 as httpx
import pytest

from server import KEY, MODEL, Server, wait_until

FLAGS = ["--max-model-len", "512", "--num-gpu-blocks-override", "96"]
EVENTS = '{"enable_kv_cache_events": true, "endpoint": "tcp://127.0.0.1:0"}'
KEYED = {"Authorization": f"Bearer {KEY}"}
TEXT = "The history of the paged cache is long and it begins in the year when engineers first asked. " * 8


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Router:
    """vllm-router over `servers`."""

    def __init__(self, policy: str, servers: list[Server], *flags: str):
        self.url = f"http://127.0.0.1:{free_port()}"
        port = self.url.rsplit(":", 1)[1]
        self.command = [
            str(Path(sys.executable).with_name("vllm-router")), "--policy", policy, "--port", port,
            "--prometheus-port", str(free_port()), "--log-level", "debug", "--api-key", KEY,
            "--worker-urls", *(server.url for server in servers), *flags,
        ]
        self.log: list[str] = []

    def __enter__(self) -> "Router":
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        threading.Thread(target=lambda: self.log.extend(self.process.stdout), daemon=True).start()

        def is_up() -> bool:
            assert self.process.poll() is None, "".join(self.log)
            try:
                return httpx.get(f"{self.url}/health").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(is_up)
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()


def ask(url: str, prompt: str) -> int:
    """Tokens of the prompt that came from the prefix cache."""
    body = {"model": MODEL, "prompt": prompt, "max_tokens": 2, "temperature": 0}
    answer = httpx.post(f"{url}/v1/completions", json=body, headers=KEYED, timeout=120).raise_for_status().json()
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def prompt_tokens(server: Server) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    return float(re.search(r"^vllm:prompt_tokens_total\S* (\S+)$", text, re.MULTILINE)[1])


@pytest.fixture
def replicas():
    with Server(*FLAGS, "--kv-events-config", EVENTS) as first, Server(*FLAGS, "--kv-events-config", EVENTS) as second:
        yield [first, second]


def test_prompts_go_to_the_replica_that_holds_their_prefix(replicas):
    sources = []
    for server in replicas:
        source = httpx.get(f"{server.url}/kv_event_sources", headers=KEYED).json()["0"]
        sources += ["--kv-event-source", f"{server.url}={source['endpoint']}"]
    with Router("kv_aware", replicas, *sources, "--kv-event-block-size", "16", "--kv-event-model", MODEL) as router:
        for at, server in enumerate(replicas):
            prefix = known_prefix(router, server, at)
            for number in range(3):
                before = prompt_tokens(server)
                cached = ask(router.url, f"{prefix} And number {number}?")
                assert cached >= 128 and cached % 16 == 0, "".join(router.log[-20:])
                assert prompt_tokens(server) > before, "it went to the other replica"
        log = re.sub(r"\x1b\[[0-9;]*m", "", "".join(router.log))
        credited = re.findall(r"credited_prefix_tokens=(\d+)", log)
        assert len([tokens for tokens in credited if int(tokens) >= 128]) >= 6
        # One replica crashes: what was its own is served by the other.
        replicas[1].kill()
        for number in range(4):
            ask(router.url, f"{prefix} Once more, {number}.")


def known_prefix(router: Router, server: Server, at: int) -> str:
    """A prefix that `server` holds and the router knows of. It tells nobody when its subscriptions take effect, so new
    ones are made until it does."""
    for attempt in range(50):
        prefix = f"{at}.{attempt} {TEXT}"
        assert ask(server.url, prefix) == 0
        before = prompt_tokens(server)
        if ask(router.url, f"{prefix} Known?") >= 128 and prompt_tokens(server) > before:
            return prefix
    raise AssertionError("the router learns nothing:\n" + "".join(router.log[-20:]))


def test_cache_aware_routing_keeps_prefixes_together(replicas):
    with Router("cache_aware", replicas) as router:
        cached = [ask(router.url, f"{TEXT} Question {number}?") for number in range(4)]
    assert cached[0] == 0 and all(tokens >= 128 for tokens in cached[1:]), cached
