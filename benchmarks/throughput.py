"""Many requests at once against the lesson's way and llama-server's, and one request with and without the ledger.

    python benchmarks/throughput.py [ROUNDS [PAIRS]]

The lesson's way is one ``pytest`` child per prompt, one after another, as a shell loop does it. Both answer the same 32
prompts, greedily, with at most 32 tokens each, on the CPU edition of the demo; the answers are compared. Then a server
that keeps its model answers them beside a llama-server with 32 slots and no prompt cache (see direct.py). For the last
part, one prompt at a time goes through the demo engine with its ledger, and straight to the runner, in this process.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import requests
from direct import start_llama_server, stopped
from figures import report
from overhead import MAX_TOKENS, RAW, in_shell, raw_command, start_server

from demo_api.config import Settings
from demo_api.demo.capabilities import Capabilities
from demo_api.devices.demo_engine import DemoEngine
from demo_api.devices.lock import devices_of
from demo_api.messages import Batch, Request, Run
from demo_api.queue import Ledger, new_id
from demo_api.runner import DemoRunner
from demo_api.transcript import parse

THINGS = ("colors", "animals", "fruits", "planets", "rivers", "metals", "tools", "sports")
PROMPTS = [f"Name {number} {things}." for number in ("two", "three", "four", "five") for things in THINGS]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    with tempfile.TemporaryDirectory() as folder:
        many_at_once(Path(folder), rounds)
        beside_llama_server(Path(folder), rounds)
        one_at_a_time(Path(folder) / "ledger", pairs)


def many_at_once(folder: Path, rounds: int) -> None:
    settings = Settings.load()
    server, url = start_server(folder, "--warm", "off")
    try:
        in_shell(*raw_command(settings, folder), settings)  # fills the page cache
        chat(url, PROMPTS[0])
        lessons, crowds = [], []
        for number in range(rounds):
            (lesson, one_by_one), (ours, together) = shell_loop(settings, folder), at_once(url)
            lessons.append(lesson)
            crowds.append(ours)
            same = sum(a == b for a, b in zip(one_by_one, together, strict=True))
            print(
                f"round {number + 1}: shell loop {lesson:.2f} s, at once {ours:.2f} s, ratio {ours / lesson:.3f}; "
                f"{same} of {len(PROMPTS)} answers the same",
                flush=True,
            )
        beside = f"{RAW}, {len(PROMPTS)} times"
        report(
            f"{len(PROMPTS)} POST /chat at once, {MAX_TOKENS} tokens each", crowds, "s", beside=beside, theirs=lessons
        )
    finally:
        server.terminate()
        server.wait(60)


def beside_llama_server(folder: Path, rounds: int) -> None:
    server, url = start_server(folder / "kept")
    with stopped(server), ExitStack() as stack:
        anchor, _, their_url = start_llama_server(stack, folder, slots=len(PROMPTS), tokens=1024)
        urls, found = list(filter(None, (url, their_url))), {url: [], their_url: []}
        extra: dict[str, dict[str, object]] = {url: {}, their_url: {"cache_prompt": False}}  # ours has none anyway
        for each in urls:
            complete_all(each, extra[each])  # loads the model
        for number in range(rounds):
            for each in urls if number % 2 else reversed(urls):
                found[each].append(complete_all(each, extra[each]))
        report(
            f"{len(PROMPTS)} chat completions at once, {MAX_TOKENS} tokens each, kept model",
            found[url],
            "s",
            beside=anchor,
            theirs=found[their_url],
            ratio_goal=1.15,
        )


def complete_all(url: str, extra: dict[str, object]) -> float:
    model = requests.get(f"{url}/v1/models", timeout=60).json()["data"][0]["id"]
    common = {"model": model, "max_tokens": MAX_TOKENS, "temperature": 0, **extra}

    def complete(prompt: str) -> None:
        body = {**common, "messages": [{"role": "user", "content": prompt}]}
        requests.post(f"{url}/v1/chat/completions", json=body, timeout=900).raise_for_status()

    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        begin = time.perf_counter()
        list(pool.map(complete, PROMPTS))
        return time.perf_counter() - begin


def shell_loop(settings: Settings, folder: Path) -> tuple[float, list[str]]:
    """One child per prompt; its answers are read after the time is taken."""
    printed = []
    begin = time.perf_counter()
    for number, prompt in enumerate(PROMPTS):
        command, environ = raw_command(settings, folder, prompt)
        log = folder / f"log-{number}"
        in_shell(f"{command} > {log} 2>&1", environ, settings)
        printed.append((prompt, log))
    seconds = time.perf_counter() - begin
    return seconds, [parse([prompt], [log.read_bytes()], [], 0).answers[0].response for prompt, log in printed]


def at_once(url: str) -> tuple[float, list[str]]:
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        begin = time.perf_counter()
        answers = list(pool.map(lambda prompt: chat(url, prompt), PROMPTS))
        return time.perf_counter() - begin, answers


def chat(url: str, prompt: str) -> str:
    body = {"prompt": prompt, "max_tokens": MAX_TOKENS, "temperature": 0}
    answer = requests.post(f"{url}/chat", json=body, timeout=900)
    answer.raise_for_status()
    return str(answer.json()["response"])


def one_at_a_time(folder: Path, pairs: int) -> None:
    settings = Settings.load({"state_dir": folder, "warm": "off"})  # only the ledger makes the difference
    engine = DemoEngine(Ledger(settings), Capabilities(settings), [DemoRunner(settings)], settings)
    engine.start()
    request = Request(prompt=PROMPTS[0], max_tokens=MAX_TOKENS, temperature=0)
    with_ledger(engine, request), without_ledger(settings, request)
    found: dict[str, list[float]] = {"ours": [], "without": []}
    for number in range(pairs):
        if number % 2:  # neither always comes first
            without, ours = without_ledger(settings, request), with_ledger(engine, request)
        else:
            ours, without = with_ledger(engine, request), without_ledger(settings, request)
        found["ours"].append(ours)
        found["without"].append(without)
        print(
            f"pair {number + 1:2}: with {ours:.3f} s, without {without:.3f} s, ratio {ours / without:.3f}", flush=True
        )
    engine.close()
    report("one run with the ledger", found["ours"], "s", beside="the runner alone", theirs=found["without"])


def with_ledger(engine: DemoEngine, request: Request) -> float:
    begin = time.perf_counter()
    run = engine.wait(engine.submit([request])[0].run_id)
    seconds = time.perf_counter() - begin
    assert run.status == "succeeded", run
    return seconds


def without_ledger(settings: Settings, request: Request) -> float:
    runner, device = DemoRunner(settings), devices_of(settings)[0]
    with device.wait_for_lock(seconds=60, given_up=threading.Event()) as lock:
        begin = time.perf_counter()
        batch = Batch(new_id(), [Run(new_id(), request)])
        (result,) = runner.generate(batch, lambda run_id, event: None, lock).results
        seconds = time.perf_counter() - begin
    assert result.answer, result
    return seconds


if __name__ == "__main__":
    main()
