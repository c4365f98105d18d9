"""POST /chat with a child that was started ahead, against the raw cold pytest command and against our own cold path.

    python benchmarks/warm.py [ROUNDS]

All three answer the same prompt with 32 tokens at temperature 0 on the CPU edition, taking turns in an order that
changes. A request to the warm server is sent when its child waits, as after a pause of a second. What is reported is
the median ratio of the rounds, and where the time of the warm requests goes.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import requests
from overhead import in_shell, raw_command, start_server

from demo_api.config import Settings

PROMPT = "Tell me a story about a ship."
TOKENS = 32
PARTS = ["queue", "startup", "load", "prefill_compile", "prefill", "decode_compile", "decode", "teardown"]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    settings = Settings.load()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        servers = {warm: start_server(folder / warm, "--warm", warm) for warm in ("imports", "off")}
        try:
            compare(settings, folder, {warm: url for warm, (_, url) in servers.items()}, rounds)
        finally:
            for server, _ in servers.values():
                server.terminate()
                server.wait(60)


def compare(settings: Settings, folder: Path, urls: dict[str, str], rounds: int) -> None:
    command, environ = raw_command(settings, folder, PROMPT)
    bodies: list[dict[str, Any]] = []

    def warm() -> float:
        wait_for_child(folder / "imports" / "state")
        seconds, body = ask(urls["imports"])
        assert body["timing"]["warm"] == "imports", "no child waited"
        bodies.append(body | {"seconds": seconds})
        wait_for_child(folder / "imports" / "state")  # its startup is not to disturb the others
        return seconds

    ways = {"raw": lambda: in_shell(command, environ, settings), "cold": lambda: ask(urls["off"])[0], "warm": warm}
    for way in ways.values():
        way()  # the first of each fills the page cache
    bodies.clear()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        names = list(ways)[number % 3 :] + list(ways)[: number % 3]
        for name in names:
            found[name].append(ways[name]())
        print("  ".join(f"{name} {seconds[-1]:.3f} s" for name, seconds in found.items()), flush=True)
    for other in ("raw", "cold"):
        ratios = [one / two for one, two in zip(found["warm"], found[other], strict=True)]
        print(f"warm / {other}: median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    print_parts(bodies)


def print_parts(bodies: list[dict[str, Any]]) -> None:
    print("where the time of a warm request goes, medians in ms:")
    known = {name: [body["timing"][f"{name}_seconds"] for body in bodies] for name in PARTS}
    known["ledger, HTTP, the rest"] = [
        body["seconds"] - sum(body["timing"][f"{name}_seconds"] for name in PARTS) for body in bodies
    ]
    for name, seconds in known.items():
        print(f"  {name:24} {statistics.median(seconds) * 1000:6.1f}")


def ask(url: str) -> tuple[float, dict[str, Any]]:
    begin = time.perf_counter()
    answer = requests.post(f"{url}/chat", json={"prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0}, timeout=900)
    seconds = time.perf_counter() - begin
    answer.raise_for_status()
    body: dict[str, Any] = answer.json()
    assert body["tokens_generated"] == TOKENS, body["tokens_generated"]
    return seconds, body


def wait_for_child(state: Path) -> None:
    tick, deadline = threading.Event(), time.monotonic() + 60
    while not is_waiting(state):
        if time.monotonic() > deadline:
            raise SystemExit(f"no child waits for a request: look into {state}")
        tick.wait(0.05)


def is_waiting(state: Path) -> bool:
    try:
        name = (state / "device.waiting").read_text()
        return '"message": "waiting"' in (state / "runs" / name / "stderr.txt").read_text()
    except OSError:
        return False


if __name__ == "__main__":
    main()
