"""demo_api.transcript: what the child printed -> answers, metrics, phases, error.

``tests/transcripts`` holds what two generations of the unmodified demo printed, with what is true of each run.
"""

from __future__ import annotations

import json
import re
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from loguru import logger
from support.worst_output import PROMPTS, WORST

from demo_api.messages import Event, Metrics
from demo_api.transcript import Phase, Reader, Reading, parse

CASES = Path(__file__).parents[1] / "transcripts"
DEMO = "models.tt_transformers.demo.simple_text_demo"
FORMAT = "{time:YYYY-MM-DD HH:mm:ss.SSS} | {level: <8} | {name}:{function}:{line} - {message}\n"
PASSED = b"collected 1 item\n\n===== 1 passed, 31 deselected, 4 warnings in 2.85s =====\n"
CPP = b"2026-11-22 02:20:47.301 | info     |             UMD | Cluster constructor started. (cluster.cpp:426)"
QUICK = settings(max_examples=60, suppress_health_check=list(HealthCheck))


class Case:
    """One recorded transcript."""

    def __init__(self, name: str) -> None:
        self.folder = CASES / name
        self.prompts = [entry["prompt"] for entry in json.loads(self._bytes("prompts.json"))]
        self.stdout, self.stderr = self._bytes("stdout.txt"), self._bytes("stderr.txt")
        self.exit_code = int(self._bytes("exit_code"))
        self.expected = json.loads(self._bytes("expected.json"))

    def read(self, stdout: bytes | None = None, stderr: bytes | None = None, exit_code: int | None = None) -> Reading:
        out = self.stdout if stdout is None else stdout
        err = self.stderr if stderr is None else stderr
        return parse(self.prompts, [out], [err], self.exit_code if exit_code is None else exit_code)

    def _bytes(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


def texts(reading: Reading) -> list[str]:
    return [answer.response for answer in reading.answers]


def counts(reading: Reading) -> list[int | None]:
    return [answer.tokens_generated for answer in reading.answers]


# The recorded transcripts


@pytest.mark.parametrize("name", sorted(path.name for path in CASES.iterdir()))
def test_recorded_transcript(name: str) -> None:
    case = Case(name)
    want = case.expected
    got = json.loads(json.dumps(case.read().as_dict(), allow_nan=False))
    assert set(got) == {"status", "error", "answers", "metrics", "demo_device", "demo_model"}
    assert got["status"] == want["status"]
    assert_error(got["error"], want)
    if "answers" in want:
        assert [answer["response"] for answer in got["answers"]] == [answer["response"] for answer in want["answers"]]
        for answer, true in zip(got["answers"], want["answers"], strict=True):
            assert_count(answer["tokens_generated"], true)
            assert answer["prompt_tokens"] == true["prompt_tokens"]
    if "metrics" in want:
        figures = {name: figure for name, figure in got["metrics"].items() if figure is not None}
        assert figures == pytest.approx(want["metrics"], rel=1e-6)
    assert got["demo_device"] == want.get("demo_device")
    assert got["demo_model"] == want.get("demo_model")


def assert_error(got: dict[str, str] | None, want: dict[str, Any]) -> None:
    if want["status"] == "succeeded":
        assert got is None
        return
    assert got is not None
    assert got["code"] == want["error_code"]
    for part in want["error_contains"]:
        assert part in got["message"]
    assert_one_sentence(got["message"])


def assert_one_sentence(message: str) -> None:
    assert 0 < len(message) <= 500
    assert message.isprintable()
    assert message.endswith((".", "!", "?"))


def assert_count(got: int | None, true: dict[str, Any]) -> None:
    if "tokens_generated" in true:
        assert got == true["tokens_generated"]
    elif "tokens_true" in true:
        assert got in (None, true["tokens_true"])
    else:
        assert got is None  # an end-of-sequence token came first: no count is defined


# Logs written for one test, by the logger that the demo uses


class DemoLog:
    """What the demo would print, written by loguru itself."""

    def __init__(self, serialize: bool = True, level: str = "TRACE") -> None:
        self.printed = b""
        self._options = {"serialize": serialize, "level": level, "format": FORMAT[:-1]}

    def say(self, *messages: str, level: str = "INFO", name: str = DEMO, function: str = "test_demo_text") -> None:
        own = logger.bind(log=id(self)).patch(lambda record: record.update(name=name, function=function))
        # sys.stderr escapes lone surrogates.
        handler = logger.add(
            self._print, filter=lambda record: record["extra"].pop("log", 0) == id(self), **self._options
        )
        try:
            for message in messages:
                own.log(level, message)
        finally:
            logger.remove(handler)

    def _print(self, message: str) -> None:
        self.printed += str(message).encode("utf-8", "backslashreplace")

    def decode(self, tails: list[list[str]], stops: dict[int, int] | None = None) -> None:
        """The decode loop; ``tails[iteration][user]`` is what is shown, ``stops`` when a user stops."""
        self.say("Reading inputs...", "Starting prefill...", "Starting decode loop...")
        for iteration, shown in enumerate(tails):
            self.say(f"Iteration {iteration}: 16ms @ 64.3 tok/s/user (64.3 tok/s throughput)", level="DEBUG")
            for user, stop in (stops or {}).items():
                if iteration >= stop:
                    self.say(f"[User {user}] Finished decoding at iteration {iteration}", level="TRACE")
            self.say(*(f"[User {user}] {tail}" for user, tail in enumerate(shown)), level="DEBUG")
        self.say("Finished decoding, printing the final outputs...\n")

    def answer(self, prompts: list[str], answers: list[str]) -> None:
        self.say(*(block(user, prompts[user], answer) for user, answer in enumerate(answers)))


def block(user: int, prompt: str, answer: str) -> str:
    """As simple_text_demo.py words it."""
    short = prompt
    if len(prompt) > 200:
        short = prompt[:100] + "\n<long prompt not printed in full>\n" + prompt[-100:]
    return f"\n==REPEAT BATCH 0\n==USER {user} - PROMPT\n{short} \n==USER {user} - OUTPUT\n{answer}\n"


@pytest.fixture(autouse=True)
def quiet_logger() -> Iterator[None]:
    logger.remove()  # its handler for sys.stderr, which would print every record a second time
    yield
    logger.add(sys.__stderr__ or sys.stderr)


HOSTILE = st.sampled_from(
    [
        *(
            "\n==REPEAT BATCH 0\n",
            "==USER 0 - PROMPT\n",
            " \n==USER 0 - OUTPUT\n",
            "\n==USER 1 - OUTPUT\n",
            "\r",
            "\r\n",
        ),
        *(
            "\n",
            "\x00",
            "\x85",
            "\u2028",
            "\x1b[31m",
            "\\",
            '"',
            '{"text": "',
            '"record": {"message": ',
            "}}",
            "\U0001f600",
        ),
        *(
            "=== 1 failed in 0.01s ===\n",
            "E   RuntimeError: forged\n",
            "=== 1 passed in 0.01s ===\n",
            "x" * 199,
            "é" * 201,
        ),
        *(
            "Finished decoding, printing the final outputs...\n",
            "Iteration 9: 1ms @ 1 tok/s/user (1 tok/s throughput)\n",
        ),
        f"2026-11-22 02:14:40.449 | INFO     | {DEMO}:test_demo_text:771 - ",
        block(1, "b", "forged"),
    ]
)
TEXT = st.one_of(st.text(), st.lists(st.one_of(HOSTILE, st.text(max_size=3)), max_size=8).map("".join))


@QUICK
@given(st.lists(st.tuples(TEXT, TEXT.map(str.strip)), min_size=1, max_size=4), st.floats(0, 1))
@example([("a", block(1, "b", "forged").strip()), ("b", "true")], 0.5)
@example([("same", "one"), ("same", "two")], 0.5)
def test_any_prompt_and_any_answer_come_back(batch: list[tuple[str, str]], share: float) -> None:
    prompts, answers = [prompt for prompt, _ in batch], [answer for _, answer in batch]
    log = DemoLog()
    log.decode([["tail"] * len(batch)] * 2)
    log.answer(prompts, answers)
    cut = round(share * len(log.printed))
    reading = parse(prompts, [PASSED], [log.printed[:cut], log.printed[cut:]], 0)
    assert texts(reading) == answers
    assert reading.status == "succeeded"


@QUICK
@given(
    st.lists(
        st.tuples(st.text(min_size=1), st.text(alphabet="ab\r\x00é \U0001f600\u2028").map(str.strip)),
        min_size=1,
        max_size=4,
    )
)
def test_plain_text_comes_back_too(batch: list[tuple[str, str]]) -> None:
    prompts, answers = [prompt for prompt, _ in batch], [answer for _, answer in batch]
    log = DemoLog(serialize=False)
    log.decode([["tail"] * len(batch)] * 2)
    log.answer(prompts, answers)
    log.say("", "=== Performance metrics ===", "Prefill compile time: 0.08s")
    reading = parse(prompts, [PASSED], [log.printed], 0)
    assert texts(reading) == answers
    assert reading.metrics == Metrics(prefill_compile_s=0.08)


@pytest.mark.parametrize("serialize", [True, False], ids=["serialised", "plain"])
def test_prompt_with_a_lone_surrogate(serialize: bool) -> None:
    prompts = ["half of a pair: \ud83d"]
    log = DemoLog(serialize=serialize)
    log.decode([["tail"]])
    log.answer(prompts, ["whole"])
    log.say("", "=== Performance metrics ===")
    assert texts(parse(prompts, [PASSED], [log.printed], 0)) == ["whole"]


@pytest.mark.parametrize("length", [199, 200, 201, 202, 32768])
def test_long_prompts_are_quoted_in_part(length: int) -> None:
    prompts = [("\U0001f600b" * length)[:length]]
    log = DemoLog()
    log.answer(prompts, ["yes"])
    assert texts(parse(prompts, [PASSED], [log.printed], 0)) == ["yes"]


# Cut anywhere


def feed(case: Case, sizes: Iterator[int]) -> tuple[Reading, list[Event]]:
    reader = Reader(case.prompts)
    events = []
    for name, data in (("stderr", case.stderr), ("stdout", case.stdout)):
        at = 0
        while at < len(data):
            size = next(sizes)
            events += reader.feed(name, data[at : at + size])
            at += size
    return reader.finish(case.exit_code), events


CUT_CASES = ["2026-04-forged_prompt-json", "2025-07-merged-text", "2025-07-segv-text", "2026-04-force_color_ok-json"]


@pytest.mark.parametrize("name", CUT_CASES)
@settings(QUICK, max_examples=15)
@given(sizes=st.lists(st.one_of(st.integers(1, 9), st.integers(1, 5000)), min_size=1, max_size=20))
def test_cuts_between_chunks_change_nothing(name: str, sizes: list[int]) -> None:
    case = Case(name)
    whole = feed(case, iter([2**30] * 2))
    assert feed(case, (size for _ in iter(int, 1) for size in sizes)) == whole
    assert whole[0] == case.read()


@settings(QUICK, max_examples=60)
@given(st.sampled_from(["2025-07-batch4_limit-json", "2026-04-batch4_limit-text"]), st.floats(0, 1), st.booleans())
def test_a_transcript_with_a_part_missing_tells_nothing_wrong(name: str, share: float, head: bool) -> None:
    case = Case(name)
    cut = round(share * len(case.stderr))
    reading = case.read(stderr=case.stderr[cut:] if head else case.stderr[:cut])
    true = [(answer["response"], answer["tokens_generated"]) for answer in case.expected["answers"]]
    assert len(reading.answers) in (range(5) if not head else (0, 4))
    for answer, (response, tokens) in zip(reading.answers, true, strict=False):
        assert answer.response == response
        assert answer.tokens_generated in (None, tokens)
    assert reading.status == ("succeeded" if len(reading.answers) == 4 else "failed")


def test_a_cut_head_leaves_the_answers_but_no_counts() -> None:
    case = Case("2025-07-batch4_limit-json")
    lost = case.stderr.index(b"Iteration 1:")
    reading = case.read(stderr=case.stderr[lost:])
    assert texts(reading) == [answer["response"] for answer in case.expected["answers"]]
    assert counts(reading) == [None] * 4


def test_a_record_that_was_printed_into_leaves_no_counts() -> None:
    case = Case("2025-07-batch4_limit-json")
    at = case.stderr.index(b"Finished decoding at iteration")
    reading = case.read(stderr=case.stderr[:at] + CPP + b"\n" + case.stderr[at:])
    assert len(reading.answers) == 4
    assert counts(reading) == [None] * 4


def test_half_a_record_glued_to_a_whole_one_hides_only_itself() -> None:
    case = Case("2025-07-batch4_limit-json")
    end = case.stderr.rindex(b"\n", 0, case.stderr.index(b"Iteration 3:"))
    reading = case.read(stderr=case.stderr[: end - 300] + case.stderr[end + 1 :])
    assert len(reading.answers) == 4
    assert counts(reading) == [None] * 4
    assert reading.iterations == 8


def test_a_record_without_its_beginning_leaves_no_counts() -> None:
    case = Case("2025-07-batch4_limit-json")
    begin = case.stderr.rindex(b"\n", 0, case.stderr.index(b"Finished decoding at iteration")) + 1
    assert counts(case.read(stderr=case.stderr[:begin] + case.stderr[begin + 15 :])) == [None] * 4


@pytest.mark.parametrize("lost", [1, 11, 40, 400])
def test_a_log_that_begins_inside_of_a_record_is_read(lost: int) -> None:
    case = Case("2025-07-batch4_limit-json")
    begin = case.stderr.index(b"\n", case.stderr.index(b"Reading inputs...")) + 1
    reading = case.read(stderr=case.stderr[begin + lost :])
    assert reading.phases[0].name == "prefill_compile"
    assert (texts(reading), counts(reading)) == (texts(case.read()), counts(case.read()))


def test_lines_glued_to_records_do_not_hide_them() -> None:
    case = Case("2025-07-batch4_limit-json")
    glued = case.stderr.replace(b'{"text": "', CPP + b"\r 50%|#####     | 8/16" + b'{"text": "')
    assert glued.count(CPP) > 50
    assert case.read(stderr=glued) == case.read()


def test_stray_json_is_no_record() -> None:
    case = Case("2025-07-batch4_limit-json")
    stray = b'{"text": "hello"}\n{"text": "x", "record": {"message": "y"}}\n{"a": [1]}\n'
    stray += b'{"text": "simple_text_demo, not closed\n'
    assert case.read(stderr=case.stderr.replace(b"\n", b"\n" + stray)) == case.read()


@settings(QUICK, max_examples=60)
@given(
    st.lists(st.tuples(st.booleans(), st.one_of(st.binary(max_size=200), TEXT.map(lambda s: s.encode()))), max_size=8),
    st.lists(TEXT, max_size=3),
    st.integers(-70, 300),
)
def test_no_bytes_raise(chunks: list[tuple[bool, bytes]], prompts: list[str], exit_code: int) -> None:
    reader = Reader(prompts)
    for is_stdout, chunk in chunks:
        reader.feed("stdout" if is_stdout else "stderr", chunk)
    reading = reader.finish(exit_code)
    json.dumps(reading.as_dict(), allow_nan=False)
    if reading.error:
        assert_one_sentence(reading.error.message)
    else:
        assert (exit_code, len(reading.answers)) == (0, len(prompts))


@settings(QUICK, max_examples=50)
@given(st.sampled_from(CUT_CASES), st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3)), max_size=9))
def test_no_damage_raises(name: str, damage: list[tuple[float, bytes]]) -> None:
    case = Case(name)
    data = case.stderr + case.stdout
    for share, piece in damage:
        at = round(share * len(data))
        data = data[:at] + piece + data[at + len(piece) :]
    assert case.read(stdout=data[::-1], stderr=data).status in ("succeeded", "failed")


def test_deeply_nested_json_does_not_raise() -> None:
    assert (
        parse(
            ["a"], [], [b'{"text": "", "a": ' + b"[" * 100_000, b'\n{"text": "2026", "a": ' + b"9" * 10_000], 0
        ).answers
        == []
    )


# Forgeries


def forged(message: str, process: int = 1, name: str = DEMO, function: str = "test_demo_text") -> bytes:
    inner = {"name": name, "function": function, "message": message, "level": {"name": "INFO"}}
    record = {"text": "2026\n", "record": {**inner, "process": {"id": process}, "time": {"timestamp": 1.5}}}
    return json.dumps(record).encode() + b"\n"


def test_a_forged_record_inside_an_answer_never_wins() -> None:
    prompts = ["a", "b"]
    answer = forged(block(1, "b", "forged")).decode() + forged("Prefill compile time: 9.0s").decode().strip()
    log = DemoLog()
    log.decode([["tail", forged(block(1, "b", "forged")).decode()]])
    log.answer(prompts, [answer, "true"])
    log.say("Prefill compile time: 0.5s")
    reading = parse(prompts, [PASSED], [log.printed], 0)
    assert texts(reading) == [answer, "true"]
    assert reading.metrics.prefill_compile_s == 0.5


def test_a_record_of_another_process_is_not_read() -> None:
    log = DemoLog()
    log.decode([["tail"]])
    others = forged(block(0, "a", "forged")) + forged("Iteration 1: 1ms @ 1.0 tok/s/user (1.0 tok/s throughput)")
    before = len(log.printed)
    log.answer(["a"], ["true"])
    reading = parse(["a"], [PASSED], [log.printed[:before] + others + log.printed[before:]], 0)
    assert texts(reading) == ["true"]
    assert reading.iterations == 1


def test_records_on_stdout_do_not_count_where_the_log_is_on_stderr() -> None:
    log = DemoLog()
    log.decode([["tail"]])
    own = re.search(rb'"process": \{"id": (\d+)', log.printed)
    assert own
    reader = Reader(["a"])
    reader.feed("stderr", log.printed)
    assert reader.feed("stdout", forged("Starting prefill...") + forged(block(0, "a", "forged"), int(own[1]))) == []
    reader.feed("stdout", PASSED)
    reading = reader.finish(0)
    assert reading.answers == []
    assert reading.error is not None
    assert reading.error.code == "no_answer"


@pytest.mark.parametrize("other", [{"name": f"{DEMO}_other"}, {"function": "helper"}], ids=["logger", "function"])
def test_only_the_demo_is_read(other: dict[str, str]) -> None:
    log = DemoLog()
    log.say("Reading inputs...")
    log.say(block(0, "a", "forged"), "Prefill compile time: 9.0s", "Starting prefill...", **other)
    reading = parse(["a"], [PASSED], [log.printed], 0)
    assert (reading.answers, reading.metrics) == ([], Metrics())
    assert [phase.name for phase in reading.phases] == ["load"]


def test_a_second_batch_changes_nothing() -> None:
    log = DemoLog()
    log.decode([["one"], ["one two"]], stops={0: 1})
    log.answer(["a", "b"], ["first", "limit"])
    log.say("Prefill compile time: 0.5s")
    log.decode([["x"]] * 5, stops={0: 3, 1: 0})
    log.say(block(0, "a", "second").replace("BATCH 0", "BATCH 1"), block(0, "a", "third"), "Prefill compile time: 0.7s")
    reading = parse(["a", "b"], [PASSED], [log.printed], 0)
    assert (texts(reading), counts(reading), reading.iterations) == (["first", "limit"], [2, 3], 2)
    assert reading.metrics.prefill_compile_s == 0.5


# Counts


def growing(iterations: int) -> list[list[str]]:
    return [["word " * (iteration + 1)] for iteration in range(iterations)]


@pytest.mark.parametrize(("stops", "count"), [({0: 2}, 3), ({}, 4)], ids=["stopped", "limit"])
def test_count_from_trace_records(stops: dict[int, int], count: int) -> None:
    log = DemoLog()
    log.decode(growing(3), stops)
    log.answer(["a"], ["b"])
    assert counts(parse(["a"], [PASSED], [log.printed], 0)) == [count]


def test_no_count_where_the_text_stood_still_and_no_trace_record_says_why() -> None:
    log = DemoLog(level="DEBUG")
    log.decode([*growing(3), *growing(3)[-1:]], {0: 3})
    log.answer(["a"], ["b"])
    assert counts(parse(["a"], [PASSED], [log.printed], 0)) == [None]


def test_a_text_that_reads_like_a_trace_record_is_none() -> None:
    log = DemoLog()
    log.decode([["Finished decoding at iteration 0"], ["Finished decoding at iteration 01"]])
    log.answer(["a"], ["b"])
    assert counts(parse(["a"], [PASSED], [log.printed], 0)) == [3]


def test_a_loop_may_stand_still_and_grow() -> None:
    tail = "..." + ("again " * 20)[:97]
    log = DemoLog()
    log.decode([[tail]] * 3)
    log.answer(["a"], ["b"])
    assert counts(parse(["a"], [PASSED], [log.printed], 0)) == [4]


@pytest.mark.parametrize(
    ("answer", "said"), [("<|eot_id|> again", ""), ("b", "Please note that 'stop_at_eos' is disabled. Output ...")]
)
def test_no_count_where_none_is_defined(answer: str, said: str) -> None:
    log = DemoLog()
    log.decode(growing(3))
    log.answer(["a"], [answer])
    log.say(said)
    assert counts(parse(["a"], [PASSED], [log.printed], 0)) == [None]


def test_figures_that_are_no_numbers_are_not_known() -> None:
    log = DemoLog()
    log.say("Prefill compile time: nans", "Decode compile time: infs", "Average Time to First Token (TTFT): 1.5.2ms")
    assert parse(["a"], [PASSED], [log.printed], 0).metrics == Metrics()


# Phases and events


def test_phases_and_events_of_a_live_run() -> None:
    plugin = b'{"text": "demo_api_child: collected\\n", "record": {"name": "demo_api_child", "message": "collected", '
    log = DemoLog()
    log.say("Reading inputs...", "Starting prefill warmup...")
    log.decode([["tail  of text"]])
    reader = Reader(["a"])
    events = reader.feed("stderr", plugin + b'"time": {"timestamp": 12.5}}}\n')
    assert events == [Event("phase", 12.5, {"phase": "load"})]
    events = reader.feed("stderr", log.printed)
    names = [event.data["phase"] for event in events if event.kind == "phase"]
    assert names == ["prefill_compile", "prefill", "decode_compile", "decode", "output"]
    assert [event.data for event in events if event.kind == "progress"] == [
        {"iteration": 0, "tokens_per_second_per_user": 64.3}
    ]
    assert [event.data for event in events if event.kind == "text"] == [{"user": 0, "tail": "tail  of text"}]
    phases = reader.finish(0).phases
    assert phases[0] == Phase("load", 12.5)
    assert [phase.name for phase in phases] == ["load", *names]
    times = [phase.at for phase in phases if phase.at is not None]
    assert len(times) == 6
    assert times == sorted(times)


@pytest.mark.parametrize("said", ["[User 1] tail", "[User 0] " + "x" * 200], ids=["nobody's", "longer than any"])
def test_a_text_that_the_demo_cannot_have_shown_is_no_event(said: str) -> None:
    log = DemoLog()
    log.decode([["tail"]])
    log.printed = log.printed[: log.printed.rindex(b'{"text"')]  # decoding goes on
    reader = Reader(["a"])
    assert any(event.kind == "text" for event in reader.feed("stderr", log.printed))
    log = DemoLog()
    log.say(said)
    assert reader.feed("stderr", log.printed) == []


def test_plain_text_has_phases_without_times() -> None:
    reading = Case("2026-04-one_ok-text").read()
    names = ["load", "prefill_compile", "prefill", "decode_compile", "decode", "output"]
    assert reading.phases == [Phase(name, None) for name in names]
    assert reading.iterations == 29


# How it ended

VERDICT_FAILED = b"==== short test summary info ====\nFAILED a.py::t - short reason\n==== 1 failed in 0.01s ====\n"


def failures(*lines: str) -> bytes:
    return "\n".join(["==== FAILURES ====", "____ test_demo_text[1] ____", *lines, ""]).encode() + VERDICT_FAILED


GROUP = (
    "  + Exception Group Traceback (most recent call last):",
    '  |   File "a.py", line 3, in test_group',
    "  | ExceptionGroup: two things (2 sub-exceptions)",
    "  +-+---------------- 1 ----------------",
    "    | ValueError: a bad value",
)
SYNTAX = ('E     File "a.py", line 1', "E       def f(:", "E             ^", "E   SyntaxError: invalid syntax")
THROW = (
    "E   RuntimeError: TT_THROW @ a.cpp:1: tt::exception",
    "E   info:",
    "E   no sfpi",
    "E   backtrace:",
    "E    --- x",
)
CHAIN = ("E   KeyError: 'first'", "", "During handling ...", "E   OSError: last")
CAPTURED = (
    "E   OSError: true",
    "---- Captured stderr call ----",
    "E   OSError: forged",
    "__ x __",
    "E   OSError: forged",
)
REPORT = ("==== FAILURES ====", "____ x ____", "E   OSError: forged", "__ not a header", "E   OSError: forged")
ENDINGS: list[tuple[str, int, bytes, bytes, str, str]] = [
    ("assertion without a message", 1, failures("E    assert 3 == 4"), b"", "demo_failed", "assert 3 == 4."),
    (
        "assertion",
        1,
        failures("E  AssertionError: why", "E  assert 1 == 2"),
        b"",
        "demo_failed",
        "AssertionError: why.",
    ),
    (
        "throw",
        1,
        failures(*THROW),
        b"",
        "demo_failed",
        "RuntimeError: TT_THROW @ a.cpp:1: tt::exception info: no sfpi.",
    ),
    ("syntax", 1, failures(*SYNTAX), b"", "demo_failed", "SyntaxError: invalid syntax."),
    ("chain", 1, failures(*CHAIN), b"", "demo_failed", "OSError: last."),
    ("captured", 1, failures(*CAPTURED), b"", "demo_failed", "OSError: true."),
    (
        "group",
        1,
        failures(*GROUP),
        b"",
        "demo_failed",
        "ExceptionGroup: two things (2 sub-exceptions) ValueError: a bad value.",
    ),
    (
        "two tests",
        1,
        failures("E   OSError: true", "_ x[1] _", "E   OSError: other"),
        b"",
        "demo_failed",
        "OSError: true.",
    ),
    ("captured report", 1, failures(*CAPTURED[:2], *REPORT), b"", "demo_failed", "OSError: true."),
    ("native traceback", 1, failures("Traceback (most recent call last):"), b"", "demo_failed", "short reason."),
    ("no reason", 1, b"", b"", "demo_failed", "The demo failed without a reason (exit code 1)."),
    ("timeout", 1, b"++++ Timeout ++++\n", b"", "demo_failed", "pytest-timeout ended the process."),
    ("no pytest", 1, b"", b"python: No module named pytest\n", "demo_failed", "python: No module named pytest."),
    ("exit 1 after passing", 1, PASSED, b"", "crashed", "The child left with exit code 1 after its test had passed."),
    (
        "pytest.exit",
        2,
        b"!!!! _pytest.outcomes.Exit: no device !!!!\n",
        b"",
        "interrupted",
        "The run was interrupted: no device.",
    ),
    (
        "interrupted after passing",
        2,
        b"!!!! KeyboardInterrupt !!!!\n" + PASSED,
        b"",
        "interrupted",
        "KeyboardInterrupt",
    ),
    (
        "collection",
        2,
        b"E   OSError: x\n!!!! Interrupted: 1 error during collection !!!!\n",
        b"",
        "collection_error",
        "OSError: x",
    ),
    (
        "internal",
        3,
        b"INTERNALERROR>   File\nINTERNALERROR> SystemExit: 3\n",
        b"",
        "internal_error",
        "pytest broke down: SystemExit: 3.",
    ),
    (
        "usage",
        4,
        b"",
        b"ERROR: file or directory not found: a.py\n\n",
        "usage_error",
        "file or directory not found: a.py.",
    ),
    (
        "usage of a module",
        4,
        b"",
        b"ERROR: usage: __main__.py [options]\n__main__.py: error: no x\n",
        "usage_error",
        "no x.",
    ),
    ("nothing", 5, b"==== no tests ran in 0.01s ====\n", b"", "no_tests", "pytest found no test to run."),
    (
        "module skipped",
        5,
        b"SKIPPED [1] a.py:2: wide\n== 1 skipped in 0.57s ==\n",
        b"",
        "skipped",
        "The demo was skipped: wide.",
    ),
    (
        "skipped, no summary",
        0,
        b"a.py::t SKIPPED (why) [100%]\n1 skipped in 0.57s\n",
        b"",
        "skipped",
        "The demo was skipped: why.",
    ),
    ("xfailed", 0, b"==== 1 xfailed, 1 xpassed in 0.95s ====\n", b"", "no_answer", "1 of 1 prompts"),
    (
        "abort",
        -6,
        b"",
        b"terminate called\n  what():  TT_FATAL\nFatal Python error: Aborted\n",
        "crashed",
        "Aborted. TT_FATAL",
    ),
    ("no faulthandler", -11, b"", b"", "crashed", "The child crashed by SIGSEGV: Segmentation fault."),
    ("unknown signal", -65, b"", b"", "crashed", "The child crashed by signal 65"),
    ("hangup", -1, b"", b"", "interrupted", "The child was stopped by SIGHUP."),
    ("other code", 42, b"", b"", "crashed", "The child left with exit code 42."),
]


@pytest.mark.parametrize(
    ("code", "part", "ending"), [(e[4], e[5], e[1:4]) for e in ENDINGS], ids=[e[0] for e in ENDINGS]
)
def test_ending(code: str, part: str, ending: tuple[int, bytes, bytes]) -> None:
    exit_code, stdout, stderr = ending
    error = parse(["a"], [stdout], [stderr], exit_code).error
    assert error is not None
    assert error.code == code
    assert part in error.message if code != "demo_failed" else part == error.message
    assert_one_sentence(error.message)


def succeeded_log() -> bytes:
    log = DemoLog()
    log.decode([["tail"]])
    log.answer(["a"], ["b"])
    return log.printed


@pytest.mark.parametrize("stdout", [b"", VERDICT_FAILED, b"= 1 xpassed in 0.1s =\n", PASSED + b"= 1 error in 0.1s =\n"])
def test_answers_without_a_passed_test_are_no_success(stdout: bytes) -> None:
    reading = parse(["a"], [stdout], [succeeded_log()], 0)
    assert (texts(reading), reading.status) == (["b"], "failed")
    assert reading.error is not None
    assert reading.error.code == "no_answer"


@pytest.mark.parametrize("exit_code", [1, 2, 3, 4, 5, 42, -9, -11])
def test_a_bad_exit_code_is_no_success(exit_code: int) -> None:
    reading = parse(["a"], [PASSED], [succeeded_log()], exit_code)
    assert (texts(reading), reading.status) == (["b"], "failed")


@pytest.mark.parametrize(
    "summary",
    [
        "== 1 passed, 2 subtests passed in 0.55s ==",
        "1 passed in 61.20s (0:01:01)",
        "= \x1b[32m1 passed\x1b[0m in 1.00s =",
        "= 2 passed, 1 rerun in 9.00s =",
    ],
)
def test_summaries_of_a_passed_test(summary: str) -> None:
    assert parse(["a"], [summary.encode() + b"\n" + CPP], [succeeded_log()], 0).status == "succeeded"


def test_streams_merged_into_stderr() -> None:
    assert parse(["a"], [], [succeeded_log() + PASSED], 0).status == "succeeded"


def test_a_last_line_without_a_newline_counts() -> None:
    assert parse(["a"], [PASSED.rstrip()], [succeeded_log()], 0).status == "succeeded"


def test_pytest_has_the_last_word() -> None:
    forged_lines = b"== 1 passed in 0.01s ==\nSKIPPED [1] a.py:1: forged\n== 1 skipped in 0.01s ==\n"
    summary = b"== short test summary info ==\nSKIPPED [1] a.py:1: true\n== 1 skipped in 0.57s ==\n"
    error = parse(["a"], [forged_lines + summary], [], 0).error
    assert error is not None
    assert (error.code, error.message) == ("skipped", "The demo was skipped: true.")
    assert parse(["a"], [forged_lines + PASSED], [succeeded_log()], 0).status == "succeeded"


def test_a_long_reason_keeps_its_beginning_and_its_end() -> None:
    error = parse(["a"], [failures("E   RuntimeError: at first " + "x" * 900 + " the cause")], [], 1).error
    assert error is not None
    assert error.message.startswith("RuntimeError: at first")
    assert error.message.endswith("the cause.")
    assert_one_sentence(error.message)


def test_the_message_shows_neither_prompt_nor_control_characters() -> None:
    prompt = "A prompt that nobody else need see\nin a message"
    line = "E   ValueError: \x1b[31mred\x1b[0m \x07bell \x1b]0;title\x07" + prompt.replace("\n", " ")
    error = parse([prompt], [failures(line)], [], 1).error
    assert error is not None
    assert error.message == "ValueError: red bell [the prompt]."


# Plain text


def test_plain_answer_that_is_cut_is_no_answer() -> None:
    case = Case("2026-04-one_ok-text")
    paragraph = case.stderr.index(b"Paris.\n\n", case.stderr.index(b"==USER 0 - OUTPUT")) + len(b"Paris.\n\n")
    assert case.read(stderr=case.stderr[:paragraph]).answers == []
    assert case.read(stderr=case.stderr[:paragraph], exit_code=-9).answers == []


def test_plain_answer_of_bytes_that_are_no_text_is_no_answer() -> None:
    case = Case("2026-04-one_ok-text")
    at = case.stderr.index(b"==USER 0 - OUTPUT") + len(b"==USER 0 - OUTPUT\n")
    assert case.read(stderr=case.stderr[:at] + b"\xff" + case.stderr[at:]).answers == []


def test_metrics_inside_a_plain_answer_are_of_it() -> None:
    line = f"2026-11-22 02:14:40.449 | INFO     | {DEMO}:test_demo_text:1 - "
    answer = f"so:\n\n{line}\n{line}=== Performance metrics ===\n{line}Prefill compile time: 9.0s\nok"
    log = DemoLog(serialize=False)
    log.decode([["tail"]])
    log.answer(["a"], [answer])
    log.say("", "=== Performance metrics ===", "Prefill compile time: 0.5s")
    reading = parse(["a"], [PASSED], [log.printed], 0)
    assert texts(reading) == [answer]
    assert reading.metrics.prefill_compile_s == 0.5


def test_a_record_printed_into_a_plain_log_is_not_read() -> None:
    log = DemoLog(serialize=False)
    log.say("Reading inputs...")
    log.printed += forged(block(0, "a", "forged"))
    log.decode([["tail"]])
    log.answer(["a"], ["true"])
    log.say("", "=== Performance metrics ===")
    assert texts(parse(["a"], [PASSED], [log.printed], 0)) == ["true"]


def test_plain_answer_that_reads_like_a_report_is_whole() -> None:
    answer = "so:\n\nFAILED a.py::t\n\n==== FAILURES ====\nok"
    log = DemoLog(serialize=False)
    log.decode([["tail"]])
    log.answer(["a"], [answer])
    assert texts(parse(["a"], [VERDICT_FAILED], [log.printed], 1)) == [answer]


def test_metrics_behind_lost_plain_answers_are_read() -> None:
    case = Case("2026-04-batch4_limit-text")
    reading = case.read(stderr=case.stderr[case.stderr.index(b"==USER 0 - OUTPUT") :])
    assert reading.answers == []
    assert reading.metrics == case.read().metrics != Metrics()


def test_a_blank_line_after_a_plain_answer_is_not_of_it() -> None:
    log = DemoLog(serialize=False)
    log.decode([["tail"]])
    log.answer(["a"], ["b"])
    log.printed += b"\n"
    log.say("", "=== Performance metrics ===")
    assert texts(parse(["a"], [PASSED], [log.printed], 0)) == ["b"]


def test_cpp_lines_after_a_plain_answer_are_not_of_it() -> None:
    case = Case("2025-07-forged_prompt-text")
    glued = re.sub(
        rb"\n\n(2026-[^\n]*test_demo_text:\d+ - \n)",
        rb"\n\n" + CPP + b"\n 50%|#####     | 8/16 [00:00<00:00]" + rb"\1",
        case.stderr,
    )
    assert glued.count(CPP) >= 2
    assert texts(case.read(stderr=glued)) == texts(case.read())


# What tt-metal's own modules tell

COMMON = {"name": "models.tt_transformers.tt.common", "function": "preprocess_inputs_prefill"}
MODEL_CONFIG = {"name": "models.tt_transformers.tt.model_config", "function": "__init__"}


def prompt_tokens(reading: Reading) -> list[int | None]:
    return [answer.prompt_tokens for answer in reading.answers]


def encoded(log: DemoLog, *lengths: str, batch: int = 0) -> None:
    log.say(f"Processing batch {batch}")
    log.say(*lengths, **COMMON)
    log.say("Starting prefill warmup...")


LENGTHS = {
    "one for each user": (["Encoded prompt lengths:15, 18"], [15, 18]),
    "a space before them": (["Encoded prompt lengths: 15, 18"], [15, 18]),
    "padding": (["Encoded prompt lengths:15, 18, 15, 18"], [15, 18]),
    "fewer than users": (["Encoded prompt lengths:15"], [15, None]),
    "clipped": (["Encoded prompt lengths:2000, 1800", "Left-clipping prompts to 900"], [900, 900]),
    "twice": (["Encoded prompt lengths:15, 18", "Encoded prompt lengths:1, 2"], [15, 18]),
    "no numbers": (["Encoded prompt lengths:many"], [None, None]),
    "an endless number": (["Encoded prompt lengths:" + "9" * 5000], [None, None]),
    "not said": ([], [None, None]),
}


@pytest.mark.parametrize("serialize", [True, False], ids=["serialised", "plain"])
@pytest.mark.parametrize(("said", "true"), LENGTHS.values(), ids=LENGTHS)
def test_prompts_are_counted_by_the_demo(said: list[str], true: list[int | None], serialize: bool) -> None:
    log = DemoLog(serialize=serialize)
    log.say("Reading inputs...")
    encoded(log, *said)
    log.decode([["tail"] * 2])
    log.answer(["a", "b"], ["one", "two"])
    log.say("", "=== Performance metrics ===")
    encoded(log, "Encoded prompt lengths:3, 4", batch=1)
    assert prompt_tokens(parse(["a", "b"], [PASSED], [log.printed], 0)) == true


FORGED_LENGTHS = (
    f"2026-11-22 02:14:40.449 | INFO     | {COMMON['name']}:{COMMON['function']}:1 - Encoded prompt lengths:9"
)


@pytest.mark.parametrize("serialize", [True, False], ids=["serialised", "plain"])
@pytest.mark.parametrize("where", ["prompt", "tail", "answer"])
@pytest.mark.parametrize("known", [True, False], ids=["counted", "not counted"])
def test_no_prompt_and_no_answer_can_forge_a_count_of_prompt_tokens(serialize: bool, where: str, known: bool) -> None:
    record = forged("Encoded prompt lengths:9", **COMMON).decode()
    lie = f"so:\nProcessing batch 0\n{FORGED_LENGTHS}\n{record}ok"
    prompt, tail, answer = (lie if where == name else "a" for name in ("prompt", "tail", "answer"))
    log = DemoLog(serialize=serialize)
    log.say("Reading inputs...")
    encoded(log, *(["Encoded prompt lengths:15"] if known else []))
    log.decode([[tail.replace("\n", " ")]])
    log.answer([prompt], [answer])
    log.say("", "=== Performance metrics ===")
    reading = parse([prompt], [PASSED], [log.printed], 0)
    assert (texts(reading), prompt_tokens(reading)) == ([answer], [15 if known else None])


@pytest.mark.parametrize(
    "other",
    [{**COMMON, "function": "encode_prompt_hf"}, {**COMMON, "name": "models.demos.tt.common"}, {}],
    ids=["another function", "another module", "the demo"],
)
def test_only_the_function_that_encodes_prompts_counts_them(other: dict[str, str]) -> None:
    log = DemoLog()
    log.say("Reading inputs...", "Processing batch 0")
    log.say("Encoded prompt lengths:9", **other)
    log.decode([["tail"]])
    log.answer(["a"], ["b"])
    assert prompt_tokens(parse(["a"], [PASSED], [log.printed], 0)) == [None]


INFERRED = "Inferring device name: N150"
DEVICES = {
    "inferred": ([INFERRED], [], "N150"),
    "until May 2026": ([INFERRED], ["Model Foo-9B does not have prefill targets set for device T3K"], "T3K"),
    "since May 2026": (
        [],
        ["Model Foo-9B does not have centralized performance targets set for device N300, batch_size=1, seq_len=1024"],
        "N300",
    ),
    "blackhole": (["Inferring device name: P150x4"], [], "P150x4"),
    "two models": ([INFERRED, "Inferring device name: N300"], [], "N150"),
    "not said": (["Checkpoint directory: /ckpt"], ["==", "Inferring device name: N300"], None),
}


@pytest.mark.parametrize("serialize", [True, False], ids=["serialised", "plain"])
@pytest.mark.parametrize(("loading", "at_last", "device"), DEVICES.values(), ids=DEVICES)
def test_the_device_is_known_from_several_lines(
    loading: list[str], at_last: list[str], device: str | None, serialize: bool
) -> None:
    log = DemoLog(serialize=serialize)
    log.say("Reading inputs...")
    log.say(*loading, **MODEL_CONFIG)
    log.decode([["tail"]])
    log.answer(["a"], ["b"])
    log.say("", "=== Performance metrics ===", *at_last)
    assert parse(["a"], [PASSED], [log.printed], 0).demo_device == device


# An answer whose first token is the end


EMPTY = {
    "one more token": ("?<|eot_id|>assistant<|end_header_id|>  <|eot_id|> again", "<|eot_id|> again again", True),
    "nothing more": ("[INST] a [/INST]</s>", "</s>", True),
    "a special token": ("a<|im_end|><|im_start|>", "<|im_end|><|im_start|> user", True),
    "half a character": ("a<|eot_id|>\ufffd\ufffd", "<|eot_id|>\U0001f600 smile", True),
    "a newline": ("a<|eot_id|> ", "<|eot_id|>\nagain", True),
    "spelled out": ("<|eot_id|>assistant<|end_header_id|>  <|eot", "<|eot_id|> is the end", False),
    "spelled out after a quoted header": (
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>  <|eot",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n<|eot_id|>",
        False,
    ),
    "a usual answer": ("<|eot_id|>assistant<|end_header_id|>  It is", "It is four.", False),
    "not shown": ("something else", "<|eot_id|> again", False),
}


@pytest.mark.parametrize(("tail", "answer", "empty"), EMPTY.values(), ids=EMPTY)
def test_an_answer_whose_first_token_is_the_end(tail: str, answer: str, empty: bool) -> None:
    log = DemoLog()
    log.decode([[tail], [tail + " and more"]])
    log.answer(["a"], [answer])
    reading = parse(["a"], [PASSED], [log.printed], 0)
    assert (reading.ended_first, texts(reading)) == (frozenset({0} if empty else {}), [answer])


@pytest.mark.parametrize("name", ["2025-07-answer_eos_first-json", "2026-04-answer_eos_first-text"])
def test_a_recorded_answer_whose_first_token_is_the_end(name: str) -> None:
    assert Case(name).read().ended_first == {0}


def test_without_its_first_iteration_a_log_does_not_tell_what_came_first() -> None:
    case = Case("2025-07-answer_eos_first-json")
    lost = case.stderr.index(b"Iteration 1:")
    assert case.read(stderr=case.stderr[lost:]).ended_first == frozenset()


# Cut behind an answer


@pytest.mark.parametrize("name", ["2025-07-batch4_limit-json", "2026-04-batch4_limit-text"])
def test_a_log_that_is_cut_behind_the_answers_has_their_counts(name: str) -> None:
    case = Case(name)
    true = [answer["tokens_generated"] for answer in case.expected["answers"]]
    seen = set()
    for cut in range(case.stderr.index(b"==USER 0 - OUTPUT"), len(case.stderr), 37):
        reading = case.read(stderr=case.stderr[:cut])
        assert counts(reading) == true[: len(reading.answers)]
        assert prompt_tokens(reading) == prompt_tokens(case.read())[: len(reading.answers)]
        seen.add(len(reading.answers))
    assert seen == {0, 1, 2, 3, 4}


LEFT = {
    "exit code 0": (0, b"", True),
    "exit code 7": (7, b"", True),
    "a failed test": (1, VERDICT_FAILED, True),
    "a passed test": (0, PASSED, False),  # which has printed its metrics: the log is not whole
    "a signal": (-9, b"", False),
}


@pytest.mark.parametrize("serialize", [True, False], ids=["serialised", "plain"])
@pytest.mark.parametrize("given", [1, 3, 4])
@pytest.mark.parametrize(("exit_code", "stdout", "whole"), LEFT.values(), ids=LEFT)
def test_answers_of_a_child_that_left_between_two(
    exit_code: int, stdout: bytes, whole: bool, given: int, serialize: bool
) -> None:
    prompts = ["a", "b", "c", "d"]
    log = DemoLog(serialize=serialize)
    log.decode([["tail"] * 4] * 2)
    log.answer(prompts, ["one\n\ntwo"] * given)
    reading = parse(prompts, [stdout], [log.printed], exit_code)
    assert texts(reading) == ["one\n\ntwo"] * (given if whole or serialize else given - 1)
    assert reading.status == "failed" or (given, exit_code, stdout) == (4, 0, PASSED)


def test_a_plain_answer_before_a_damaged_header_is_no_answer() -> None:
    case = Case("2026-04-batch4_limit-text")
    reading = case.read(stderr=case.stderr.replace(b"==USER 2 - PROMPT", b"==USER"))
    assert len(reading.answers) == 1


# Memory

SMALL = 2**17


@pytest.mark.timeout(60)  # each takes much less than a second; what is not linear takes minutes
@pytest.mark.parametrize("name", WORST)
def test_a_little_of_the_worst_output_is_read_at_once(name: str) -> None:
    reader, fed = Reader(PROMPTS), 0
    tracemalloc.start()
    try:
        for piece in WORST[name].pieces(SMALL):
            reader.feed(WORST[name].stream, piece)
            fed += len(piece)
        kept, _ = tracemalloc.get_traced_memory()
        assert kept < 2 * fed + 2**20, "what is kept of each line would fill the memory in the end"
        assert reader.finish(0).status == "failed"
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 100 * 2**20


def test_a_record_behind_an_endless_line_is_read() -> None:
    log = succeeded_log()
    assert texts(parse(["a"], [PASSED], [b"x" * 2**20] * 20 + [b"\n", log], 0)) == ["b"]
    pieces = [b"x" * 2**20, b"x\n"] * 20
    assert parse(["a"], [PASSED], [*pieces, log], 0) == parse(["a"], [PASSED], [log], 0)


def test_a_line_that_was_thrown_away_leaves_no_counts() -> None:
    case = Case("2025-07-batch4_limit-json")
    begin = case.stderr.rindex(b"\n", 0, case.stderr.index(b"Finished decoding at iteration")) + 1
    reading = case.read(stderr=case.stderr[:begin] + b"x" * (9 * 2**20) + case.stderr[begin:])
    assert len(reading.answers) == 4
    assert counts(reading) == [None] * 4


def test_the_longest_answer_is_read() -> None:
    answer = "\x01" * (2048 * 128)
    log = DemoLog()
    log.answer(["a"], [answer])
    assert texts(parse(["a"], [PASSED], [log.printed], 0)) == [answer]


def test_parse_reads_any_iterables() -> None:
    case = Case("2025-07-batch4_limit-json")
    pieces: Callable[[bytes], Iterator[bytes]] = lambda data: (data[at : at + 999] for at in range(0, len(data), 999))  # noqa: E731
    assert parse(case.prompts, pieces(case.stdout), pieces(case.stderr), case.exit_code) == case.read()


PLUGIN_SAYS = {
    "no exit code": "ended",
    "a word for an exit code": "ended well",
    "an endless exit code": "ended " + "9" * 5000,
    "text that is no JSON": "text [",
    "text of nobody": 'text [7, "a"]',
    "text of no number": 'text [true, "a"]',
    "text of a very large number": "text [" + "9" * 5000 + ', "a"]',
    "text in a deep list": "text " + "[" * 100_000,
}


@pytest.mark.parametrize("said", PLUGIN_SAYS.values(), ids=PLUGIN_SAYS)
def test_what_the_plugin_cannot_have_said_is_nothing(said: str) -> None:
    record = {"name": "demo_api_child", "message": said, "time": {"timestamp": 1.0}}
    reader = Reader(["a", "b"])
    line = json.dumps({"text": "demo_api_child: x\n", "record": record})
    assert (reader.feed("stderr", f"{line}\n".encode()), reader.exit_code) == ([], None)
