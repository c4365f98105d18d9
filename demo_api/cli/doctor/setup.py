"""What is examined."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from demo_api.cli.doctor import probe
from demo_api.config import Settings
from demo_api.errors import SetupError


@dataclass(frozen=True)
class Setup:
    """The settings, and where this machine tells of itself.

    Attributes:
        collect: whether the demo may be collected though that opens the device.
        device_files: the folder of the driver's device files.
        meminfo: the kernel's file about memory.
        one_gib_pages: the kernel's count of hugepages of 1 GiB.
        hugepages: where hugepages of 1 GiB are mounted.
    """

    settings: Settings
    collect: bool = False
    device_files: Path = Path("/dev/tenstorrent")
    meminfo: Path = Path("/proc/meminfo")
    one_gib_pages: Path = Path("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages")
    hugepages: Path = Path("/dev/hugepages-1G")

    @cached_property
    def child(self) -> probe.Probe | SetupError:
        """What the child's interpreter has, or why it does not tell. It is asked once."""
        try:
            return probe.probe(self.settings)
        except SetupError as error:
            return error
