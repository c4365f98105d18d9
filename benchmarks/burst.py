"""What others feel of a burst: many clients POST /chat at once, while two look at /livez and /health all the time.

    python benchmarks/burst.py [OTHER_CHECKOUT [ROUNDS]]

The server is ``demo-api serve`` with the CPU edition, and at most 100 runs may wait: most of the 500 clients are
refused. A round begins with the burst and ends when no refusal has come for a second. With another checkout, both are
measured in turns.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from figures import OTHER, report

HERE = Path(__file__).parents[1]
CLIENTS = 500
MAX_QUEUE = 100
PATHS = ("/livez", "/health")
DEADLINE_SECONDS = 60.0
P99 = "99th percentile"
GOALS = {f"/livez, {P99}": 50, f"/health, {P99}": 50, "the last refusal": 2000}  # milliseconds


def main() -> None:
    other = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    found: dict[Path, list[dict[str, float]]] = {}
    for number in range(rounds):
        for checkout in filter(None, (other, HERE)):
            measured = one_round(checkout)
            found.setdefault(checkout, []).append(measured)
            shown = ", ".join(f"{name} {value:.0f}" for name, value in measured.items())
            print(f"round {number + 1}, {checkout}: {shown}", flush=True)
    report_each(f"burst of {CLIENTS}", found, other, GOALS)


def report_each(
    of: str, found: dict[Path, list[dict[str, float]]], other: Path | None, goals: Mapping[str, float]
) -> None:
    """Reports every time of this checkout's rounds, in milliseconds, beside those of the other one if there is one."""
    for name in found[HERE][0]:
        ours, theirs = ([one[name] for one in found[each]] if each else [] for each in (HERE, other))
        report(f"{of}: {name}", ours, "ms", beside=OTHER if other else "", theirs=theirs, goal=goals.get(name))


def one_round(checkout: Path) -> dict[str, float]:
    """The times of one burst, in milliseconds."""
    with serving(checkout, f"--max-queue={MAX_QUEUE}") as port:
        wait_until_ready(port)
        with looked_at(port) as measured:
            crowd = subprocess.run(_self("crowd", port), capture_output=True, check=True)
        told = json.loads(crowd.stdout)
        if not told["refused"] or told.get("without Retry-After"):
            raise RuntimeError(f"not as it should be: {told}")
        print(f"{told['refused']} of {CLIENTS} were refused", flush=True)
        return {**measured, "refusals, median": told["p50"], "the last refusal": told["last"]}


@contextmanager
def looked_at(port: int) -> Iterator[dict[str, float]]:
    """Looks at the server all the time; when the block is over, it has the times in milliseconds."""
    lookers = {path: subprocess.Popen(_self("look", port, path), stdout=subprocess.PIPE) for path in PATHS}
    measured: dict[str, float] = {}
    yield measured
    for path, looker in lookers.items():
        looker.terminate()
        times = json.loads(looker.communicate(timeout=30)[0])
        measured |= {f"{path}, median": _percentile(times, 50), f"{path}, {P99}": _percentile(times, 99)}


def _self(*arguments: object) -> list[str]:
    return [sys.executable, __file__, "--as", *map(str, arguments)]


@contextmanager
def serving(checkout: Path, *flags: str, says: str = "Server ready") -> Iterator[int]:
    """A server of this checkout, with a new state folder unless a flag names one; gives its port when it says so."""
    with tempfile.TemporaryDirectory(prefix="burst-") as folder:
        log = Path(folder) / "log"
        environ = os.environ | {"PYTHONPATH": str(checkout), "DEMO_API_STATE_DIR": f"{folder}/state"}
        command = [sys.executable, "-m", "demo_api", "serve", "--port", "0", "--drain", "0", "--stop-grace", "2"]
        with open(log, "wb") as output:
            server = subprocess.Popen(
                [*command, *flags],
                cwd=checkout,
                env=environ,
                stdout=output,
                stderr=output,
            )
        try:
            deadline = time.monotonic() + DEADLINE_SECONDS
            while not (ready := re.search(rf"{says} on http://127\.0\.0\.1:(\d+)", log.read_text())):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server did not start: {log.read_text()}")
                time.sleep(0.05)
            yield int(ready[1])
        finally:
            server.terminate()
            server.wait(DEADLINE_SECONDS)


def wait_until_ready(port: int) -> None:
    """Until one run has been answered: the child is warm then, as it is in use."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS * 3)
    body = json.dumps({"prompt": "Hello", "max_tokens": 2})
    connection.request("POST", "/chat", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"the first run failed: {answer.read()!r}")


def look(port: int, path: str) -> None:
    """Asks again and again until SIGTERM, and prints how long each answer took."""
    times: list[float] = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)

    def end(*_: Any) -> None:
        print(json.dumps(times), flush=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        began = time.perf_counter()
        connection.request("GET", path)
        connection.getresponse().read()
        times.append((time.perf_counter() - began) * 1000)
        time.sleep(0.005)


def crowd(port: int) -> None:
    """Connects all clients, lets them ask, and prints what the refused ones heard, when the last of them has."""
    selector, began, waiting = selectors.DefaultSelector(), {}, CLIENTS
    times: list[float] = []
    codes: Counter[str] = Counter()
    for number in range(CLIENTS):
        body = json.dumps({"prompt": f"client {number}", "max_tokens": 2}).encode()
        head = f"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        began[number] = time.perf_counter()
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ, number)
    deadline = time.monotonic() + DEADLINE_SECONDS
    # Those that were accepted wait for their turn: a few more than may wait, because the first batch leaves the queue.
    quiet = 0
    while waiting and time.monotonic() < deadline and quiet < 10:
        ready = selector.select(0.1)
        quiet = 0 if ready or not times else quiet + 1
        for key, _ in ready:
            connection = key.fileobj  # type: ignore[assignment]
            answer = connection.recv(2**16)
            codes[answer[9:12].decode()] += 1
            if answer[9:12] == b"503":
                times.append((time.perf_counter() - began[key.data]) * 1000)
                if b"retry-after" not in answer.lower():
                    codes["without Retry-After"] += 1
            selector.unregister(connection)
            connection.close()
            waiting -= 1
    told = {"p50": _percentile(times, 50), "last": max(times, default=math.nan), "refused": codes["503"], **codes}
    print(json.dumps(told))


def _percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)] if values else math.nan


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as"]:
        role, port_number, *rest = sys.argv[2:]
        {"look": look, "crowd": crowd}[role](int(port_number), *rest)  # type: ignore[operator]
    else:
        main()
