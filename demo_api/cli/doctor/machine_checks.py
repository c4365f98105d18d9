"""Checks of the accelerator: its driver's files, who uses it, and what belongs to it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

from demo_api.cli.doctor.finding import Finding, error, ok, warning
from demo_api.cli.doctor.setup import Setup
from demo_api.devices.lock import devices_of
from demo_api.devices.reset import holders
from demo_api.errors import SetupError


def device_files(setup: Setup) -> Finding | None:
    """Whether the driver's files are there, and this user may open them. None is opened."""
    if setup.settings.is_cpu_demo:
        return None
    folder = setup.device_files
    files = sorted(file for file in folder.iterdir() if not file.is_dir()) if folder.is_dir() else []
    if not files:
        return error(
            "device_files",
            f"There are no device files in {folder}: this machine shows no Tenstorrent device.",
            f"Load the driver (`sudo modprobe tenstorrent`); start a container with --device {folder}.",
        )
    closed = [str(file) for file in files if not os.access(file, os.R_OK | os.W_OK)]
    if closed:
        sentence = f"This user may not open {', '.join(closed)}."
        return error("device_files", sentence, f"See `ls -l {folder}`, and join the group that may.")
    return ok("device_files", ", ".join(map(str, files)))


def device_use(setup: Setup) -> Finding:
    """Whether a run, or any other program, holds a device."""
    used_by = in_use(setup)
    if used_by:
        next_step = "Wait for the run to end, or end that program: it keeps every run waiting, or makes it fail."
        return warning("device_use", f"In use by {', '.join(used_by)}.", next_step)
    return ok("device_use", "Nothing holds a device.")


def in_use(setup: Setup) -> list[str]:
    """Who holds a device: runs, by the locks of the state folder, and processes that have a device file open."""
    runs = [
        f"{'a child that waits' if device.waiting() else 'a run'} on the device {device.name}"
        for device in devices_of(setup.settings)
        if device.has_child() or device.has_server()
    ]
    return runs + ([] if setup.settings.is_cpu_demo else holders(setup.device_files))


def hugepages(setup: Setup) -> Finding | None:
    """Whether there are hugepages of 1 GiB, mounted where tt-metal looks for them."""
    if setup.settings.is_cpu_demo:
        return None
    pages, mounted = _one_gib_pages(setup), setup.hugepages.is_dir()
    if pages and mounted:
        return ok("hugepages", f"{pages} of 1 GiB, in {setup.hugepages}")
    seen = f"{pages or 'no'} pages of 1 GiB, and {setup.hugepages} is {'there' if mounted else 'not there'}"
    return warning(
        "hugepages",
        f"Wormhole wants hugepages of 1 GiB unless an IOMMU is in use: there are {seen}.",
        "Run Tenstorrent's hugepages-setup (tt-system-tools) and reboot; needless if the demo runs by hand.",
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


def tt_smi(setup: Setup) -> Finding | None:
    """Whether a device that was not closed can be reset. ``tt-smi`` is not run: it opens the devices."""
    settings = setup.settings
    if settings.is_cpu_demo:
        return None
    path = settings.inherited.get("PATH")
    program = shlex.split(settings.reset_command)[0] if settings.reset_command else None
    if program is not None and shutil.which(program, path=path) is None:
        sentence = f"DEMO_API_RESET_COMMAND names {program}, which is no program on the PATH."
        return warning("tt_smi", sentence, "Set it to the whole path of tt-smi, and -r.")
    if program is not None:
        return ok("tt_smi", f"The server resets with `{settings.reset_command}`.")
    found = shutil.which("tt-smi", path=path) or _beside_the_child(setup)
    if found is None:
        sentence = "tt-smi is not on the PATH: a device that was not closed cannot be reset."
        return warning("tt_smi", sentence, "Install tt-smi, and set DEMO_API_RESET_COMMAND to `tt-smi -r`.")
    sentence = f"{found} is there. The server resets no device by itself: DEMO_API_RESET_COMMAND is not set."
    return ok("tt_smi", sentence)


def _beside_the_child(setup: Setup) -> str | None:
    child = setup.child
    return None if isinstance(child, SetupError) else shutil.which("tt-smi", path=str(child.python.parent))
