"""The live block map, in headless Chromium without WebGPU."""

import os
import re
import shutil

import httpx2 as httpx
import pytest
from playwright.sync_api import expect, sync_playwright

from server import KEY, Server

CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]
# On the page, and in /metrics.
COUNTS = {
    "n-running": "vllm:num_requests_running",
    "n-waiting": "vllm:num_requests_waiting",
    "n-used": "bindery_used_blocks",
    "n-cached": "bindery_cached_blocks",
    "n-free": "bindery_free_blocks",
    "n-shared": "bindery_shared_blocks",
    "n-cow": "bindery_copy_on_write_copies_total",
    "n-preemptions": "vllm:num_preemptions_total",
    "n-generated": "vllm:generation_tokens_total",
}


# What a machine that does much else may take.
PATIENCE_MS = 300_000


@pytest.fixture(scope="module")
def browser():
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "a Chromium is needed: install it, or name it by the variable CHROMIUM"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def mapped():
    with Server("--max-model-len", "256", "--num-gpu-blocks-override", "320", "--max-num-seqs", "12") as running:
        yield running


# What a number has been, for tests that would come too late to see it.
RECORD = """
    window.shown = (id) => (shown.of[id] ??= new Set());
    shown.of = {};
    new MutationObserver(() => {
        for (const b of document.querySelectorAll("#numbers b")) shown(b.id).add(b.textContent);
    }).observe(document, {childList: true, subtree: true});
"""


def reproducible(route):
    """The page's own request, with a seed and without an early end."""
    route.continue_(post_data={**route.request.post_data_json, "seed": 7, "ignore_eos": True})


@pytest.fixture
def page(browser, mapped):
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.add_init_script(RECORD)
    page.route("**/v1/completions", reproducible)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(mapped.url)
    page.fill("#key", KEY)
    expect(page.locator("#state")).to_have_text(re.compile("connected|step"), timeout=20_000)
    yield page
    page.close()
    # Refused requests are told by the browser too: a stream without the key, and what a test has asked for.
    assert [error for error in errors if "status of 4" not in error] == []


def metrics(server) -> dict[str, float]:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return {line.split("{")[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


def assert_counts(page, server) -> None:
    found = metrics(server)
    for element, name in COUNTS.items():
        expect(page.locator(f"#{element}")).to_have_text(str(int(found[name])), timeout=10_000)


def test_what_the_page_counts_is_what_the_metrics_say(page, mapped):
    before = int(metrics(mapped)["vllm:generation_tokens_total"])
    page.fill("#tokens", "100")
    page.fill("#n", "4")
    page.click("button >> text=Generate")
    expect(page.locator("#n-generated")).to_have_text(str(before + 4 * 100), timeout=PATIENCE_MS)
    expect(page.locator("#n-running")).to_have_text("0", timeout=PATIENCE_MS)
    assert "1" in page.evaluate("[...shown('n-running')]")
    # The prompt's full blocks, in four tables each, while the samples were written.
    full_blocks = page.evaluate("Math.max(...[...shown('n-shared')].map(Number))")
    assert full_blocks >= 2 * 3, "the page has shown no shared blocks"
    assert int(page.locator("#n-cow").inner_text()) >= 3, "four samples part in the last block of the prompt"
    assert_counts(page, mapped)
    texts = page.locator(".answer").all_inner_texts()
    assert len(texts) == 4 and all(texts) and len(set(texts)) > 1


def test_stopping_gives_the_blocks_back(page, mapped):
    page.fill("#tokens", "200")
    page.fill("#n", "8")
    page.click("button >> text=Generate")
    expect(page.locator("#n-running")).to_have_text("1", timeout=PATIENCE_MS)
    page.click("#stop")
    expect(page.locator("#n-running")).to_have_text("0", timeout=PATIENCE_MS)
    expect(page.locator("#n-used")).to_have_text("0")
    assert_counts(page, mapped)


def test_mistakes_are_told(page):
    page.fill("#n", "1000")
    page.click("button >> text=Generate")
    expect(page.locator(".error")).to_contain_text("1000 sequences", timeout=20_000)


def test_a_key_is_needed_for_what_it_shows(browser, mapped):
    page = browser.new_page()
    page.goto(mapped.url)
    expect(page.locator("#state")).to_have_text("an API key is needed", timeout=20_000)
    page.close()


def test_it_can_be_turned_off():
    with Server("--max-model-len", "64", "--num-gpu-blocks-override", "8", "--no-ui") as plain:
        assert httpx.get(plain.url, headers={"Authorization": f"Bearer {KEY}"}).status_code == 404
