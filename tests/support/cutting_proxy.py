"""A proxy that loses connections: at a word of the server, or when a test cuts it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from support.waiting import join


class CuttingProxy:
    """Passes connections on to a server, in threads, until ``close``.

    Args:
        url: of the server.
        cuts: for each connection, in order, what the server says last before it is ended; later ones are left alone.

    Attributes:
        url: where clients find it.
        connections: how many there were.
    """

    def __init__(self, url: str, cuts: Sequence[bytes] = ()) -> None:
        self._server = (urlsplit(url).hostname, urlsplit(url).port)
        self._cuts = list(cuts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._is_cut = False
        self._flows = threading.Event()
        self._flows.set()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def cut(self) -> None:
        """Ends all connections, and each new one at once, until ``mend``."""
        self._is_cut = True
        for connection in self._open:
            _shut(connection)

    def stall(self) -> None:
        """Passes nothing on any more, without a word, until ``mend``: as a cable that was pulled out."""
        self._flows.clear()

    def mend(self) -> None:
        """Passes on again what connects, and what was held up."""
        self._is_cut = False
        self._flows.set()

    def close(self) -> None:
        """Ends all connections and takes no more."""
        self.cut()
        self._flows.set()
        _shut(self._listener)
        self._listener.close()
        join(*self._threads)
        for connection in self._open:
            connection.close()

    def _start(self, target: object, *arguments: object) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments))  # type: ignore[arg-type]
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):  # until it is closed
            while True:
                client, _ = self._listener.accept()
                if self._is_cut:
                    client.close()
                    continue
                self.connections += 1
                server = socket.create_connection(self._server)
                self._open += [client, server]
                self._start(self._pass_on, client, server, None)
                self._start(self._pass_on, server, client, self._cuts.pop(0) if self._cuts else None)

    def _pass_on(self, source: socket.socket, target: socket.socket, cut: bytes | None) -> None:
        said = b""
        with suppress(OSError):
            while data := source.recv(65536):
                said += data
                self._flows.wait()
                if cut is not None and cut in said:
                    end = said.index(cut) + len(cut) - (len(said) - len(data))
                    target.sendall(data[: max(0, end)])
                    break
                target.sendall(data)
        _shut(source)
        _shut(target)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # it may be over
        connection.shutdown(socket.SHUT_RDWR)
