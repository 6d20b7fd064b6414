"""The server's own description of itself, and what schemathesis makes of it."""

import subprocess
import sys
from pathlib import Path

import httpx2 as httpx
import pytest

from server import KEY, MODEL, ROOT, Server


@pytest.fixture(scope="module")
def small():
    """Short sequences, so that no made-up request takes long."""
    with Server("--max-model-len", "64", "--num-gpu-blocks-override", "64", "--max-body-bytes", "1Mi") as running:
        yield running


def test_every_route_is_described_and_there(small):
    described = httpx.get(f"{small.url}/openapi.json").raise_for_status().json()["paths"]
    for path, methods in described.items():
        for method in methods:
            url = small.url + path.replace("{model}", MODEL)
            answer = httpx.request(method, url, headers={"Authorization": f"Bearer {KEY}"})
            assert answer.status_code not in (404, 405), f"{method} {path}"
    router = (ROOT / "src/server/router.rs").read_text()
    routes = {piece.split('"')[1].replace("{*", "{") for piece in router.split(".route(")[1:]}
    assert routes - set(described) == {"/", "/ui/events"}, "the page is for people"


def test_schemathesis_finds_no_server_error(small):
    command = [
        str(Path(sys.executable).with_name("st")), "run", f"{small.url}/openapi.json",
        "--header", f"Authorization: Bearer {KEY}", "--checks", "not_a_server_error,response_schema_conformance",
        "--phases", "fuzzing", "--max-examples", "40", "--seed", "1", "--workers", "2",
        "--request-timeout", "120", "--suppress-health-check", "all", "--warnings", "off", "--generation-database", "none",
    ]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900)
    assert run.returncode == 0, run.stdout[-6000:]
    answer = httpx.post(f"{small.url}/v1/completions", json={"model": MODEL, "prompt": "Hi", "max_tokens": 1},
                        headers={"Authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200
