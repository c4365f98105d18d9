"""A proxy that loses connections: it ends each when the server has said something."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit


class CuttingProxy:
    """Passes connections on to a server, in threads, until ``close``.

    Args:
        url: of the server.
        cuts: for each connection, in order, what the server says last before it is ended; later ones are left alone.
    """

    def __init__(self, url: str, cuts: Sequence[bytes]) -> None:
        self._server = (urlsplit(url).hostname, urlsplit(url).port)
        self._cuts = list(cuts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            cut = self._cuts.pop(0) if self._cuts else None
            threading.Thread(target=self._pass_on, args=(client, cut), daemon=True).start()

    def _pass_on(self, client: socket.socket, cut: bytes | None) -> None:
        with client, socket.create_connection(self._server) as server:
            threading.Thread(target=_copy, args=(client, server), daemon=True).start()
            said = b""
            while data := server.recv(65536):
                said += data
                if cut is not None and cut in said:
                    kept = said.index(cut) + len(cut) - (len(said) - len(data))
                    client.sendall(data[: max(0, kept)])
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(data)


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        return
