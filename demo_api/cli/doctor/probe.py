"""Starts short-lived processes in the child's interpreter, to find out which packages it has."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from demo_api.cli.doctor import source
from demo_api.config import Settings
from demo_api.demo import command, home
from demo_api.demo.home import ResolvedDemo
from demo_api.demo.run_folder import RunFolder
from demo_api.errors import SetupError, ShuttingDown
from demo_api.process.child import Child
from demo_api.process.output import last_line
from demo_api.process.stopping import CurrentChild, Stopped

PROBE_SECONDS = 60.0
"""How long the child's interpreter may take to tell what it has: a cold disk is slow."""

MOST_SHOWN = 300
"""Characters of what a process said that a finding shows."""

_PROBE_GRACE = 1.0
_MOST_OUTPUT = 2**22
_PROBE = Path(__file__).with_name("in_child.py")


@dataclass(frozen=True)
class Said:
    """How a process ended, and what it printed.

    Attributes:
        exit_code: negative for the signal that killed it.
        stopped: ``timed_out``, ``output_too_large``, or None when it ended by itself.
    """

    exit_code: int
    stopped: str | None
    stdout: str
    stderr: str

    def last_words(self) -> str:
        """The last line that it printed, on one line and without control characters."""
        return last_line(f"{self.stdout}\n{self.stderr}")[:MOST_SHOWN]


@dataclass(frozen=True)
class Probe:
    """What the child's interpreter has.

    Attributes:
        python: the interpreter.
        version: its version, such as (3, 10, 12).
        modules: versions by module, for those that the demo needs; None for one that is missing.
        models: where ``models.tt_transformers`` is found; see ``in_child.models``.
    """

    python: Path
    version: tuple[int, ...]
    modules: Mapping[str, str | None]
    models: Mapping[str, Any]


@dataclass(frozen=True)
class Setup:
    """What is examined: the settings, and where this machine tells of itself.

    Attributes:
        collect: whether the demo may be collected though that opens the device.
        device_files: the folder of the driver's device files.
        meminfo: the kernel's file about memory.
        one_gib_pages: the kernel's count of hugepages of 1 GiB.
        hugepages: where hugepages of 1 GiB are mounted.
        current: the process that is asked now; stopping it breaks the checks off.
    """

    settings: Settings
    collect: bool = False
    device_files: Path = Path("/dev/tenstorrent")
    meminfo: Path = Path("/proc/meminfo")
    one_gib_pages: Path = Path("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages")
    hugepages: Path = Path("/dev/hugepages-1G")
    current: CurrentChild = field(default_factory=CurrentChild)

    def child(self) -> Probe:
        """What the child's interpreter has. It is asked once.

        Raises:
            SetupError: there is no interpreter, or it did not answer.
        """
        if isinstance(self._probed, SetupError):
            raise self._probed
        return self._probed

    @cached_property
    def _probed(self) -> Probe | SetupError:
        try:
            return probe(self)
        except SetupError as error:
            return error


@contextmanager
def work_folder() -> Iterator[RunFolder]:
    """A run's folder, outside of the state folder, that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="demo-api-doctor-", ignore_cleanup_errors=True) as path:
        yield RunFolder(Path(path))


def listen(
    argv: Sequence[str],
    setup: Setup,
    folder: RunFolder,
    *,
    seconds: float,
    grace: float,
    selection: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Said:
    """Runs a command in the demo home, with the child's environment, until it and all that it started are gone.

    Args:
        seconds: after which it is stopped.
        grace: seconds that it has after SIGINT.
        selection: what selects the device.

    Raises:
        SetupError: it could not be started.
        ShuttingDown: the checks are interrupted.
    """
    settings = setup.settings

    def spawn() -> Child:
        return Child(
            argv,
            cwd=settings.demo_home,
            env=command.environment(demo_of(settings, folder), selection or {}, folder)
            | {"PYTHONDONTWRITEBYTECODE": "1"},
            stdout=folder.stdout,
            stderr=folder.stderr,
            mark=("DEMO_API_DOCTOR", folder.path.name),
            pass_fds=pass_fds,
            grace=grace,
        )

    try:
        child = setup.current.spawn(spawn)
    except OSError as error:
        raise SetupError(
            f"{argv[0]} could not be started in {settings.demo_home}: {error.strerror}.",
            next_step="Set DEMO_API_PYTHON to a Python that this machine can run.",
        ) from None
    except Stopped:
        raise broken_off() from None
    ended = child.follow(timeout_s=seconds, max_output=_MOST_OUTPUT, on_output=lambda _stream, _chunk: None)
    if ended.stopped == "stopped":
        raise broken_off()
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in (folder.stdout, folder.stderr)]
    return Said(ended.exit_code, ended.stopped, *texts)


def broken_off() -> ShuttingDown:
    """What ends the checks when the user breaks them off."""
    return ShuttingDown("The checks were interrupted.", next_step="Run `demo-api doctor` again.")


def probe(setup: Setup) -> Probe:
    """Asks the child's interpreter what it has.

    Raises:
        SetupError: there is no interpreter, or it did not answer.
        ShuttingDown: the checks are interrupted.
    """
    settings = setup.settings
    python = home.interpreter(settings)
    names = source.imported(settings.demo_home / home.SCRIPT) - {"models"} | {"pytest", "loguru"}
    names.add("xllamacpp" if settings.is_cpu_demo else "numpy")
    with work_folder() as folder:
        argv = [str(python), "-c", _PROBE.read_text(encoding="utf-8"), *sorted(names)]
        said = listen(argv, setup, folder, seconds=PROBE_SECONDS, grace=_PROBE_GRACE)
    try:
        answer = json.loads(said.stdout.splitlines()[-1])
        return Probe(python, tuple(answer["version"]), answer["modules"], answer["models"])
    except (ValueError, IndexError, KeyError, TypeError):
        how = f"no answer within {PROBE_SECONDS:g} s" if said.stopped else f"exit code {said.exit_code}"
        raise SetupError(
            f"The child's interpreter {python} could not be examined: {how}, {said.last_words()}",
            next_step=f"Try `{python} -c 'print(1)'`; set DEMO_API_PYTHON to the Python that tt-metal uses.",
        ) from None


def demo_of(settings: Settings, folder: RunFolder) -> ResolvedDemo:
    """The demo as a run would find it, even where no run could.

    A missing model has a line of its own in the report, and must not hide what else is wrong: so there is a stand-in.
    """
    try:
        variable, model = home.model_variable(settings)
    except SetupError:
        (folder.path / "none.gguf").touch()
        stand_in = settings.model_copy(update={"llama_dir": folder.path, "hf_model": "none"})
        variable, model = home.model_variable(stand_in)
    return ResolvedDemo(
        home=settings.demo_home,
        python=home.interpreter(settings),
        model_variable=variable,
        model=model,
        context_length=home.context_length(model),
        is_cpu_demo=settings.is_cpu_demo,
        takes_lists=home.takes_lists(settings),
        takes_seed=home.takes_seed(settings),
        model_files=(),
        inherited=settings.inherited,
    )
