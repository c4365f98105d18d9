"""Runs the CPU edition of the demo as real child processes, with the real small model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from support.waiting import until

HOME = Path(__file__).parents[2] / "demo_api" / "cpu_demo"
SCRIPT = Path("models/tt_transformers/demo/simple_text_demo.py")
DEMO = "models.tt_transformers.demo.simple_text_demo"


@dataclass
class Run:
    """What one run of the demo left: its exit code, its report, its records."""

    exit_code: int
    stdout: str
    records: list[dict]
    prompts: list[str]
    seconds: float

    @property
    def messages(self) -> list[str]:
        return [record["message"] for record in self.records]

    @property
    def iterations(self) -> int:
        return sum(re.match(r"Iteration \d+: ", message) is not None for message in self.messages)

    @property
    def answers(self) -> list[str]:
        """The answers of repeat batch 0."""
        found = []
        for user, prompt in enumerate(self.prompts):
            prefix = f"\n==REPEAT BATCH 0\n==USER {user} - PROMPT\n{prompt} \n==USER {user} - OUTPUT\n"
            found += [m[len(prefix) : -1] for m in self.messages if m.startswith(prefix) and m.endswith("\n")]
        return found

    def at(self, message: str) -> float:
        """The time of the first record that starts so."""
        return next(r["time"]["timestamp"] for r in self.records if r["message"].startswith(message))

    def number(self, pattern: str) -> float:
        """The number in the one message that matches."""
        (found,) = [m.group(1) for m in (re.fullmatch(pattern, message) for message in self.messages) if m]
        return float(found)


class Demo:
    """Starts the demo in a folder of its own."""

    def __init__(self, folder: Path, model_dir: Path) -> None:
        self.folder = folder
        self.children: list[subprocess.Popen] = []
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.environment = {
            "PATH": os.environ["PATH"],
            "LLAMA_DIR": str(model_dir),
            "LOGURU_SERIALIZE": "1",
            "LOGURU_LEVEL": "TRACE",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(folder),
            "TMPDIR": str(self.temporary),
        }

    def spawn(self, prompts: object, *options: object, only: str = "performance-batch-1", **env: str | None):
        """A child process with its output in files; ``env`` replaces variables, None removes them."""
        file = self.folder / "prompts.json"
        file.write_text(json.dumps([{"prompt": p} for p in prompts] if isinstance(prompts, list) else prompts))
        environment = {name: value for name, value in (self.environment | env).items() if value is not None}
        command = [sys.executable, "-m", "pytest", HOME / SCRIPT, "-s", "-k", only, "--input_prompts", file, *options]
        with open(self.folder / "stdout", "w") as stdout, open(self.folder / "stderr", "w") as stderr:
            child = subprocess.Popen(
                [str(part) for part in command], stdout=stdout, stderr=stderr, cwd=self.folder, env=environment
            )
        self.children.append(child)
        return child

    def run(self, prompts: object, *options: object, only: str = "performance-batch-1", **env: str | None) -> Run:
        started = time.perf_counter()
        child = self.spawn(prompts, *options, only=only, **env)
        child.wait(timeout=200)
        return self.ended(child, prompts if isinstance(prompts, list) else [], time.perf_counter() - started)

    def run_one_by_one(self, prompts: list[str], *options: object) -> Run:
        """One session that runs the test for each prompt alone, with a model of its own each time."""
        (self.folder / "one_by_one.py").write_text(
            "def pytest_runtestloop(session):\n"
            "    item = next(i for i in session.items if i.nodeid.endswith('performance-batch-1]'))\n"
            f"    for prompt in {prompts!r}:\n"
            "        session.config.option.input_prompts = [prompt]\n"
            "        item._initrequest()\n"
            "        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)\n"
            "    return True\n"
        )
        return self.run([], "-p", "one_by_one", *options)

    def ended(self, child: subprocess.Popen, prompts: list[str], seconds: float = 0) -> Run:
        # Every line has to be a record: whatever else the engine printed would be an error here.
        records = [json.loads(line)["record"] for line in (self.folder / "stderr").read_text().splitlines()]
        return Run(child.returncode, (self.folder / "stdout").read_text(), records, prompts, seconds)

    def wait_for(self, message: str, child: subprocess.Popen) -> None:
        """Waits until the child has logged ``message``."""
        needle = json.dumps(message)[1:-1]

        def is_logged() -> bool:
            found = needle in (self.folder / "stderr").read_text()
            assert found or child.poll() is None, f"it ended before it logged {message}"
            return found

        until(is_logged, tick_seconds=0.005)


def pytest_in(folder: Path, *arguments: object, **env: str) -> subprocess.CompletedProcess:
    """Plain pytest in a folder, with next to nothing in the environment."""
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", *(str(argument) for argument in arguments)]
    return subprocess.run(command, cwd=folder, env=environment | env, capture_output=True, text=True, timeout=200)
