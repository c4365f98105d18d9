"""What keeping the model saves where loading takes long: a demo home that takes 20 s to load and 2 s to compile.

    PYTHONPATH=tests python benchmarks/like_hardware.py [ROUNDS]

The home's demo sleeps where a device works: 50 ms of prefill for each user, 20 ms for each decode step whatever the
batch. Reported are a second request to a child that keeps its model against one to a cold child, and 32 requests at
once ("crowd") to such a child against 32 times the raw pytest command, of which one is measured in each round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import requests
from figures import report
from overhead import RAW, start_server
from support.demo_homes import SCRIPT, make_home
from warm import wait_for_child

SERVERS = {"off": "off", "imports": "imports", "model": "model", "crowd": "model"}
TOKENS = 32
USERS = 32


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, urls = Path(name), {}
        home = make_home(folder / "home", "like_hardware")
        (folder / "model").mkdir()
        flags = ("--demo-home", str(home), "--llama-dir", str(folder / "model"))
        for side, warm in SERVERS.items():
            server, urls[side] = start_server(folder / side, *flags, "--warm", warm)
            stack.callback(server.wait, 60)
            stack.callback(server.terminate)
        ask(urls["model"])  # loads
        at_once(urls["crowd"])  # loads for the first of them, then for 32
        at_once(urls["crowd"])
        found: dict[str, list[float]] = {"raw": [], "off": [], "imports": [], "model": [], "crowd": []}
        for _ in range(rounds):
            found["raw"].append(raw(folder, home))
            for side, url in urls.items():
                if side != "off":
                    wait_for_child(url)
                found[side].append(at_once(url) if side == "crowd" else ask(url))
            print("  ".join(f"{name} {seconds[-1]:.2f} s" for name, seconds in found.items()), flush=True)
    what = "loading takes 20 s: POST /chat, --warm"
    report(f"{what} imports", found["imports"], "s", beside="--warm off", theirs=found["off"])
    report(f"{what} model", found["model"], "s", beside="--warm off", theirs=found["off"], ratio_goal=0.05)
    lesson = [USERS * seconds for seconds in found["raw"]]
    report(f"{what} model, {USERS} at once", found["crowd"], "s", beside=f"{USERS} times {RAW}", theirs=lesson)


def ask(url: str, prompt: str = "Hello") -> float:
    begin = time.perf_counter()
    body = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
    answer = requests.post(f"{url}/chat", json=body, timeout=900)
    seconds = time.perf_counter() - begin
    answer.raise_for_status()
    assert answer.json()["tokens_generated"] == TOKENS
    return seconds


def at_once(url: str) -> float:
    begin = time.perf_counter()
    with ThreadPoolExecutor(USERS) as pool:
        list(pool.map(lambda number: ask(url, f"Hello {number}"), range(USERS)))
    return time.perf_counter() - begin


def raw(folder: Path, home: Path) -> float:
    prompts = folder / "prompts.json"
    prompts.write_text(json.dumps([{"prompt": "Hello"}]))
    words = [f"--input_prompts={prompts}", "--max_seq_len=1024", f"--max_generated_tokens={TOKENS - 1}"]
    environ = os.environ | {"PYTHONPATH": str(home), "LLAMA_DIR": str(folder / "model")}
    command = [sys.executable, "-m", "pytest", str(SCRIPT), "-k", "performance-batch-1", "-s", *words]
    begin = time.perf_counter()
    subprocess.run(command, cwd=home, env=environ, check=True, capture_output=True)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
