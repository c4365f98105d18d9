"""Many clients in one process, which all ask /chat at once: ``crowd.py PORT CLIENTS`` prints their answers as JSON.

One thread and plain sockets, because it shares the processors with the server that it measures.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections.abc import Iterator

GIVE_UP_SECONDS = 240


def crowd(port: int, clients: int) -> Iterator[dict[str, object]]:
    """Yields each client's answer as it comes."""
    selector = selectors.DefaultSelector()
    start = time.monotonic()
    for number in range(clients):
        connection = socket.create_connection(("127.0.0.1", port))
        body = json.dumps({"prompt": f"client {number}"}).encode()
        head = f"POST /chat HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        connection.sendall(head.encode() + b"\r\nConnection: close\r\n\r\n" + body)
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ, (number, bytearray()))
    while selector.get_map():
        ready = selector.select(max(0.0, start + GIVE_UP_SECONDS - time.monotonic()))
        if not ready:
            return
        for key, _ in ready:
            number, received = key.data
            assert isinstance(key.fileobj, socket.socket)
            piece = key.fileobj.recv(2**16)
            received += piece
            if not piece:
                selector.unregister(key.fileobj)
                key.fileobj.close()
                yield _read(number, bytes(received), time.monotonic() - start)


def _read(number: int, received: bytes, seconds: float) -> dict[str, object]:
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return {
        "client": number,
        "status": int(status.split()[1]),
        "retry_after": headers.get("retry-after"),
        "body": json.loads(body),
        "seconds": seconds,
    }


if __name__ == "__main__":
    json.dump(list(crowd(int(sys.argv[1]), int(sys.argv[2]))), sys.stdout)
