"""The folder of a batch: its prompts while the child runs, its logs afterwards, and when old folders are removed."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from stat import S_ISLNK

from demo_api.demo.readable import readable
from demo_api.errors import SetupError, StorageFull

logger = logging.getLogger(__name__)

_NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")  # a batch's id: see queue/rows.py

SECONDS_A_DAY = 86_400
JUST_ENDED_SECONDS = 60
"""A run and its log are not removed so soon, however few are to be kept: a client may be about to read them."""

_ROOM_BYTES = 2**20


@dataclass(frozen=True)
class RunFolder:
    """The folder of one batch, named by its id, readable by its owner only."""

    path: Path

    @classmethod
    def create(cls, runs: Path, batch_id: str) -> RunFolder:
        """Makes the folder below ``runs``, mode 0700.

        Raises:
            OSError: no space, no permission, or the batch's folder is there already.
        """
        runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = runs / batch_id
        path.mkdir(mode=0o700)
        return cls(path)

    @property
    def prompts(self) -> Path:
        """The demo's prompt file; there while the child is."""
        return self.path / "prompts.json"

    @property
    def plugin_config(self) -> Path:
        """What the plugin is to do; there until the run has ended, so it tells a run that was cut off."""
        return self.path / "child.json"

    @property
    def stdout(self) -> Path:
        """What the child printed to stdout: pytest's report."""
        return self.path / "stdout.txt"

    @property
    def stderr(self) -> Path:
        """What the child printed to stderr: the demo's log."""
        return self.path / "stderr.txt"

    @property
    def junit(self) -> Path:
        """Pytest's JUnit report."""
        return self.path / "junit.xml"

    @property
    def lost(self) -> Path:
        """Why the direct engine lost the process of its model, in a sentence; there only if it did."""
        return self.path / "lost.txt"

    def tell_lost(self, sentence: str) -> None:
        """Writes that down, if the disk takes it."""
        with suppress(OSError):
            _write_private(self.lost, sentence)

    @property
    def changed_at(self) -> float:
        """Unix seconds; 0 for one that cannot be read: another server may have removed it meanwhile."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return 0.0

    def write(self, prompts: list[str], config: dict[str, object]) -> None:
        """Writes both. The config comes first: prompts without one may be removed by anybody."""
        self.write_plugin_config(config)
        self.write_prompts(prompts)

    def write_plugin_config(self, config: dict[str, object]) -> None:
        """Writes what the plugin is to do, mode 0600."""
        _write_private(self.path / "new", json.dumps(config, ensure_ascii=True))
        (self.path / "new").rename(self.plugin_config)  # it is there whole or not at all

    def write_prompts(self, prompts: list[str]) -> None:
        """Writes the demo's prompt file, mode 0600.

        The demo opens the file in the locale's encoding, so it is ASCII; and it downloads what a ``context`` key names,
        so there is no key but ``prompt``.
        """
        _write_private(self.prompts, json.dumps([{"prompt": prompt} for prompt in prompts], ensure_ascii=True))

    def replace_prompts(self, prompts: list[str]) -> None:
        """Writes the prompt file anew. A child that has just left has removed the old one."""
        self.prompts.unlink(missing_ok=True)
        self.write_prompts(prompts)

    def child_id(self, device: str) -> str | None:
        """The mark of the child of a run that was cut off on this device; None where none was.

        A damaged file, as a power cut leaves it, names neither: the run is taken to be this device's, and the child to
        be its own. The caller has the device's lock, or knows that the batch is lost.
        """
        try:
            config = json.loads(self.plugin_config.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, RecursionError):
            config = None
        if not isinstance(config, dict):
            logger.error("%s is damaged: its run counts as cut off", self.plugin_config)
            return self.path.name
        return str(config.get("child", self.path.name)) if config.get("device", device) == device else None

    def forget_prompts(self) -> None:
        """Removes what was only there for the child. What cannot be removed is set aside, or counts as removed."""
        for path in (self.prompts, self.plugin_config):
            try:
                path.unlink(missing_ok=True)
            except OSError:
                set_aside(path)

    def remove(self) -> None:
        """Removes all of it, for a child that was never told a batch."""
        shutil.rmtree(self.path, ignore_errors=True)

    def readable_log(self) -> str:
        """What the child printed, for a person: the log (stderr), then pytest's report (stdout)."""
        return _readable_file(self.stderr) + _readable_file(self.stdout)


def check_state_folder(path: Path) -> None:
    """Makes the state folder if need be.

    Raises:
        SetupError: it cannot be made or written into, or another user has planted a symbolic link.
    """
    refuse_links(path)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds prompts
        reason = None if os.access(path, os.W_OK | os.X_OK) else "Permission denied"
    except OSError as error:
        reason = error.strerror
    if reason:
        raise _unusable(path, reason)


def refuse_links(folder: Path) -> None:
    """Raises SetupError if the state folder, or anything in it, is a symbolic link that another user has made.

    What is written through it would be written into whatever file that user has chosen.
    """
    for path in chain([folder], folder.glob("*")):
        try:
            status = path.lstat()
        except OSError:  # it is not there, or no longer
            continue
        if S_ISLNK(status.st_mode) and status.st_uid not in (0, os.geteuid()):
            raise SetupError(
                f"{path} is a symbolic link that another user has made.",
                next_step="Set --state-dir (DEMO_API_STATE_DIR) to a folder that only you can write into.",
            )


def _unusable(path: Path, reason: str | None) -> SetupError:
    return SetupError(
        f"The state folder {path} cannot be used: {reason}.",
        next_step="Set --state-dir (DEMO_API_STATE_DIR) to a writable folder.",
    )


def check_room(path: Path) -> None:
    """Raises StorageFull if there is hardly room for a run's files, SetupError if the state folder is gone."""
    try:
        disk = os.statvfs(path)
    except OSError as error:
        raise _unusable(path, error.strerror) from None
    if disk.f_bavail * disk.f_frsize < _ROOM_BYTES:
        raise StorageFull(f"Less than {_ROOM_BYTES // 2**20} MiB is left on the disk of the state folder {path}.")


def set_aside(path: Path) -> None:
    """Renames what is not as this program left it, so that it is in nobody's way."""
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    try:
        path.rename(aside)
    except FileNotFoundError:  # somebody else has removed it
        return
    except OSError as error:
        logger.error("%s is not what it should be, and cannot be renamed: %s", path, error.strerror)
        return
    logger.error("%s is not what it should be; it was renamed to %s", path, aside.name)


def existing(runs: Path) -> list[RunFolder]:
    """The folders of runs, the newest first. What else somebody keeps there is not ours."""
    try:
        with os.scandir(runs) as entries:
            named = [entry for entry in entries if _NAME.fullmatch(entry.name)]
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        set_aside(runs)
        return []
    ours = []
    for entry in named:
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False) and os.access(path, os.R_OK | os.W_OK | os.X_OK):
            ours.append(RunFolder(path))
        else:
            set_aside(path)
    return sorted(ours, key=lambda folder: folder.changed_at, reverse=True)


def prune(folders: list[RunFolder], *, keep: int, days: float) -> None:
    """Removes all but the newest ``keep`` folders, and those older than ``days`` days; but none in which a run goes on,
    on whatever device, or has just ended.
    """
    now = time.time()
    for place, folder in enumerate(folders):
        age = now - folder.changed_at
        is_old = age > days * SECONDS_A_DAY or (place >= keep and age > JUST_ENDED_SECONDS)
        if is_old and not folder.plugin_config.exists():
            shutil.rmtree(folder.path, ignore_errors=True)


def _write_private(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8", errors="replace") as file:
        file.write(text)


def _readable_file(path: Path) -> str:
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        fd = file.fileno()
        return readable(os.fstat(fd).st_size, lambda start, end: os.pread(fd, end - start, start), f"is in {path}")
