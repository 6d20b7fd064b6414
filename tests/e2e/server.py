"""A real `bindery serve` process, for tests and for soak.py."""

import os
import re
import signal
import subprocess
import threading
import time
from collections import deque
from pathlib import Path

import httpx2 as httpx
import openai

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("BINDERY", ROOT / "target/debug/bindery"))
MODEL = "smollm2"
KEY = "sesame"
# Shaders are compiled at the first start on a machine.
START_SECONDS = 180
STOP_SECONDS = 60


class Server:
    """Starts `bindery serve` with `flags` on a free port, and ends it by SIGTERM at the end of a `with` block."""

    def __init__(self, *flags: str):
        self.flags = flags
        self.log: deque[str] = deque(maxlen=400)
        self.url = ""
        self._has_url = threading.Event()
        self._was_killed = False

    def __enter__(self) -> "Server":
        common = ["--device", "llvmpipe", "--port", "0", "--served-model-name", MODEL, "--api-key", KEY]
        command = [str(BINARY), "serve", *common, *self.flags]
        environment = {**os.environ, "RUST_BACKTRACE": "1"}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        if not self._has_url.wait(START_SECONDS) or not self.url:
            self.process.kill()
            raise RuntimeError(f"{' '.join(command)} did not start:\n{self.text_of_log()}")
        return self

    def _read_log(self) -> None:
        for line in self.process.stderr:
            self.log.append(line)
            found = re.search(r'serving .* at (http://[^\s"]+)', line)
            if found:
                self.url = found[1]
                self._has_url.set()
        # The process ended; whoever waits for its address must not wait any longer.
        self._has_url.set()

    def __exit__(self, kind, *_) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join()
        if kind is None and not self._was_killed:
            assert status == 0, f"it ended with status {status}:\n{self.text_of_log()}"
            assert "panicked" not in self.text_of_log(), self.text_of_log()

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        self._was_killed = True
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def text_of_log(self) -> str:
        return "".join(self.log)

    def client(self, **options) -> openai.OpenAI:
        """OpenAI's client; it repeats nothing, so that every failure shows."""
        return openai.OpenAI(base_url=f"{self.url}/v1", **{"api_key": KEY, "max_retries": 0, **options})

    def async_client(self, **options) -> openai.AsyncOpenAI:
        """The same for asyncio."""
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", **{"api_key": KEY, "max_retries": 0, **options})

    def http(self) -> httpx.Client:
        """A plain HTTP client, for the routes that OpenAI does not have."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60)

    def load(self) -> int:
        """Requests that are being answered."""
        return httpx.get(f"{self.url}/load").raise_for_status().json()["server_load"]

    def resident_bytes(self) -> int:
        """Memory of the process (Linux)."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def wait_until(is_so, seconds: float = 60) -> None:
    """Asks again and again: for what a process only tells when asked."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not happen in time"
