"""/metrics, read by Prometheus' own parser for Python."""

import asyncio
import json
import re

import httpx2 as httpx
from prometheus_client.parser import text_string_to_metric_families

from server import MODEL, ROOT, wait_until


class Metrics:
    """What /metrics says now."""

    def __init__(self, server):
        answer = httpx.get(f"{server.url}/metrics").raise_for_status()
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        self.samples = {}
        for family in text_string_to_metric_families(answer.text):
            assert family.documentation, f"{family.name} has no help"
            for sample in family.samples:
                labels = dict(sample.labels)
                assert labels.pop("model_name") == MODEL and labels.pop("engine") == "0"
                self.samples[sample.name, tuple(sorted(labels.items()))] = sample.value

    def __getitem__(self, name: str) -> float:
        return self.samples[name, ()]

    def of(self, name: str, **labels: str) -> float:
        return self.samples.get((name, tuple(sorted(labels.items()))), 0.0)

    def labels(self, name: str) -> dict:
        return next(dict(labels) for sample, labels in self.samples if sample == name)


def test_a_request_is_counted_once(server, client):
    before = Metrics(server)
    prompt = "Count to ten: one, two, three, four, five, six, seven, eight, nine, ten. And now to twenty:"
    answer = client.completions.create(model=MODEL, prompt=prompt, n=2, max_tokens=5, extra_body={"ignore_eos": True})
    after = Metrics(server)

    def gained(name: str) -> float:
        return after[name] - before[name]

    assert gained("vllm:prompt_tokens_total") == answer.usage.prompt_tokens
    assert gained("vllm:generation_tokens_total") == answer.usage.completion_tokens == 10
    success = "vllm:request_success_total"
    assert after.of(success, finished_reason="length") - before.of(success, finished_reason="length") == 1
    for name in ["time_to_first_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds",
                 "request_inference_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds",
                 "request_prompt_tokens", "request_generation_tokens", "request_params_n",
                 "request_params_max_tokens", "request_time_per_output_token_seconds"]:
        assert gained(f"vllm:{name}_count") == 1, name
    assert gained("vllm:inter_token_latency_seconds_count") == 8, "four after the first, in each of two samples"
    assert gained("vllm:request_generation_tokens_sum") == 10
    assert gained("vllm:iteration_tokens_total_count") == 5, "the prompt, and four steps of two tokens"
    assert gained("bindery_copy_on_write_copies_total") == 1, "the samples part in the last block of the prompt"
    again = client.completions.create(model=MODEL, prompt=prompt, max_tokens=1)
    cached = Metrics(server)["vllm:prefix_cache_hits_total"] - after["vllm:prefix_cache_hits_total"]
    assert cached == again.usage.prompt_tokens_details.cached_tokens > 0


def test_gauges_hold_under_load(server):
    """What the Gateway API Inference Extension's protocol reads: queue, running, cache use, block size and number."""
    options = {"model": MODEL, "max_tokens": 300, "extra_body": {"ignore_eos": True}}

    async def load():
        async with server.async_client() as clients:
            tasks = [
                asyncio.create_task(clients.completions.create(prompt=f"Story {i}", **options)) for i in range(12)
            ]
            seen = []

            def all_are_there():
                seen.append(Metrics(server))
                return seen[-1]["vllm:num_requests_running"] + seen[-1]["vllm:num_requests_waiting"] == 12

            await asyncio.to_thread(wait_until, all_are_there)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return seen[-1]

    metrics = asyncio.run(load())
    assert (metrics["vllm:num_requests_running"], metrics["vllm:num_requests_waiting"]) == (8, 4)
    assert metrics.of("vllm:num_requests_waiting_by_reason", reason="capacity") == 4
    sizes = metrics.labels("vllm:cache_config_info")
    assert (sizes["block_size"], sizes["num_gpu_blocks"]) == ("16", "160")
    assert metrics["bindery_used_blocks"] >= 8
    assert abs(metrics["vllm:kv_cache_usage_perc"] - metrics["bindery_used_blocks"] / 160) < 1e-9
    assert metrics["bindery_used_blocks"] + metrics["bindery_free_blocks"] == 160
    wait_until(lambda: Metrics(server)["vllm:num_requests_running"] == 0)
    after = Metrics(server)
    assert (after["bindery_used_blocks"], after["vllm:kv_cache_usage_perc"]) == (0, 0)
    assert after.of("vllm:request_success_total", finished_reason="abort") >= 12


def test_the_dashboard_shows_what_is_there(server):
    """Every metric that the Grafana dashboard asks for has a sample."""
    dashboard = json.loads((ROOT / "deploy/grafana/bindery.json").read_text())
    asked = {target["expr"] for panel in dashboard["panels"] for target in panel["targets"]}
    names = {name for expression in asked for name in re.findall(r"(?:vllm:|bindery_)\w+", expression)}
    samples = {name for name, _ in Metrics(server).samples}
    assert len(names) > 15 and names <= samples, names - samples
