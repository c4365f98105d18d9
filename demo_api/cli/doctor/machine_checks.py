"""Checks of this machine: the accelerator, room on its disks, and the port."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

from demo_api.cli.doctor.finding import Finding, error, ok, warning
from demo_api.cli.doctor.model_files import hub_cache
from demo_api.cli.doctor.probe import Setup
from demo_api.client import Client
from demo_api.config import Settings
from demo_api.demo import home
from demo_api.demo import small_model as weights
from demo_api.demo.run_folder import RunFolder
from demo_api.devices.lock import devices_of
from demo_api.devices.reset import holders
from demo_api.errors import SetupError
from demo_api.process.output import printable

MIB, GIB = 2**20, 2**30
_LIVEZ_SECONDS = 1.0


def device_files(setup: Setup) -> Finding:
    """Whether the driver's files are there, and this user may open them. None is opened."""
    folder = setup.device_files
    files = sorted(file for file in folder.iterdir() if not file.is_dir()) if folder.is_dir() else []
    if not files:
        return error(
            f"There are no device files in {folder}: this machine shows no Tenstorrent device.",
            f"Load the driver (`sudo modprobe tenstorrent`); start a container with --device {folder}.",
        )
    closed = [str(file) for file in files if not os.access(file, os.R_OK | os.W_OK)]
    if closed:
        sentence = f"This user may not open {', '.join(closed)}."
        return error(sentence, f"Look at `ls -l {folder}`, and join the group that owns them.")
    return ok(", ".join(map(str, files)))


def device_use(setup: Setup) -> Finding:
    """Whether a run, or any other program, uses a device."""
    used_by = in_use(setup)
    if used_by:
        next_step = "Wait for it to end, or stop that program: until then, every run waits or fails."
        return warning(f"In use by {', '.join(used_by)}.", next_step)
    return ok("No device is in use.")


def in_use(setup: Setup) -> list[str]:
    """Who holds a device: runs, by the locks of the state folder, and processes that have a device file open."""
    runs = [
        f"{'a warm child' if device.waiting() else 'a run'} on the device {device.name}"
        for device in devices_of(setup.settings)
        if device.has_child() or device.has_server()
    ]
    return runs + ([] if setup.settings.is_cpu_demo else holders(setup.device_files))


def model_process(setup: Setup) -> Finding:
    """Whether a direct server lost the process of its model, and what that printed last. Old losses are pruned."""
    folders = [RunFolder(file.parent) for file in setup.settings.runs_dir.glob("*/lost.txt") if file.is_file()]
    if not folders:
        return ok("No direct server has lost its model.")
    latest = max(folders, key=lambda folder: folder.changed_at)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(latest.changed_at))
    times = f", the latest of {len(folders)} times" if len(folders) > 1 else ""
    reason = printable(latest.lost.read_text(encoding="utf-8", errors="replace"))
    return warning(
        f"A direct server lost its model at {when} UTC{times}. {reason}",
        f"Read what the model's process printed: {latest.stderr} and {latest.stdout.name}.",
    )


def hugepages(setup: Setup) -> Finding:
    """Whether there are hugepages of 1 GiB, mounted where tt-metal looks for them."""
    pages, mounted = _one_gib_pages(setup), setup.hugepages.is_dir()
    if pages and mounted:
        return ok(f"{pages} of 1 GiB, in {setup.hugepages}")
    seen = f"{pages or 'no'} pages of 1 GiB, and {setup.hugepages} is {'there' if mounted else 'not there'}"
    return warning(
        f"Wormhole wants hugepages of 1 GiB unless an IOMMU is in use: there are {seen}.",
        "Run Tenstorrent's hugepages-setup (tt-system-tools) and reboot; not needed if the demo runs by hand.",
    )


def _one_gib_pages(setup: Setup) -> int:
    memory = _text(setup.meminfo)
    if re.search(r"^Hugepagesize: +1048576 kB", memory, re.M):
        return int((re.findall(r"^HugePages_Total: +(\d+)", memory, re.M) or ["0"])[0])
    return int(_text(setup.one_gib_pages).strip() or 0)  # /proc/meminfo counts pages of the default size only


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def tt_smi(setup: Setup) -> Finding:
    """Whether a device that was not closed can be reset. ``tt-smi`` is not run: it opens the devices."""
    settings = setup.settings
    path = settings.inherited.get("PATH")
    program = shlex.split(settings.reset_command)[0] if settings.reset_command else None
    if program is not None and shutil.which(program, path=path) is None:
        sentence = f"DEMO_API_RESET_COMMAND starts with {program}, which is not a program on the PATH."
        return warning(sentence, "Set it to the full path of tt-smi, followed by -r.")
    if program is not None:
        return ok(f"The server resets devices with `{settings.reset_command}`.")
    found = shutil.which("tt-smi", path=path) or _beside_the_child(setup)
    if found is None:
        sentence = "tt-smi is not on the PATH: a device that was not closed cannot be reset."
        return warning(sentence, "Install tt-smi, and set DEMO_API_RESET_COMMAND to `tt-smi -r`.")
    sentence = f"{found} is there. The server resets no device by itself: DEMO_API_RESET_COMMAND is not set."
    return ok(sentence)


def _beside_the_child(setup: Setup) -> str | None:
    with suppress(SetupError):
        return shutil.which("tt-smi", path=str(setup.child().python.parent))
    return None


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
    with suppress(SetupError):
        variable, value = home.model_variable(settings)
        folder = Path(value) if variable == "LLAMA_DIR" else settings.demo_home / "model_cache"
        found.append(DiskSpace("weights", settings.demo_home / cache if cache else folder, "TT_CACHE_PATH", 20 * GIB))
        if variable == "HF_MODEL" and not Path(value).is_dir():
            found.append(DiskSpace("downloads", hub_cache(settings.inherited), "HF_HOME", 20 * GIB))
    return found


def judge_rooms(wanted: list[DiskSpace]) -> Finding:
    """The finding about these folders: the worst one, if any is a problem."""
    findings = [_judge(room) for room in wanted]
    for level in ("error", "warning"):
        for finding in findings:
            if finding.level == level:
                return finding
    return ok("; ".join(finding.sentence for finding in findings))


def _judge(room: DiskSpace) -> Finding:
    there = next(path for path in (room.folder, *room.folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        sentence = f"{room.folder} ({room.what}) cannot be written to: this user has no write permission in {there}."
        return error(sentence, f"Set {room.setting} to a folder that this user can write to.")
    free = shutil.disk_usage(there).free
    shown = f"{_size(free)} free for {room.what} in {room.folder}"
    if free < room.comfort:
        sentence = f"Only {shown}; at least {_size(room.comfort)} is recommended."
        make = error if free < room.least else warning
        return make(sentence, f"Make room there, or set {room.setting} to a folder on another disk.")
    return ok(shown)


def _size(number: int) -> str:
    return f"{number / GIB:.1f} GiB" if number >= GIB else f"{number / MIB:.0f} MiB"


def port(setup: Setup) -> Finding:
    """Whether the server's address is free. It is bound for a moment, and never listened on."""
    host, number = setup.settings.host, setup.settings.port
    if number == 0:
        return ok(f"{host}, any free port")
    address = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
    try:
        _bind(host, number)
    except OSError as problem:
        if _is_ours(address):
            sentence = f"A demo_api server answers on {address} already; a second one needs another port."
            return warning(sentence, "Use that one, or set DEMO_API_PORT (--port) for another.")
        reason = f"{problem.strerror or problem}{_used_by(number)}"
        sentence = f"The address {address} cannot be used: {reason}."
        return error(sentence, "Stop the program that uses it, or choose another with --host and --port.")
    return ok(f"{address} is free.")


def _bind(host: str, number: int) -> None:
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        with socket.socket(family, kind, protocol) as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind(address)


def _is_ours(address: str) -> bool:
    try:
        answer = Client(f"http://{address}", timeout=_LIVEZ_SECONDS).send("GET", "/livez")
    except requests.RequestException:
        return False
    return answer.ok and "X-Request-Id" in answer.headers


def _used_by(number: int) -> str:
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (number,)
            if listens and connection.pid:
                return f" by {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""
