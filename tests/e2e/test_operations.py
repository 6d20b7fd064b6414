"""What an operator relies on: limits, deadlines, an orderly end, logs."""

import json
import re
import signal
import socket
import threading
import time

import httpx2 as httpx
import openai
import pytest

from server import KEY, MODEL, Server, wait_until

SMALL = ["--max-model-len", "512", "--num-gpu-blocks-override", "256"]
LONG = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 400, "extra_body": {"ignore_eos": True}}
KEYED = {"Authorization": f"Bearer {KEY}"}


def in_background(work):
    """Runs `work` on a thread; the function that is given back waits for what it gives."""
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()

    def result():
        thread.join(120)
        return results[0]

    return result


def gauge(server: Server, name: str) -> float:
    return float(re.search(rf"^{name}\S* (\S+)$", httpx.get(f"{server.url}/metrics").text, re.MULTILINE)[1])


def test_a_full_queue_says_when_to_come_back():
    with Server(*SMALL, "--max-num-seqs", "1", "--max-num-queued-reqs", "1") as server:
        client = server.client()
        seated = client.completions.create(stream=True, **LONG)
        next(iter(seated))
        waiting = in_background(lambda: client.completions.create(model=MODEL, prompt="Hi", max_tokens=2))
        wait_until(lambda: gauge(server, "vllm:num_requests_waiting") == 1)
        with pytest.raises(openai.InternalServerError, match="try again later") as refused:
            client.completions.create(model=MODEL, prompt="Hi", max_tokens=2)
        assert refused.value.status_code == 503
        assert int(refused.value.response.headers["retry-after"]) >= 1
        seated.close()
        assert waiting().usage.completion_tokens == 2


def test_a_request_that_takes_too_long_ends():
    with Server(*SMALL, "--request-timeout", "1") as server:
        client = server.client()
        with pytest.raises(openai.APIStatusError, match="longer than this server allows") as late:
            client.completions.create(n=8, **LONG)
        assert late.value.status_code in (408, 504)
        with pytest.raises(openai.APIError, match="longer than this server allows"):
            for _ in client.completions.create(n=8, stream=True, **LONG):
                pass
        wait_until(lambda: gauge(server, "bindery_used_blocks") == 0)
        assert client.completions.create(model=MODEL, prompt="Hi", max_tokens=1).choices


def test_the_end_waits_for_who_is_being_served():
    with Server(*SMALL) as server:
        stream = server.client().completions.create(stream=True, **{**LONG, "max_tokens": 60})
        chunks = [next(iter(stream))]
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_listening(server))
        chunks += stream
        assert chunks[-1].choices[0].finish_reason == "length"
        assert server.process.wait(60) == 0


def test_the_end_does_not_wait_for_ever():
    with Server(*SMALL, "--shutdown-timeout", "1") as server:
        stream = server.client().completions.create(stream=True, n=8, **LONG)
        next(iter(stream))
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises((openai.APIError, httpx.TransportError)):
            for _ in stream:
                pass
        assert server.process.wait(60) == 0
        assert time.monotonic() - began < 20


def is_listening(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/health").status_code == 200
    except httpx.TransportError:
        return False


def test_who_never_reads_is_cut_off():
    with Server(*SMALL, "--write-timeout", "1") as server:
        host, port = server.url.removeprefix("http://").split(":")
        asked = 2000
        with socket.create_connection((host, int(port))) as reader:
            reader.settimeout(60)
            # More than the system holds for a connection, so that the server is the one who waits.
            reader.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: bindery\r\n\r\n" * asked)
            time.sleep(3)
            assert is_listening(server), "others are served meanwhile"
            answers = 0
            try:
                while part := reader.recv(1 << 20):
                    answers += part.count(b"HTTP/1.1 200 OK")
            except ConnectionResetError:
                pass
        assert 0 < answers < asked


def test_pages_of_other_origins():
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    with Server(*SMALL, "--allowed-origins", "https://good.example", "--no-ui") as server:
        for origin, allowed in [("https://good.example", "https://good.example"), ("https://bad.example", None)]:
            answer = httpx.options(f"{server.url}/v1/completions", headers={"Origin": origin, **preflight})
            assert answer.status_code == 200
            assert answer.headers.get("access-control-allow-origin") == allowed


def test_a_template_that_loops(tmp_path):
    template = tmp_path / "loops.jinja"
    template.write_text("{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}")
    with Server(*SMALL, "--chat-template", str(template)) as server:
        client = server.client()
        with pytest.raises(openai.BadRequestError, match="template"):
            client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=1)
        assert client.completions.create(model=MODEL, prompt="Hi", max_tokens=1).choices


def test_logs_are_json_without_what_was_written():
    with Server(*SMALL, "--log-format", "json", "--enable-log-requests") as server:
        request = {"model": MODEL, "prompt": "a secret of mine", "max_tokens": 2}
        headers = {**KEYED, "X-Request-Id": "mine-7"}
        answer = httpx.post(f"{server.url}/v1/completions", json=request, headers=headers, timeout=60)
        assert answer.headers["x-request-id"] == "mine-7" and answer.json()["id"] == "cmpl-mine-7"
        with server.http() as http:
            answer = http.post("/v1/completions", json={**request, "request_id": "mine-8"})
            assert answer.json()["id"] == "cmpl-mine-8"
            answer = http.post("/v1/completions", json={**request, "request_id": "no\nid"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "request_id")
    lines = [json.loads(line) for line in server.log if line.startswith("{")]
    (received,) = [line["fields"] for line in lines if line["fields"].get("request_id") == "mine-7"]
    assert received["message"] == "received" and "secret" not in server.text_of_log()
