"""The table and the picture that `make bench` makes of what the benchmarks find."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
HELPERS = {"all", "figures", "performance_page"}
FINDS = '''"""What it finds.

    python benchmarks/{name}.py [ROUNDS]
"""
from figures import report
report("POST /chat | a token", [2.0, 3.0, 1.0], "s", beside="raw <pytest>", theirs=[4.0, 4.0, 4.0], ratio_goal=0.4)
report("direct engine", [1234.5], "tokens/s", beside="llama-server (none)", ratio_goal=1, more_is_better=True)
report("at rest: memory", [40.0, 50.0], "MiB", goal=60)
report("nobody knows", [], "ms")
'''
SHOWN = ("2 s; raw <pytest>: 4 s", "0.500", "1,234 tokens/s", "45 MiB", "at most 60 MiB", "0.750", "nobody knows")


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("all")


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("performance_page")


def _script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, more: str = "") -> str:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "benchmarks"))
    (tmp_path / "benchmarks").mkdir(exist_ok=True)
    (tmp_path / f"benchmarks/{name}.py").write_text(FINDS.format(name=name) + more)
    return f"benchmarks/{name}.py"


def _rows(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_what_a_benchmark_finds_is_in_the_table_and_in_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: ModuleType, page: ModuleType
) -> None:
    measured = runner.measure(tmp_path, _script(tmp_path, monkeypatch, "finds"), "2 cores of <something>")
    assert measured.failed == ""
    how = "`python benchmarks/finds.py`"
    assert _rows(page.table([measured])) == [
        [
            "POST /chat \\| a token",
            how,
            "2 s",
            "raw &lt;pytest>: 4 s",
            "0.500 (0.250 to 0.750 of 3)",
            "ratio at most 0.4",
            "A",
        ],
        ["direct engine", how, "1,234 tokens/s", "llama-server (none): -", "-", "ratio at least 1", "A"],
        ["at rest: memory", how, "45 MiB (40 to 50 of 2)", "", "", "at most 60 MiB", "A"],
        ["nobody knows", how, "-", "", "", "", "A"],
    ]
    assert "- Machine A: 2 cores of <something>" in page.table([measured])
    texts = " ".join(ElementTree.fromstring(page.svg([measured])).itertext())
    assert [text for text in (*SHOWN, "Machine A: 2 cores of <something>") if text not in texts] == []
    assert _bars(page.svg([measured])) == ["missed", "met"]  # no ratio, no bar


def _bars(picture: str) -> list[str]:
    return [name for name in re.findall(r'<rect class="(\w+)"', picture) if name != "page"]


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("raise SystemExit('No <PostgreSQL> is | here.')\n", "failed: No <PostgreSQL> is | here."),
        (
            "import os; open(os.path.abspath('none'))\n",
            "failed: FileNotFoundError: [Errno 2] No such file or directory: 'none'",
        ),
        ("import os; os._exit(7)\n", "failed: exit code 7, without a word"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)\n", "failed: exit code -4, without a word"),
    ],
    ids=["a sentence", "a traceback", "an exit code", "a signal"],
)
def test_a_benchmark_that_fails_is_a_row_after_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: ModuleType, page: ModuleType, end: str, reason: str
) -> None:
    measured = runner.measure(tmp_path, _script(tmp_path, monkeypatch, "fails", end), "a machine")
    *found, failure = _rows(page.table([measured]))
    assert len(found) == 4
    assert failure == [
        reason.replace("|", "\\|").replace("<", "&lt;"),
        "`python benchmarks/fails.py`",
        "-",
        "",
        "",
        "",
        "A",
    ]
    assert reason in ElementTree.fromstring(page.svg([measured])).itertext()


def test_a_benchmark_that_takes_too_long_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: ModuleType
) -> None:
    monkeypatch.setattr(runner, "LONGEST_SECONDS", 0.2)
    hangs = _script(tmp_path, monkeypatch, "hangs", "__import__('threading').Event().wait()\n")
    assert runner.measure(tmp_path, hangs, "a machine").failed == "it took longer than 0.2 s"


def test_only_what_is_between_the_markers_is_replaced(tmp_path: Path, page: ModuleType) -> None:
    text = f"# Before\n{page.BEGIN}\nan old table\n{page.END}\n# After\n"
    (tmp_path / "performance.md").write_text(text)
    measured = page.Measured("python benchmarks/none.py")
    page.write(tmp_path / "performance.md", [measured])
    before, after = (tmp_path / "performance.md").read_text().split(page.table([measured]))
    assert before.startswith(f"# Before\n{page.BEGIN}\n")
    assert after.endswith(f"{page.END}\n# After\n")
    assert "an old table" not in before + after
    assert f"({page.PICTURE})" in before
    assert (tmp_path / page.PICTURE).read_text() == page.svg([measured])
    assert _rows(page.table([measured])) == [["not measured", "`python benchmarks/none.py`", "-", "", "", "", ""]]


@pytest.mark.parametrize("markers", ["", "{0}", "{1}\n{0}", "{0}\n{1}\n{1}"], ids=["none", "one", "turned", "three"])
def test_a_page_without_both_markers_is_left_alone(tmp_path: Path, page: ModuleType, markers: str) -> None:
    file = tmp_path / "performance.md"
    file.write_text(markers.format(page.BEGIN, page.END))
    with pytest.raises(ValueError, match="needs one line"):
        page.write(file, [])
    assert file.read_text() == markers.format(page.BEGIN, page.END)


def test_the_page_has_the_markers(page: ModuleType) -> None:
    text = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line in (page.BEGIN, page.END)] == [page.BEGIN, page.END]


def test_make_bench_runs_every_benchmark_by_the_command_that_it_names(runner: ModuleType) -> None:
    scripts = {path.stem: path for path in (ROOT / "benchmarks").glob("*.py") if path.stem not in HELPERS}
    assert set(runner.NAMES) == set(scripts)
    for name, script in scripts.items():
        needs_tests = "from support" in script.read_text(encoding="utf-8")
        command = f"{'PYTHONPATH=tests ' if needs_tests else ''}python benchmarks/{name}.py"
        assert runner.command_of(script) == command
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nbench:")[2].partition("\n\n")[0]
    assert "$(BIN)/python benchmarks/all.py\n" in f"{recipe}\n"
