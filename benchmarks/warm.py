"""POST /chat with a child that keeps its model, against a cold child, the raw pytest command, and the direct engine.

    python benchmarks/warm.py [ROUNDS]

All answer the same prompt with 32 tokens at temperature 0 on the CPU edition, taking turns in an order that changes. A
request to a warm server is sent when its child waits. Then the same prompt as a stream: seconds to the first text. At
last, where the time of the requests to a kept model goes.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests
from figures import report
from overhead import RAW, in_shell, raw_command, start_server

from demo_api.config import Settings

PROMPT = "Tell me a story about a ship."
TOKENS = 32
REQUEST = {"prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0}
PARTS = ["queue", "startup", "load", "prefill_compile", "prefill", "decode_compile", "decode", "teardown"]
SERVERS = {
    "off": ("--warm", "off"),
    "imports": ("--warm", "imports"),
    "model": ("--warm", "model"),
    "direct": ("--engine", "direct"),
}
NAMES = {"raw": RAW, "direct": "the direct engine", "first direct": "the direct engine"}
RATIOS = {
    ("model", "raw"): ("POST /chat, 32 tokens, kept model", 0.33),
    ("imports", "raw"): ("POST /chat, 32 tokens, --warm imports", None),
    ("off", "raw"): ("POST /chat, 32 tokens, --warm off", 1.10),
    ("model", "direct"): ("POST /chat, 32 tokens, kept model", 1.3),
    ("first model", "first direct"): ("first text of a stream, kept model", 1.5),
}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    settings = Settings.load()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, urls = Path(name), {}
        for side, flags in SERVERS.items():
            server, urls[side] = start_server(folder / side, *flags)
            stack.callback(server.wait, 60)
            stack.callback(server.terminate)
        compare(settings, folder, urls, rounds)


def compare(settings: Settings, folder: Path, urls: dict[str, str], rounds: int) -> None:
    command, environ = raw_command(settings, folder, PROMPT)
    bodies: dict[str, list[dict[str, Any]]] = {"imports": [], "model": []}

    def ask_demo(side: str) -> float:
        if side != "off":
            wait_for_child(urls[side])
        seconds, body = ask(urls[side])
        if side != "off":
            bodies[side].append(body | {"seconds": seconds})
            wait_for_child(urls[side])  # its start-up is not to disturb the others
        return seconds

    ways: dict[str, Callable[[], float]] = {
        "raw": lambda: in_shell(command, environ, settings),
        "off": lambda: ask_demo("off"),
        "imports": lambda: ask_demo("imports"),
        "model": lambda: ask_demo("model"),
        "direct": lambda: ask(urls["direct"])[0],
        "first model": lambda: first_text(urls["model"]),
        "first direct": lambda: first_text(urls["direct"]),
    }
    for way in ways.values():
        way()  # the first of each fills the page cache, and loads the models that are kept
    bodies["imports"].clear(), bodies["model"].clear()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        turn = number % len(ways)
        for name in [*ways][turn:] + [*ways][:turn]:
            found[name].append(ways[name]())
        print("  ".join(f"{name} {seconds[-1]:.3f}" for name, seconds in found.items()), flush=True)
    for side, answers in bodies.items():
        assert {body["timing"]["warm"] for body in answers} == {side}, f"{side}: {answers}"
    for (one, other), (what, goal) in RATIOS.items():
        report(what, found[one], "s", beside=NAMES[other], theirs=found[other], ratio_goal=goal)
    report_parts(bodies["model"])


def report_parts(bodies: list[dict[str, Any]]) -> None:
    known = {name.replace("_", " "): [body["timing"][f"{name}_seconds"] for body in bodies] for name in PARTS}
    known["ledger, HTTP, the rest"] = [
        body["seconds"] - sum(body["timing"][f"{name}_seconds"] for name in PARTS) for body in bodies
    ]
    for name, seconds in known.items():
        report(f"of the time with a kept model: {name}", [each * 1000 for each in seconds], "ms")


def ask(url: str) -> tuple[float, dict[str, Any]]:
    begin = time.perf_counter()
    answer = requests.post(f"{url}/chat", json=REQUEST, timeout=900)
    seconds = time.perf_counter() - begin
    answer.raise_for_status()
    body: dict[str, Any] = answer.json()
    assert body["tokens_generated"] == TOKENS, body["tokens_generated"]
    return seconds, body


def first_text(url: str) -> float:
    """Seconds until the first text of a stream, which is then read to its end."""
    if requests.get(f"{url}/health", timeout=60).json()["engine"] == "demo":
        wait_for_child(url)
    begin, first = time.perf_counter(), None
    with requests.post(f"{url}/chat/stream", json=REQUEST, stream=True, timeout=900) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines(chunk_size=1):
            if line == b"event: text" and first is None:
                first = time.perf_counter() - begin
    assert first is not None, "the stream had no text"
    return first


def wait_for_child(url: str) -> None:
    tick, deadline = threading.Event(), time.monotonic() + 60
    while not is_waiting(requests.get(f"{url}/health", timeout=60).json()["device"]):
        if time.monotonic() > deadline:
            raise SystemExit(f"no child waits for a request: look at {url}/health")
        tick.wait(0.05)
    tick.wait(0.3)  # it may still be about to collect the tests


def is_waiting(device: dict[str, Any]) -> bool:
    return bool(device["warm"] != "off" and device["state"] == "free")


if __name__ == "__main__":
    main()
