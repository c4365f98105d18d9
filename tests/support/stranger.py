"""Another program than ours on a port: it gives everybody the same answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from support.waiting import join


class _Handler(BaseHTTPRequestHandler):
    status: int
    body: bytes
    own_headers: Mapping[str, str]

    def do_GET(self) -> None:
        self.send_response(self.status)
        for name, value in {**self.own_headers, "Content-Length": str(len(self.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_words: object) -> None:
        pass


@contextmanager
def strangers() -> Iterator[Callable[..., str]]:
    """Starts such programs, which run until the end of the block, and gives their addresses."""
    running = []

    def start(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> str:
        answer = {"status": status, "body": body, "own_headers": headers or {}}
        server = HTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), answer))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in running:
        server.shutdown()
        join(thread)
        server.server_close()
