"""Asks /health every 20 ms until its input ends: ``poller.py PORT`` prints how long each answer took, as JSON.

A request is due at its time whether or not the one before was answered late: otherwise the slowest answers would be the
ones that are measured least. ``late`` is what this process itself was behind its time, which is not the server's.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time

EVERY_SECONDS = 0.02


def poll(port: int, stopped: threading.Event) -> list[dict[str, float]]:
    answers: list[dict[str, float]] = []
    asking: list[threading.Thread] = []
    due = start = time.monotonic()
    while not stopped.wait(max(0.0, due - time.monotonic())):
        asking.append(threading.Thread(target=_ask, args=(port, due, start, answers)))
        asking[-1].start()
        due += EVERY_SECONDS
    for each in asking:
        each.join(90)  # each gives up after 60 s
    return sorted(answers, key=lambda each: each["at"])


def _ask(port: int, due: float, start: float, answers: list[dict[str, float]]) -> None:
    asked = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/health")
    answer = connection.getresponse()
    answer.read()
    ended = time.monotonic()
    connection.close()
    answers.append({"at": due - start, "late": asked - due, "seconds": ended - asked, "status": answer.status})


if __name__ == "__main__":
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set())).start()
    json.dump(poll(int(sys.argv[1]), over), sys.stdout)
