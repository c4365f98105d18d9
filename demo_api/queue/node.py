"""A node: one state folder on one host. It has a name of its own, so that the database can tell its devices apart."""

from __future__ import annotations

import os
import re
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from demo_api.demo.run_folder import check_state_folder, set_aside
from demo_api.errors import SetupError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Node:
    """What the servers of one state folder share: the locks of their devices, and the folders of their runs.

    Attributes:
        name: the host's name, or the one that it has for people, and random digits.
    """

    name: str

    @classmethod
    def of(cls, state_dir: Path, host: str | None = None) -> Node:
        """The node of this folder. Its first server names it, in the file ``node``.

        Args:
            host: with what the name of a new node begins; default: the host's name.

        Raises:
            SetupError: the folder cannot be used.
        """
        check_state_folder(state_dir)
        path = state_dir / "node"
        try:
            return cls(_read(path) or _make(path, host or socket.gethostname()))
        except OSError as error:
            raise SetupError(
                f"The file {path} cannot be used: {error.strerror}.",
                next_step="Set --state-dir (DEMO_API_STATE_DIR) to a writable folder.",
            ) from None

    def device(self, name: str) -> str:
        """The device's name in the database: ``node/device``, which may also be given, for that of another node."""
        return name if "/" in name else f"{self.name}/{name}"

    def names(self, device: str) -> list[str]:
        """All names that the device may have in the database: before there were nodes, it had its own name only."""
        return [self.device(device), device]


def _read(path: Path) -> str | None:
    if path.is_symlink() or (path.exists() and not path.is_file()):  # to read a pipe would take for ever
        set_aside(path)
    try:
        name = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    if _NAME.fullmatch(name):
        return name
    set_aside(path)
    return None


def _make(path: Path, host: str) -> str:
    """Makes the file. Of several servers that try, one succeeds, and the others take its name."""
    new = path.with_name(f"node.{secrets.token_hex(8)}")
    try:
        with open(new, "x", encoding="ascii") as file:
            file.write(f"{re.sub('[^A-Za-z0-9_-]', '-', host)[:32]}-{secrets.token_hex(4)}\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(new, path)  # it is there whole or not at all, and replaces none
    finally:
        new.unlink(missing_ok=True)
    return path.read_text(encoding="ascii").strip()
