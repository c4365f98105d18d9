"""Checks of this host: room on its disks, and the port."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from demo_api.cli.doctor.finding import Finding, error, ok, warning
from demo_api.cli.doctor.model_files import hub_cache
from demo_api.cli.doctor.setup import Setup
from demo_api.config import Settings
from demo_api.demo import home
from demo_api.demo import small_model as weights
from demo_api.errors import SetupError

MIB, GIB = 2**20, 2**30
_LIVEZ_SECONDS = 1.0


@dataclass(frozen=True)
class DiskSpace:
    """A folder that something is written into, and the free bytes that it should have.

    Attributes:
        setting: what chooses the folder.
        comfort: with fewer it is worth a look.
        least: with fewer nothing can be run.
    """

    what: str
    folder: Path
    setting: str
    comfort: int
    least: int = 0


def disk(setup: Setup) -> Finding:
    """Whether there is room for what runs write."""
    return judge_rooms(rooms(setup.settings))


def rooms(settings: Settings) -> list[DiskSpace]:
    """The folders that a run of this demo home writes into."""
    found = [DiskSpace("state", settings.state_dir, "DEMO_API_STATE_DIR", GIB, 64 * MIB)]
    if settings.is_cpu_demo:
        if settings.llama_dir is None and settings.hf_model is None and weights.find(settings.model_dir) is None:
            found.append(DiskSpace("model", settings.model_dir, "DEMO_API_MODEL_DIR", 300 * MIB, 200 * MIB))
        return found
    cache = settings.inherited.get("TT_CACHE_PATH")
    with suppress(SetupError, RuntimeError):
        variable, value = home.model_variable(settings)
        folder = Path(value) if variable == "LLAMA_DIR" else settings.demo_home / "model_cache"
        found.append(DiskSpace("weights", settings.demo_home / cache if cache else folder, "TT_CACHE_PATH", 20 * GIB))
        if variable == "HF_MODEL" and not Path(value).is_dir():
            found.append(DiskSpace("downloads", hub_cache(settings.inherited), "HF_HOME", 20 * GIB))
    return found


def judge_rooms(wanted: list[DiskSpace]) -> Finding:
    """The finding about these folders; the first that lacks most is the one that is told."""
    findings = [_judge(room) for room in wanted]
    for level in ("error", "warning"):
        for finding in findings:
            if finding.level == level:
                return finding
    return ok("disk", "; ".join(finding.sentence for finding in findings))


def _judge(room: DiskSpace) -> Finding:
    there = next(path for path in (room.folder, *room.folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        sentence = f"{room.folder} ({room.what}) cannot be written into: {there} is no folder of this user's."
        return error("disk", sentence, f"Set {room.setting} to a folder that can be written into.")
    free = shutil.disk_usage(there).free
    told = f"{_size(free)} free for {room.what} in {room.folder}"
    if free < room.comfort:
        sentence = f"Only {told}; {_size(room.comfort)} would be enough."
        make = error if free < room.least else warning
        return make("disk", sentence, f"Make room there, or set {room.setting} to a folder on another disk.")
    return ok("disk", told)


def _size(number: int) -> str:
    return f"{number / GIB:.1f} GiB" if number >= GIB else f"{number / MIB:.0f} MiB"


def port(setup: Setup) -> Finding:
    """Whether the server's address is free. It is bound for a moment, and never listened on."""
    host, number = setup.settings.host, setup.settings.port
    if number == 0:
        return ok("port", f"{host}, any free port")
    address = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
    try:
        _bind(host, number)
    except OSError as problem:
        if _is_ours(host, number):
            sentence = f"A demo_api server answers on {address} already; a second one needs another port."
            return warning("port", sentence, "Use that one, or set DEMO_API_PORT (--port) for another.")
        reason = f"{problem.strerror or problem}{_used_by(number)}"
        sentence = f"The address {address} cannot be used: {reason}."
        return error("port", sentence, "Stop the program that uses it, or choose another with --host and --port.")
    return ok("port", f"{address} is free.")


def _bind(host: str, number: int) -> None:
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        with socket.socket(family, kind, protocol) as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind(address)


def _is_ours(host: str, number: int) -> bool:
    connection = http.client.HTTPConnection(host, number, timeout=_LIVEZ_SECONDS)
    try:
        connection.request("GET", "/livez")
        answer = connection.getresponse()
        return answer.status == 200 and answer.getheader("X-Request-Id") is not None
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _used_by(number: int) -> str:
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (number,)
            if listens and connection.pid:
                return f" by {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""
