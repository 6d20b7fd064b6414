"""One server for all tests, small enough that each stays quick."""

import pytest

from server import Server


@pytest.fixture(scope="session")
def server():
    flags = "--max-model-len 512 --num-gpu-blocks-override 160 --max-num-seqs 8 --max-body-bytes 1Mi"
    with Server(*flags.split()) as running:
        yield running


@pytest.fixture(scope="session")
def client(server):
    return server.client()


@pytest.fixture
def http(server):
    with server.http() as client:
        yield client
