"""How many requests a second each route answers: this checkout against another one, in turns.

    python benchmarks/routes.py [OTHER_CHECKOUT [ROUNDS]]

Eight clients ask again and again, each on one connection, for a few seconds. At most 1,000 runs may wait: a ``POST
/runs`` is accepted until then, and refused after that. The demo's children run beside all this, as they do in use.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from pathlib import Path

from burst import HERE, serving
from figures import OTHER, report

CLIENTS = 8
SECONDS = 3.0
ROUTES = ("GET /livez", "GET /health", "POST /runs", "GET /runs?limit=20")
GOALS = {"GET /health": 1000, "POST /runs": 600, "GET /runs?limit=20": 800}


def main() -> None:
    other = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    found: dict[Path, dict[str, list[float]]] = {}
    for number in range(rounds):
        for checkout in filter(None, (other, HERE)):
            rates = one_round(checkout)
            for name, rate in rates.items():
                found.setdefault(checkout, {}).setdefault(name, []).append(rate)
            print(f"round {number + 1}, {checkout}: {_shown(rates)}", flush=True)
    for name in ROUTES:
        theirs = found[other][name] if other else []
        report(
            f"{name}, {CLIENTS} clients",
            found[HERE][name],
            "requests/s",
            beside=OTHER if other else "",
            theirs=theirs,
            goal=GOALS.get(name),
            more_is_better=True,
        )


def _shown(rates: dict[str, float]) -> str:
    return ", ".join(f"{name} {rate:.0f} /s" for name, rate in rates.items())


def one_round(checkout: Path) -> dict[str, float]:
    """Answers a second, by route."""
    with serving(checkout, "--max-queue=1000") as port:
        return {route: rate(port, *route.split()) for route in ROUTES}


def rate(port: int, method: str, path: str) -> float:
    """Answers a second."""
    counts = [0] * CLIENTS
    ends = time.monotonic() + SECONDS

    def ask(client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.monotonic() < ends:
            body = json.dumps({"prompt": "Hello", "max_tokens": 2048}) if method == "POST" else None
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            connection.getresponse().read()
            counts[client] += 1

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    return sum(counts) / SECONDS


if __name__ == "__main__":
    main()
