"""Servers that are not demo_api's, and answer one thing to everything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

NO_HEADERS: Mapping[str, str] = {}


@contextmanager
def strangers() -> Iterator[Callable[..., str]]:
    """Starts servers, which live until the end of the block, and gives their addresses."""
    with ExitStack() as running:

        def start(status: int, says: bytes, headers: Mapping[str, str] = NO_HEADERS) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.send_response(status)
                    for name, value in {**headers, "Content-Length": str(len(says))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(says)

                def do_POST(self) -> None:
                    self.rfile.read(int(self.headers["Content-Length"]))
                    self.do_GET()

                def log_message(self, *_: object) -> None:
                    pass

            server = running.enter_context(HTTPServer(("127.0.0.1", 0), Handler))
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            running.callback(thread.join)
            running.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield start
