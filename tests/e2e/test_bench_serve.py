"""`bindery bench serve` against our own server."""

import json
import subprocess

from server import BINARY, KEY


def test_what_it_reports_is_what_it_asked_for(server, tmp_path):
    out, page = tmp_path / "run.json", tmp_path / "run.html"
    command = [
        str(BINARY), "bench", "serve", "--base-url", server.url, "--api-key", KEY, "--num-prompts", "6", "--input-len",
        "20", "--output-len", "5", "--request-rate", "20", "--output-json", str(out), "--output-html", str(page),
    ]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "6 of 6 requests" in run.stdout
    result = json.loads(out.read_text())
    assert (result["completed"], result["failed"], result["total_output_tokens"]) == (6, 0, 30)
    assert result["output_lens"] == [5] * 6 and all(len(text) > 0 for text in result["generated_texts"])
    assert 0 < result["median_ttft_ms"] <= result["p99_ttft_ms"] <= result["p99_e2el_ms"]
    assert 1 <= result["max_output_tokens_per_s"] <= 30 and 1 <= result["max_concurrent_requests"] <= 6
    assert page.read_text().count("<svg") == 3


def test_refusals_are_counted_and_told(server):
    command = [str(BINARY), "bench", "serve", "--base-url", server.url, "--api-key", "wrong", "--num-prompts", "1"]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
    assert run.returncode == 1 and "key" in run.stderr and "panicked" not in run.stderr
