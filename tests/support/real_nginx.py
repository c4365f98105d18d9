"""A real nginx with the project's configuration, on free ports of loopback."""

from __future__ import annotations

import getpass
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import requests
from support.programs import program
from support.waiting import until

CONFIG = Path(__file__).parents[2] / "deploy" / "nginx.conf"
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Nginx:
    """nginx before servers. ``deploy/nginx.conf`` with other ports, paths and names, and nothing else.

    Args:
        folder: for all that it writes.
        servers: their addresses.
    """

    def __init__(self, folder: Path, *servers: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.certificate = folder / "demo-api.pem"
        self._plain, self._tls = _free_ports(2)
        self.url = f"https://localhost:{self._tls}"
        self.plain_url = f"http://127.0.0.1:{self._plain}"
        self._config = folder / "nginx.conf"
        self._program = program("nginx", "nginx-light")
        self._make_certificate()
        self.stand_before(*servers)

    def stand_before(self, *servers: str) -> None:
        """Writes the configuration for these servers."""
        text = CONFIG.read_text()
        listed = "\n".join(f"server {urlsplit(server).netloc};" for server in servers)
        temporary = "\n".join(f"{name}_temp_path {self.folder}/{name};" for name in _TEMPORARY)
        for pattern, ours in (
            (r"(?<=^user )\S+(?=;)", getpass.getuser()),  # www-data cannot look into our folder
            (r"(?<=^worker_processes )auto", "1"),
            (r"/run/(?=nginx\.pid)", f"{self.folder}/"),
            (r"/var/log/nginx/", f"{self.folder}/"),
            (r"/etc/ssl/(certs|private)/", f"{self.folder}/"),
            (r"(?<=listen )443(?= ssl)", f"127.0.0.1:{self._tls}"),
            (r"(?<=listen )80(?= )", f"127.0.0.1:{self._plain}"),
            (r"demo\.example\.com", "localhost"),
            (r"(?<=^        )server 127\.0\.0\.1:8080;", listed),
            (r"^http \{", f"http {{\n{temporary}"),
        ):
            text, found = re.subn(pattern, lambda _, ours=ours: ours, text, flags=re.MULTILINE)
            assert found, pattern
        self._config.write_text(text)

    def check(self) -> subprocess.CompletedProcess[str]:
        """What nginx says of the configuration."""
        return subprocess.run([*self._command(), "-t"], capture_output=True, text=True, check=False)

    @contextmanager
    def running(self) -> Iterator[requests.Session]:
        """nginx, until the end of the block. Gives a client that trusts its certificate."""
        process = subprocess.Popen([*self._command(), "-g", "daemon off;"], stderr=subprocess.PIPE, text=True)
        try:
            until(lambda: self._listens() or process.poll() is not None)
            assert process.poll() is None, process.communicate(timeout=30)[1]
            with requests.Session() as session:
                session.trust_env = False  # which may name other certificates
                session.verify = str(self.certificate)
                yield session
        finally:
            process.terminate()
            process.communicate(timeout=30)

    def reload(self) -> None:
        """Takes the configuration anew. Returns when the last request is answered that began with the old one."""
        before = self._workers()
        subprocess.run([*self._command(), "-s", "reload"], check=True, capture_output=True)
        until(lambda: self._workers() and not self._workers() & before)

    def _workers(self) -> set[psutil.Process]:
        return set(psutil.Process(int((self.folder / "nginx.pid").read_text())).children())

    def log(self) -> str:
        return (self.folder / "demo-api.log").read_text()

    def _command(self) -> list[str]:
        return [self._program, "-e", "stderr", "-c", str(self._config)]

    def _listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self._tls)) == 0

    def _make_certificate(self) -> None:
        command = [program("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt"]
        command += ["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        command += ["-addext", "subjectAltName=DNS:localhost", "-out", str(self.certificate)]
        subprocess.run([*command, "-keyout", str(self.folder / "demo-api.key")], check=True, capture_output=True)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
