"""What a child's startup (interpreter, imports, collection) costs, and what parts of it could be left out.

    python benchmarks/startup.py [ROUNDS]

Each way starts the CPU edition's demo as the server does and stops after collection. The ways take turns; each is
compared to the server's way of the same round, by processor time (user and system), which other programs disturb less
than wall time.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import report

from demo_api.config import Settings
from demo_api.demo import command, home
from demo_api.demo.run_folder import RunFolder

USUAL = "as the server does"
WAYS: dict[str, tuple[list[str], dict[str, str]]] = {
    USUAL: ([], {}),
    "with this environment's plugins": ([], {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": ""}),
    "no cache provider": (["-p", "no:cacheprovider"], {}),
    "no assertion rewriting": (["--assert=plain"], {}),
    "no JUnit report": (["-p", "no:junitxml"], {}),
    "no bytecode caches": ([], {"PYTHONPYCACHEPREFIX": "(new)"}),
}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    settings = Settings.load()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):  # the first round fills the caches
            for name, (words, environ) in WAYS.items():
                place = Path(folder) / f"{number}-{len(found[name])}-{abs(hash(name))}"
                place.mkdir()
                seconds = start(settings, RunFolder(place), words, environ)
                if number:
                    found[name].append(seconds)
    processor = {name: [one for one, _ in each] for name, each in found.items()}
    usual = processor.pop(USUAL)
    report("start-up of a child, wall time", [wall for _, wall in found[USUAL]], "s")
    report("start-up of a child, processor time", usual, "s")
    for name, times in processor.items():
        report(f"start-up of a child, processor time, {name}", times, "s", beside=USUAL, theirs=usual)


def start(settings: Settings, folder: RunFolder, words: list[str], environ: dict[str, str]) -> tuple[float, float]:
    folder.write([], command.plugin_config("benchmark", folder.path.name))
    spec = command.launch_spec(home.resolve(settings), {}, folder, {})
    argv = [*spec.argv, "--collect-only", *words]
    if "no:junitxml" in words:
        argv = [word for word in argv if not word.startswith("--junitxml")]
    given = {name: str(folder.path / "pycache") if value == "(new)" else value for name, value in environ.items()}
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        argv,
        cwd=spec.cwd,
        env={**spec.environment, **given},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stdout.decode() + done.stderr.decode())
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


if __name__ == "__main__":
    main()
