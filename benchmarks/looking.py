"""How soon ``/livez`` and ``/health`` answer while a direct server loads its model, and while it answers 8 clients.

    python benchmarks/looking.py [OTHER_CHECKOUT [ROUNDS]]

The model is that of the CPU edition, which uses all processors in both cases. With another checkout, both are measured
in turns.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from burst import HERE, P99, looked_at, report_each, serving

CLIENTS = 8
TOKENS = 256
DEADLINE_SECONDS = 120.0


def main() -> None:
    other = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    found: dict[Path, list[dict[str, float]]] = {}
    for number in range(rounds):
        for checkout in filter(None, (other, HERE)):
            measured = one_round(checkout)
            found.setdefault(checkout, []).append(measured)
            print(f"round {number + 1}, {checkout}: {_shown(measured)}", flush=True)
    goals = {name: 10.0 for name in found[HERE][0] if P99 in name}
    report_each("a direct server", found, other, goals)


def _shown(measured: dict[str, float]) -> str:
    return ", ".join(f"{name} {milliseconds:.1f} ms" for name, milliseconds in measured.items())


def one_round(checkout: Path) -> dict[str, float]:
    """The times, in milliseconds."""
    with serving(checkout, "--engine=direct", f"--slots={CLIENTS}", says="Listening") as port:
        with looked_at(port) as loading:
            wait_until_loaded(port)
        with looked_at(port) as decoding, ThreadPoolExecutor(CLIENTS) as clients:
            for tokens in clients.map(ask, [port] * CLIENTS):
                assert tokens == TOKENS, f"an answer had {tokens} tokens"
    return {
        f"{name}, {when}": times[name]
        for when, times in (("loading", loading), ("decoding", decoding))
        for name in times
    }


def wait_until_loaded(port: int) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
    status = 0
    while status != 200:
        if time.monotonic() > deadline:
            raise SystemExit("the model was not loaded in time")
        time.sleep(0.05)
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        answer.read()
        status = answer.status


def ask(port: int) -> int:
    """The tokens of one answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
    body = json.dumps({"prompt": "Tell me a story about a ship.", "max_tokens": TOKENS})
    connection.request("POST", "/chat", body, {"Content-Type": "application/json"})
    tokens: int = json.loads(connection.getresponse().read())["tokens_generated"]
    return tokens


if __name__ == "__main__":
    main()
