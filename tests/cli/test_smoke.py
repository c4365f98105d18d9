"""`demo-api smoke` as CI runs it: real children, a real model, real servers, reports read by another's parser."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import junitparser
import pytest
import yaml
from click.testing import CliRunner
from support.command_line import demo_api
from support.demo_homes import SCRIPT, make_home
from support.serving import Server
from support.waiting import until

from demo_api import errors, transcript
from demo_api.cli import main
from demo_api.cli.smoke.asking import Deadline, ask_demo, ask_server
from demo_api.cli.smoke.checks import (
    COULD_NOT_RUN,
    DEFAULT_PROMPTS,
    FAILED,
    PASSED,
    Check,
    Entry,
    Expectation,
    Reply,
    exit_code,
    judge,
    read_prompts,
)
from demo_api.cli.smoke.command import junit
from demo_api.cli.smoke.command import smoke as smoke_command
from demo_api.config import Settings
from demo_api.devices.local_run import LocalRun
from demo_api.devices.lock import devices_of
from demo_api.errors import BadRequest
from demo_api.messages import Request
from demo_api.process.tree import survivors
from demo_api.queue import Ledger

ROOT = Path(__file__).parents[2]
CI_PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
HELLO = [{"prompt": "Hello"}]

# What the JUnit schema of Jenkins (junit-10.xsd) allows, and what it asks for, of what we use of it. GitLab and the
# usual GitHub actions read the same.
SCHEMA = {
    "testsuites": ({"testsuite"}, set(), {"name", "time", "tests", "failures", "errors"}),
    "testsuite": ({"testcase"}, {"name", "tests", "failures", "errors"}, {"time", "skipped", "timestamp"}),
    "testcase": ({"failure", "error", "system-out"}, {"name"}, {"classname", "time"}),
    "failure": (set(), set(), {"message", "type"}),
    "error": (set(), set(), {"message", "type"}),
    "system-out": (set(), set(), set()),
}


@dataclass
class Smoked:
    """What `demo-api smoke` left."""

    exit_code: int
    stdout: str
    stderr: str
    folder: Path
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def prompts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.report["prompts"]
        return found

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()

    @property
    def junit(self) -> Path:
        return self.folder / "reports" / "junit.xml"

    def cases(self) -> list[junitparser.TestCase]:
        check_schema(self.junit)
        (suite,) = junitparser.JUnitXml.fromfile(str(self.junit))
        return list(suite)

    def left(self) -> list[object]:
        runs = self.folder / "state" / "runs"
        return list(survivors("DEMO_API_RUN", [run.name for run in runs.iterdir()])) if runs.exists() else []

    def started(self) -> int:
        """How many children were started."""
        return len(list((self.folder / "state" / "runs").glob("*/stderr.txt")))


def check_schema(path: Path) -> None:
    root = ElementTree.parse(path).getroot()
    assert root.tag == "testsuites"
    for element in root.iter():
        children, asked_for, allowed = SCHEMA[element.tag]
        assert {child.tag for child in element} <= children
        assert asked_for <= set(element.attrib) <= asked_for | allowed
        if "time" in element.attrib:
            assert re.fullmatch(r"[0-9]+\.[0-9]{3}", element.attrib["time"])
    for suite in root:
        assert suite.attrib["tests"] == str(len(suite))
        for kind in ("failure", "error"):
            assert suite.attrib[f"{kind}s"] == root.attrib[f"{kind}s"] == str(len(suite.findall(f"testcase/{kind}")))
        names = [(case.attrib["classname"], case.attrib["name"]) for case in suite]
        assert len(set(names)) == len(names)


class Site:
    """A CI job's folder: state, prompts, reports, a demo home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = os.environ | {
            "CI": "true",
            "DEMO_API_STATE_DIR": str(folder / "state"),
            "DEMO_API_STOP_GRACE": "5",
        }

    def home(self, child: str, script: str | None = None) -> list[str]:
        """The flags for a demo home with this child, or with this demo."""
        home, model = self.folder / f"home-{child}", self.folder / "model"
        model.mkdir(exist_ok=True)
        make_home(home, child)
        if script is not None:
            (home / SCRIPT).write_text(script)
        return ["--demo-home", str(home), "--llama-dir", str(model)]

    def command(self, entries: object, *words: str) -> list[str]:
        asked = []
        if entries is not None:
            path = self.folder / "prompts.json"
            path.write_text(entries if isinstance(entries, str) else json.dumps(entries), encoding="utf-8")
            asked = ["--prompts", str(path)]
        reports = self.folder / "reports"
        written = ["--junit-xml", str(reports / "junit.xml"), "--json", str(reports / "report.json")]
        return [sys.executable, "-m", "demo_api", "smoke", *asked, *written, *words]

    def smoke(self, entries: object, *words: str) -> Smoked:
        done = subprocess.run(
            self.command(entries, *words), env=self.environ, capture_output=True, text=True, timeout=100, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        smoked = Smoked(done.returncode, done.stdout, done.stderr, self.folder)
        report = self.folder / "reports" / "report.json"
        if report.exists():
            smoked.report = json.loads(report.read_text())
            assert smoked.report["exit_code"] == done.returncode
            assert len(smoked.cases()) == len(smoked.prompts)
        return smoked


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


ENTRY = Entry(prompt="Hello")
REQUEST = Request(prompt="Hello", max_tokens=64, temperature=0.0)


def ask_here(settings: Settings) -> list[Check]:
    """One prompt to the demo, from this process."""
    return list(ask_demo([ENTRY], [REQUEST], LocalRun(settings), Deadline(60), lambda run_id, event: None))


def ask_at(url: str) -> list[Check]:
    """One prompt to a server, from this process."""
    return list(ask_server([ENTRY], [REQUEST], url, Deadline(60), threading.Event()))


# What a child does, the exit code, and what is said. A broken demo is 1, a broken machine 2.
ENDINGS = {
    "passes": ("passes", 0, PASSED, ""),
    "fails its test": ("fails", 1, FAILED, "demo_failed: "),
    "crashes": ("segfaults", 1, FAILED, "crashed: "),
    "is skipped": ("skips", 1, FAILED, "skipped: "),
    "has no device": ("raises_at_import", 2, COULD_NOT_RUN, "No chips detected in the cluster"),
}


@pytest.mark.parametrize(("child", "code", "status", "told"), ENDINGS.values(), ids=ENDINGS)
def test_the_exit_code_tells_a_broken_demo_from_a_broken_machine(
    site: Site, child: str, code: int, status: str, told: str
) -> None:
    smoked = site.smoke(HELLO, *site.home(child))
    assert smoked.exit_code == code, smoked.stdout + smoked.stderr
    line, summary = smoked.lines
    assert line.startswith(f"{status:13}  Hello  ")
    assert told in line
    assert summary.startswith(f"1 {status}, in ")
    (case,) = smoked.cases()
    results = [(type(result), result.message) for result in case.result]
    assert [kind for kind, _ in results] == {
        PASSED: [],
        FAILED: [junitparser.Failure],
        COULD_NOT_RUN: [junitparser.Error],
    }[status]
    assert all(told in message for _, message in results)
    assert smoked.left() == []


OTHER_ENDINGS = {
    "gives no answer": ("exits_zero_without_answer", FAILED, "no_answer: "),
    "has no such test": ("no_tests", FAILED, "no_tests: "),
    "is killed from outside": ("killed", COULD_NOT_RUN, "interrupted: The child was stopped by SIGKILL"),
    "lacks a package": ("conftest_breaks", COULD_NOT_RUN, "usage_error: "),
}


@pytest.mark.parametrize(("child", "status", "told"), OTHER_ENDINGS.values(), ids=OTHER_ENDINGS)
def test_every_other_ending_is_judged_too(
    child_settings: Callable[..., Settings], child: str, status: str, told: str
) -> None:
    (check,) = ask_here(child_settings(child))
    assert (check.status, check.reasons[0][: len(told)]) == (status, told)


LOADER = "error while loading shared libraries: libpython3.10.so.1.0: cannot open shared object file"
# What stands where the interpreter should be, and what is said about it.
INTERPRETERS = {
    "refused by the loader": (f'echo "python: {LOADER}" >&2; exit 127', f"(exit code 127): python: {LOADER}."),
    "a script that fails": ("echo 'conda: no such environment: tt'; exit 1", "(exit code 1): conda: no such"),
    "says nothing": ("exit 2", "(exit code 2): it said nothing."),
    "succeeds at something else": ("echo Python 3.10.12", "(exit code 0): Python 3.10.12."),
    "made for another processor": ("kill -ILL $$", "(exit code -4): it said nothing."),
    "without pytest": (f"exec {sys.executable} -I -S -m pytest", "No module named pytest."),
}


@pytest.mark.parametrize(("code", "said"), INTERPRETERS.values(), ids=INTERPRETERS)
def test_an_interpreter_that_cannot_run_pytest_is_a_broken_machine(site: Site, code: str, said: str) -> None:
    python = site.folder / "python"
    python.write_text(f"#!/bin/sh\n{code}\n")
    python.chmod(0o755)
    smoked = site.smoke(HELLO, *site.home("passes"), "--python", str(python))
    (line, _) = smoked.lines
    assert (smoked.exit_code, line[:13]) == (2, COULD_NOT_RUN), smoked.stderr
    assert "not_set_up: The child's interpreter ended before pytest began " in line
    assert said in line
    assert "Run `demo-api doctor`" in line
    assert "eset" not in line  # no device was opened
    assert demo_api("device", "status", environ=site.environ).stdout == "device: free\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_prompt_file_may_be_written_on_windows(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "prompts.json").write_text('[{"prompt": "é"}]', encoding=encoding)
    assert [entry.prompt for entry in read_prompts(tmp_path / "prompts.json", max_tokens=1)] == ["é"]


# A demo's first line, and whether the machine is to blame for it.
IMPORTS = {
    "a package that is not installed": ("import ttnn_of_nobody", COULD_NOT_RUN),
    "a library that is not built": (
        "raise ImportError('libtt_metal.so: cannot open shared object file: No such file or directory')",
        COULD_NOT_RUN,
    ),
    "a module that the checkout lost": ("from models.tt_transformers.tt import nothing_of_the_kind", FAILED),
    "a slip of the pen": ("def (", FAILED),
}


@pytest.mark.parametrize(("line", "status"), IMPORTS.values(), ids=IMPORTS)
def test_a_demo_that_cannot_be_imported_is_broken_unless_its_environment_is(
    child_settings: Callable[..., Settings], line: str, status: str
) -> None:
    settings = child_settings("passes")
    (settings.demo_home / SCRIPT).write_text(f"{line}\n")
    (check,) = ask_here(settings)
    assert check.status == status, check.reasons
    assert check.reasons[0].startswith("collection_error: ")


# What tt-metal's own demo has printed, and what that says of the machine.
TRANSCRIPTS = {
    "2025-07-real_no_device-json": COULD_NOT_RUN,
    "2025-07-real_no_sfpi-json": COULD_NOT_RUN,
    "2026-04-real_mock_throw-text": COULD_NOT_RUN,
    "2025-07-teardown_error-text": COULD_NOT_RUN,
    "2026-04-conftest_import_error-json": COULD_NOT_RUN,
    "2025-07-internal_error-json": COULD_NOT_RUN,
    "2025-07-sigint_load-text": COULD_NOT_RUN,
    "2025-07-device_raises-text": FAILED,
    "2025-07-demo_import_error-json": FAILED,
    "2025-07-bad_sampling_params-text": FAILED,
    "2025-07-skip_ci-json": FAILED,
    "2025-07-segv-text": FAILED,
    "2025-07-exit42-text": FAILED,
    "2026-04-no_match-json": FAILED,
}


@pytest.mark.parametrize(("name", "status"), TRANSCRIPTS.items(), ids=TRANSCRIPTS)
def test_what_the_real_demo_printed_is_judged_as_documented(name: str, status: str) -> None:
    folder = ROOT / "tests" / "transcripts" / name
    prompts = [entry["prompt"] for entry in json.loads((folder / "prompts.json").read_text())]
    streams = [[(folder / f"{stream}.txt").read_bytes()] for stream in ("stdout", "stderr")]
    failure = transcript.parse(prompts, *streams, int((folder / "exit_code").read_text())).error
    assert failure is not None
    assert judge(ENTRY, Reply(code=failure.code, error=failure.message)).status == status


SENTENCES = {
    "no pytest": ("/usr/bin/python3: No module named pytest.", COULD_NOT_RUN),
    "no module of the checkout": ("ModuleNotFoundError: No module named 'models.tt_transformers.tt.nothing'.", FAILED),
    "a name like the checkout's": ("ModuleNotFoundError: No module named 'modelscope'.", COULD_NOT_RUN),
    "no room": ("OSError: [Errno 28] No space left on device: '/tmp/a'.", COULD_NOT_RUN),
    "anything else": ("AssertionError: The device says no.", FAILED),
}


@pytest.mark.parametrize(("sentence", "status"), SENTENCES.values(), ids=SENTENCES)
def test_a_sentence_tells_a_broken_machine(sentence: str, status: str) -> None:
    assert judge(ENTRY, Reply(code="demo_failed", error=sentence)).status == status


@pytest.mark.parametrize("code", errors.RUN_CODES)
def test_the_documented_exit_code_of_every_code_is_the_real_one(code: str) -> None:
    documented = re.findall(rf"^\|.*`{code}`.*\| ([12]) \|", CI_PAGE, re.M)
    check = judge(ENTRY, Reply(code=code, error="Something."))
    assert documented == [str(exit_code([check]))]


MIXTURES = {
    "all passed": ([PASSED, PASSED], 0),
    "one failed": ([PASSED, FAILED], 1),
    "one could not run": ([PASSED, COULD_NOT_RUN], 1),
    "both kinds": ([COULD_NOT_RUN, FAILED], 1),
    "nothing could run": ([COULD_NOT_RUN, COULD_NOT_RUN], 2),
}


@pytest.mark.parametrize(("statuses", "code"), MIXTURES.values(), ids=MIXTURES)
def test_the_exit_code_is_2_only_if_nothing_could_run(statuses: list[str], code: int) -> None:
    assert exit_code([Check(ENTRY, status) for status in statuses]) == code


# The child answers "ok: " and the prompt; a word is a token. Its figures are 80.14 ms and 43.33 tokens a second.
EXPECTATIONS: dict[str, tuple[str, dict[str, object], str | None]] = {
    "nothing": ("a", {}, None),
    "all of them": (
        "all",
        {"contains": "ok", "matches": "^ok: a", "min_tokens": 2, "max_ttft_ms": 81, "min_tokens_per_second": 43},
        None,
    ),
    "contains": ("b", {"contains": "OK"}, "The answer does not contain 'OK'."),
    "matches": ("c", {"matches": "^c"}, "The answer does not match '^c'."),
    "matches without regard to case": ("C", {"matches": "(?i)^OK: c$"}, None),
    "min_tokens": ("d", {"min_tokens": 3}, "tokens_generated is 2, and at least 3 is expected."),
    "max_ttft_ms": ("e", {"max_ttft_ms": 80}, "ttft_ms is 80.14, and at most 80 is expected."),
    "min_tokens_per_second": (
        "f",
        {"min_tokens_per_second": 43.5},
        "decode_tokens_per_second is 43.33, and at least 43.5 is expected.",
    ),
    "a regular expression without end": (
        "a" * 60 + "b",
        {"matches": "(a|aa)+$"},
        "The regular expression '(a|aa)+$' took longer than 5 s.",
    ),
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Smoked:
    """One run with a prompt for each of the expectations."""
    site = Site(tmp_path_factory.mktemp("expected"))
    entries = [{"prompt": prompt, "expect": expect} for prompt, expect, _ in EXPECTATIONS.values()]
    return site.smoke(entries, *site.home("passes"))


@pytest.mark.parametrize("name", EXPECTATIONS)
def test_an_answer_is_held_against_its_expectation(expected: Smoked, name: str) -> None:
    place = list(EXPECTATIONS).index(name)
    prompt, _, reason = EXPECTATIONS[name]
    told = expected.prompts[place]
    assert (told["prompt"], told["response"]) == (prompt, f"ok: {prompt}")
    assert (told["status"], told["reasons"]) == (("failed", [reason]) if reason else ("passed", []))
    assert [result.message for result in expected.cases()[place].result] == ([reason] if reason else [])
    assert expected.lines[place].startswith(f"{FAILED if reason else PASSED:13}  {prompt}  {reason or '['}")


def test_all_prompts_go_to_one_child_and_each_has_one_line(expected: Smoked) -> None:
    assert expected.exit_code == 1
    assert expected.started() == 1
    assert len(expected.lines) == len(EXPECTATIONS) + 1
    assert expected.lines[-1].startswith("3 passed, 6 failed, in ")


def test_a_figure_that_is_null_fails_the_expectation_of_it() -> None:
    entry = Entry.model_validate({"prompt": "a", "expect": {"max_ttft_ms": 5, "min_tokens": 1}})
    check = judge(entry, Reply(success=True, response="b"))
    assert check.status == FAILED
    assert check.reasons == (
        "tokens_generated is not known (null), and at least 1 is expected.",
        "ttft_ms is not known (null), and at most 5 is expected.",
    )


def test_prompts_that_one_child_cannot_take_go_to_the_next(site: Site) -> None:
    smoked = site.smoke([{"prompt": prompt} for prompt in "abc"], *site.home("passes"), "--max-batch", "2")
    assert [told["response"] for told in smoked.prompts] == ["ok: a", "ok: b", "ok: c"]
    assert (smoked.exit_code, smoked.started()) == (0, 2)


def test_the_demo_gets_the_prompts_and_the_sampling_but_no_expectation_and_no_ci(site: Site) -> None:
    entries = [{"prompt": "Hello", "expect": {"min_tokens": 1}}]
    words = ["--temperature", "0.5", "--max-tokens", "7"]
    smoked = site.smoke(entries, *site.home("shows_environment"), *words)
    seen = json.loads(smoked.prompts[0]["response"])
    assert json.loads(seen["prompt_file"]) == [{"prompt": "Hello"}]
    assert "CI" not in seen["environ"]
    assert seen["sampling_params"]["temperature"] == 0.5
    assert "--max_generated_tokens=6" in seen["argv"]


# Each is refused before anything is started, with a sentence that names the place.
REFUSED_FILES = {
    "not JSON": ("{", "is not JSON"),
    "not UTF-8": ("\xff", "it is not in UTF-8 (byte 1)"),
    "no list": ('{"prompt": "a"}', "input should be a valid array"),
    "empty": ("[]", "it has no prompts"),
    "no object": ("[1]", "entry 1: "),
    "no prompt": ('[{"prompt": "a"}, {}]', "entry 2, 'prompt': field required."),
    "a blank prompt": ('[{"prompt": " "}]', "entry 1, 'prompt': the prompt is blank."),
    "an unknown key": ('[{"prompt": "a", "expects": {}}]', "entry 1, 'expects': this key is not known"),
    "an unknown expectation": ('[{"prompt": "a", "expect": {"is": "b"}}]', "'expect.is': this key is not known"),
    "a context": ('[{"prompt": "a", "context": "http://b"}]', "entry 1, 'context': the demo would download"),
    "a bad regular expression": ('[{"prompt": "a", "expect": {"matches": "("}}]', "'expect.matches': it is not a"),
    "a number as text": ('[{"prompt": "a", "expect": {"min_tokens": "1"}}]', "'expect.min_tokens': input should"),
    "true for a number": ('[{"prompt": "a", "expect": {"max_ttft_ms": true}}]', "'expect.max_ttft_ms': input should"),
    "no number": ('[{"prompt": "a", "expect": {"max_ttft_ms": NaN}}]', "'expect.max_ttft_ms': input should be a fini"),
    "more tokens than asked for": ('[{"prompt": "a", "expect": {"min_tokens": 65}}]', "an answer has at most 64"),
    "nested without end": ("[" * 200_000, "is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "sentence"), REFUSED_FILES.values(), ids=REFUSED_FILES)
def test_what_is_wrong_in_a_prompt_file_is_named_with_its_place(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(BadRequest) as refused:
        read_prompts(path, max_tokens=64)
    assert f"{path}" in str(refused.value)
    assert sentence in str(refused.value)


# Words that cannot be used, and what is said.
REFUSED = {
    "a prompt file that is none": (["--prompts", "{tmp}/bad.json"], "bad.json is no prompt file: it is not JSON"),
    "no prompt file": (["--prompts", "{tmp}/none.json"], "cannot be read: No such file or directory"),
    "no tokens": (["--max-tokens", "0"], "The field 'max_tokens' is wrong"),
    "no temperature": (["--temperature", "nan"], "The field 'temperature' is wrong"),
    "no time": (["--max-seconds", "0"], "--max-seconds"),
    "a setting that is wrong": (["--max-batch", "x"], "DEMO_API_MAX_BATCH or --max-batch"),
    "a setting of another's server": (
        ["--url", "http://127.0.0.1:9", "--max-batch", "1"],
        "--max-batch cannot be used",
    ),
    "a report in a file": (["--json", "{tmp}/bad.json/report"], "bad.json/report: File exists."),
    "an unknown word": (["--promts", "x"], "No such option"),
}


@pytest.mark.parametrize(("words", "told"), REFUSED.values(), ids=REFUSED)
def test_wrong_use_is_exit_code_2_starts_nothing_and_leaves_no_old_report(
    site: Site, words: list[str], told: str
) -> None:
    (site.folder / "bad.json").write_text("{")
    old = site.folder / "reports" / "junit.xml"
    old.parent.mkdir()
    old.write_text("<testsuites/>")
    asked = [word.format(tmp=site.folder) for word in words]
    done = CliRunner(env=site.environ).invoke(main, site.command(HELLO, *asked)[3:])
    assert (done.exit_code, done.stdout) == (2, "")
    assert told in done.stderr
    assert not (site.folder / "state" / "runs").exists()
    # Where the command line itself is wrong, not even the report's name is known.
    assert old.exists() == done.stderr.startswith("Usage:")


def test_a_report_to_what_is_no_file_leaves_that_alone(site: Site) -> None:
    pipe, link = site.folder / "pipe", site.folder / "link"  # as /dev/stdout is a link, which root could remove
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(pipe.read_text)
        command = [*site.command(HELLO, *site.home("passes")), "--json", str(link)]
        subprocess.run(command, env=site.environ, capture_output=True, timeout=60, check=True)
        assert json.loads(told.result())["exit_code"] == 0
    assert pipe.is_fifo()
    assert link.is_symlink()


NOT_SET_UP = {
    "no script": (["--demo-home", "{tmp}", "--llama-dir", "{tmp}"], "There is no models/tt_transformers/demo"),
    "no model": (["--model-dir", "{tmp}/none"], "Run `demo-api model pull`"),
}


@pytest.mark.parametrize(("words", "told"), NOT_SET_UP.values(), ids=NOT_SET_UP)
def test_a_machine_that_is_not_set_up_is_an_error_of_every_prompt(site: Site, words: list[str], told: str) -> None:
    smoked = site.smoke([{"prompt": "a"}, {"prompt": "b"}], *[word.format(tmp=site.folder) for word in words])
    assert smoked.exit_code == 2
    assert [told["status"] for told in smoked.prompts] == ["could_not_run", "could_not_run"]
    for case, line in zip(smoked.cases(), smoked.lines, strict=False):
        assert [type(result) for result in case.result] == [junitparser.Error]
        assert "not_set_up: " in case.result[0].message
        assert told in line


HANGS = {"in decode": "hangs", "at import": "hangs_at_collection"}


@pytest.mark.parametrize("child", HANGS.values(), ids=HANGS)
def test_what_has_not_ended_in_time_fails_as_timed_out_and_nothing_is_left(site: Site, child: str) -> None:
    site.environ["DEMO_API_STOP_GRACE"] = "1"
    entries = [{"prompt": "a"}, {"prompt": "b"}]
    smoked = site.smoke(entries, *site.home(child), "--max-batch", "1", "--max-seconds", "2")
    assert smoked.exit_code == 1
    late = ["timed_out: It did not end within --max-seconds (2 s)."]
    assert [told["reasons"] for told in smoked.prompts] == [late, late]
    assert smoked.started() == 1
    assert smoked.left() == []


def test_the_demos_own_time_limit_is_told_as_such(child_settings: Callable[..., Settings]) -> None:
    (check,) = ask_here(child_settings("hangs", run_timeout=1))
    assert check.status == FAILED
    assert check.reasons[0].startswith("timed_out: The run took longer than 1 s and was stopped.")


def test_a_device_that_others_hold_is_no_fault_of_the_demo(site: Site, settings: Callable[..., Settings]) -> None:
    (site.folder / "state").mkdir()
    with devices_of(settings())[0].wait_for_lock(seconds=1, given_up=threading.Event()):
        smoked = site.smoke(HELLO, *site.home("passes"), "--max-seconds", "1")
    assert smoked.exit_code == 2
    assert re.search(r"Another process held the device for [\d.]+ s, so the run did not start\.", smoked.lines[0])
    assert smoked.started() == 0


def test_a_device_that_has_failed_is_left_alone(child_settings: Callable[..., Settings]) -> None:
    settings = child_settings("passes")
    Ledger(settings).devices.set("device", "failed", "A reset did not help.")
    (check,) = ask_here(settings)
    assert check.status == COULD_NOT_RUN
    assert check.reasons[0].startswith("device_failed: The device device has failed: A reset did not help. Look at the")
    assert not settings.runs_dir.exists()


def test_doubt_about_the_device_is_noted_for_all_and_taken_back_by_a_success(
    child_settings: Callable[..., Settings],
) -> None:
    settings = child_settings("killed")
    states = Ledger(settings).devices
    ask_here(settings)
    assert states.get("device").state == "suspect"
    ask_here(child_settings("passes"))
    assert states.get("device").state == "free"


def test_an_interrupted_smoke_test_closes_the_device_and_tells_it(site: Site) -> None:
    flags = site.home("closes_device_slowly")
    command = site.command(HELLO, *flags)
    process = subprocess.Popen(command, env=site.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    logs = (site.folder / "state/runs").glob
    until(
        lambda: (
            any("Starting decode loop" in log.read_text() for log in logs("*/stderr.txt")) or process.poll() is not None
        )
    )
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert "cancelled: The run was cancelled." in stdout
    assert (Path(flags[1]) / "device_closed").exists()
    check_schema(site.folder / "reports" / "junit.xml")


# Answers that would move a cursor, end a document, set a CI system's variables, or cannot be written as XML.
HOSTILE = {
    "escape sequences": ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
    "control characters": ("a\x00b\x08c\x7fd\x9be", "a\\x00b\\x08c\\x7fd\\x9be"),
    "line ends": ("a\r\n::error::b\u2028c", "a\\r\\n::error::b\\u2028c"),
    "markup": ("</system-out>]]><!-- &amp; <b>", "</system-out>]]><!-- &amp; <b>"),
    "right to left": ("a\u202eb", "a\\u202eb"),
    "no characters": ("a\ufffe\uffffb", "a\\ufffe\\uffffb"),
    "commands to CI systems": ("##[add-mask]a ##vso[b] ## c", "#\\x23[add-mask]a #\\x23vso[b] ## c"),
    "an emoji": ("\N{GRINNING FACE}", "\N{GRINNING FACE}"),
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Smoked:
    site = Site(tmp_path_factory.mktemp("hostile"))
    return site.smoke([{"prompt": prompt} for prompt, _ in HOSTILE.values()], *site.home("passes"))


@pytest.mark.parametrize("name", HOSTILE)
def test_an_answer_is_shown_and_not_obeyed(hostile: Smoked, name: str) -> None:
    place = list(HOSTILE).index(name)
    prompt, shown = HOSTILE[name]
    assert hostile.prompts[place]["response"] == f"ok: {prompt}"
    line = hostile.lines[place]
    assert line.startswith(f"passed         {shown}  [")
    assert line.endswith(f"  ok: {shown}")
    case = hostile.cases()[place]
    escaped = junit.legal(prompt)
    assert case.system_out == f"ok: {escaped}"
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]", hostile.junit.read_text(encoding="utf-8"))


def test_cases_of_the_same_name_are_told_apart_by_a_number(tmp_path: Path) -> None:
    checks = [Check(Entry(prompt=name), PASSED, reply=Reply(time_seconds=1.5)) for name in "aab"]
    junit.write(tmp_path / "junit.xml", checks, seconds=2)
    check_schema(tmp_path / "junit.xml")
    (suite,) = junitparser.JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    assert [(case.name, case.time) for case in suite] == [("a", 1.5), ("a (2)", 1.5), ("b", 1.5)]


def test_the_prompts_that_ship_pass_with_the_real_small_model(site: Site, model_dir: Path) -> None:
    smoked = site.smoke(None, "--llama-dir", str(model_dir))
    assert smoked.exit_code == 0, smoked.stdout + smoked.stderr
    assert [told["prompt"] for told in smoked.prompts] == ["What is 2+2?", "Name three primary colors."]
    assert smoked.started() == 1


def test_a_speed_that_the_real_demo_cannot_tell_fails_the_expectation_of_it(site: Site, model_dir: Path) -> None:
    entries = [{"prompt": "What is 2+2?", "expect": {"min_tokens_per_second": 1}}]
    smoked = site.smoke(entries, "--llama-dir", str(model_dir), "--max-tokens", "1")
    assert smoked.exit_code == 1
    assert "decode_tokens_per_second is not known (null), and at least 1 is expected." in smoked.lines[0]


def test_the_prompts_that_ship_are_the_file_that_users_see_and_are_packaged() -> None:
    assert DEFAULT_PROMPTS.samefile(ROOT / "prompts" / "smoke.json")
    assert DEFAULT_PROMPTS.is_relative_to(ROOT / "demo_api")
    assert all(entry.expect.matches for entry in read_prompts(DEFAULT_PROMPTS, max_tokens=64))


Serve = Callable[..., Server]


def test_a_server_is_asked_instead(site: Site, serve: Serve, child_settings: Callable[..., Settings]) -> None:
    server = serve(child_settings("passes"))
    site.environ |= {
        "LLAMA_DIR": "/none",
        "DEMO_API_STATE_DIR": str(site.folder / "none"),
        "HTTP_PROXY": "http://[::1]:9",
    }
    entries = [{"prompt": "a", "expect": {"contains": "ok: a", "min_tokens": 2}}, *({"prompt": b} for b in "bcdef")]
    smoked = site.smoke(entries, "--url", f"{server.url}/")
    assert smoked.exit_code == 0, smoked.stdout
    assert [told["response"] for told in smoked.prompts] == [f"ok: {prompt}" for prompt in "abcdef"]
    assert all(server.get(f"/runs/{told['run_id']}").json()["temperature"] == 0 for told in smoked.prompts)
    assert not (site.folder / "none").exists()


SERVED_ENDINGS = {
    "fails its test": ("fails", 1, "demo_failed: "),
    "has no device": ("raises_at_import", 2, "collection_error: "),
}


@pytest.mark.parametrize(("child", "code", "told"), SERVED_ENDINGS.values(), ids=SERVED_ENDINGS)
def test_a_servers_errors_are_told_in_its_own_words(
    site: Site, serve: Serve, child_settings: Callable[..., Settings], child: str, code: int, told: str
) -> None:
    server = serve(child_settings(child))
    smoked = site.smoke(HELLO, "--url", server.url)
    assert smoked.exit_code == code
    said = server.get(f"/runs/{smoked.prompts[0]['run_id']}").json()
    assert said["error"] in smoked.prompts[0]["reasons"][0]
    assert smoked.prompts[0]["reasons"][0].startswith(told)


def test_a_server_whose_device_has_failed_could_not_run_it(
    serve: Serve, child_settings: Callable[..., Settings]
) -> None:
    settings = child_settings("passes")
    Ledger(settings).devices.set("device", "failed", "A reset did not help.")
    (check,) = ask_at(serve(settings).url)
    assert check.status == COULD_NOT_RUN
    assert check.reasons[0].startswith("device_failed: The device has failed: A reset did not help.")


def test_a_server_that_does_not_answer_in_time_fails_the_prompt(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        smoked = site.smoke(HELLO, "--url", f"http://127.0.0.1:{deaf.getsockname()[1]}", "--max-seconds", "1")
    assert smoked.exit_code == 1
    assert smoked.prompts[0]["reasons"] == ["timed_out: It did not end within --max-seconds (1 s)."]


def test_an_interrupted_smoke_test_of_a_server_leaves_at_once(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        command = site.command(HELLO, "--url", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        process = subprocess.Popen(command, env=site.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        connection, _ = deaf.accept()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
        connection.close()
    assert process.returncode == 130, stderr
    assert "cancelled: The smoke test was interrupted." in stdout


def test_no_server_could_not_run_it(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    smoked = site.smoke(HELLO, "--url", f"http://user:secret@127.0.0.1:{port}")
    assert smoked.exit_code == 2
    assert f"unreachable: http://127.0.0.1:{port} cannot be reached: Connection refused." in smoked.lines[0]
    assert "secret" not in smoked.stdout + smoked.junit.read_text()


# What something between us and the demo answers, and what is made of it.
ANSWERS = {
    "401": (401, {}, '{"error": "Who are you?"}', "not_demo_api: {url} answered 401 Unauthorized: Who are you?."),
    "502 of a proxy": (502, {}, "<h1>Bad Gateway</h1>", "{url} answered 502 Bad Gateway, and not in JSON."),
    "a redirection": (
        301,
        {"Location": "https://a/"},
        "",
        "answered 301 Moved Permanently (https://a/), and not in JSON",
    ),
    "503 of demo_api": (503, {}, '{"error": "Full.", "code": "queue_full"}', "queue_full: Full."),
    "507 of demo_api": (507, {}, '{"error": "Full.", "code": "storage_full"}', "storage_full: Full."),
    "somebody else's JSON": (200, {}, '{"timing": 5}', "answered 200 OK, which is not a response of demo_api."),
    "JSON that says nothing": (200, {}, "{}", "answered 200 OK: no reason is given."),
    "no object": (200, {}, "[]", "answered 200 OK, which is not a response of demo_api."),
}


@pytest.mark.parametrize(("status", "headers", "body", "told"), ANSWERS.values(), ids=ANSWERS)
def test_what_is_no_answer_of_the_demo_could_not_run(
    stranger: Callable[..., str], status: int, headers: dict[str, str], body: str, told: str
) -> None:
    url = stranger(status, body.encode(), headers)
    (check,) = ask_at(url)
    assert check.status == COULD_NOT_RUN
    assert told.format(url=url) in check.reasons[0]


def test_the_documented_prompt_file_is_one_and_every_expectation_is_documented(tmp_path: Path) -> None:
    (example,) = re.findall(r"```json\n(.*?)```", CI_PAGE, re.S)
    (tmp_path / "prompts.json").write_text(example)
    assert len(read_prompts(tmp_path / "prompts.json", max_tokens=64)) == 2
    for key in Expectation.model_fields:
        assert f"| `{key}` |" in CI_PAGE


@pytest.mark.parametrize("option", ["prompts", "url", "junit-xml", "json", "max-seconds", "max-tokens", "temperature"])
def test_every_option_of_its_own_is_documented(option: str) -> None:
    assert re.search(rf"^\| `--{option}\b", CI_PAGE, re.M)


JOBS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", CI_PAGE, re.S)]


def scripts(job: dict[Any, Any]) -> Iterator[str]:
    """All that a job of GitHub Actions or GitLab runs in a shell."""
    for step in job.get("steps", []):
        yield from [step["run"]] if "run" in step else []
    yield from job.get("script", [])


def jobs() -> dict[str, dict[Any, Any]]:
    """Every job of every example, by its name and its system."""
    found = {}
    for page in JOBS:
        system, named = ("github", page["jobs"]) if "jobs" in page else ("gitlab", page)
        found |= {f"{system}: {name}": job for name, job in named.items()}
    return found


def test_there_is_a_job_for_each_system_and_each_kind_of_runner() -> None:
    assert sorted(jobs()) == ["github: cpu", "github: tenstorrent", "gitlab: cpu", "gitlab: tenstorrent"]


@pytest.mark.parametrize("name", jobs())
def test_a_documented_job_is_well_formed_and_its_command_exists(name: str) -> None:
    job = jobs()[name]
    if name.startswith("github"):
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])
        assert job["runs-on"]
        # The report is wanted when the test has failed.
        assert job["steps"][-1]["if"] == "always()"
    else:
        assert job["artifacts"]["when"] == "always"
        assert job["artifacts"]["reports"]["junit"] == "smoke.xml"
    shell = "\n".join(scripts(job)).replace("\\\n", " ")
    assert subprocess.run(["bash", "-n"], input=shell, text=True, check=False).returncode == 0
    (command,) = [line for line in shell.splitlines() if "demo-api smoke" in line]
    words = shlex.split(command.partition("demo-api smoke")[2].partition("||")[0])
    smoke_command.make_context("smoke", list(words))
    assert "--junit-xml" in words
