"""Comparing two engines: what is computed, and the command against real servers on real ports."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from support.demo_homes import make_home
from support.echo_runner import EchoRunner
from support.serving import Server, clean_environ
from support.waiting import until

from demo_api import messages
from demo_api.cli import main
from demo_api.cli.compare.comparison import (
    DIFFERENT,
    NOT_COMPARED,
    SAME,
    SIMILAR,
    Comparison,
    Pair,
    Part,
    Replies,
    Reply,
    Setting,
    settings_of,
)
from demo_api.cli.compare.text_difference import Difference, first_difference, marked, similarity, words
from demo_api.config import Settings
from demo_api.demo.prompt_files import BUNDLED, read_prompts
from demo_api.devices.batch_runner import Listener
from demo_api.devices.lock import DeviceLock
from demo_api.errors import BadRequest
from demo_api.messages import Batch, Outcome, Timing
from demo_api.process.tree import survivors

TEXTS = st.text(alphabet="ab .\n", max_size=30) | st.text(max_size=30)


# What is computed


@given(TEXTS)
def test_the_words_of_a_text_are_the_text(text: str) -> None:
    assert "".join(words(text)) == text


@given(TEXTS, TEXTS)
def test_before_the_first_difference_all_is_the_same_and_there_it_is_not(one: str, other: str) -> None:
    found = first_difference(one, other)
    if found is None:
        assert one == other
        return
    character, word = found.character - 1, found.word - 1
    assert one[:character] == other[:character]
    assert one[character : character + 1] != other[character : character + 1]
    assert words(one)[:word] == words(other)[:word]
    assert words(one)[word : word + 1] != words(other)[word : word + 1]


@given(TEXTS, TEXTS)
def test_similarity_is_1_for_the_same_text_and_for_no_other(one: str, other: str) -> None:
    assert (similarity(one, other) == 1.0) == (one == other)
    assert 0.0 <= similarity(one, other) <= 1.0


@given(TEXTS, TEXTS)
def test_the_pieces_are_the_texts_and_what_is_shared_is_in_both(one: str, other: str) -> None:
    left, right = marked(one, other)
    assert "".join(piece.text for piece in left) == one
    assert "".join(piece.text for piece in right) == other
    assert [piece.text for piece in left if piece.shared] == [piece.text for piece in right if piece.shared]
    assert all(piece.shared for piece in [*left, *right]) == (one == other)


DIFFERENCES = {
    "the same": ("a b", "a b", None, 1.0),
    "the last word": ("It is 4.", "It is 5.", Difference(7, 3), 2 / 3),
    "within a word": ("It is", "It was", Difference(4, 2), 0.5),
    "a text goes on": ("Hello", "Hello there", Difference(6, 2), 2 / 3),
    "a word goes on": ("4", "4.", Difference(2, 1), 0.0),
    "white space only": ("a b", "a  b", Difference(3, 2), 0.5),
    "a line feed at the end": ("a", "a\n", Difference(2, 2), 2 / 3),
    "one is empty": ("", "a", Difference(1, 1), 0.0),
    "beyond 16 bits": ("\U0001f41d a", "\U0001f41d b", Difference(3, 2), 0.5),
}


@pytest.mark.parametrize(("one", "other", "difference", "ratio"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_a_difference_is_shown_by_character_and_word(
    one: str, other: str, difference: Difference | None, ratio: float
) -> None:
    assert first_difference(one, other) == difference
    assert similarity(one, other) == pytest.approx(ratio)


def test_frequent_words_of_a_long_text_count_as_shared() -> None:
    assert similarity("the " * 500 + "end", "the " * 500 + "END") > 0.99  # autojunk would drop every "the"


def said(*texts: str, **figures: object) -> Replies:
    return Replies([Reply(response=text, **figures) for text in texts])  # type: ignore[arg-type]


FAILED = Replies([Reply(error="500: It failed.")])
VERDICTS = {
    "the same": (said("a b"), said("a b"), 1.0, SAME, 0),
    "not the same": (said("a b"), said("a c"), 1.0, DIFFERENT, 1),
    "just similar enough": (said("a b"), said("a c"), 0.5, SIMILAR, 0),
    "not similar enough": (said("a b"), said("a c"), 0.51, DIFFERENT, 1),
    "the demo failed": (FAILED, said("a"), 0.0, NOT_COMPARED, 2),
    "both failed": (FAILED, FAILED, 0.0, NOT_COMPARED, 2),
    "one repeat failed": (Replies([*said("a").replies, *FAILED.replies]), said("a"), 1.0, NOT_COMPARED, 2),
    "the first answers count": (said("a", "b"), said("a", "c"), 1.0, SAME, 0),
    "both said nothing": (said(""), said(""), 1.0, SAME, 0),
}


@pytest.mark.parametrize(("demo", "direct", "at_least", "verdict", "code"), VERDICTS.values(), ids=VERDICTS)
def test_the_verdict_decides_the_exit_code(
    demo: Replies, direct: Replies, at_least: float, verdict: str, code: int
) -> None:
    pair = Pair("Hello", demo, direct, at_least)
    assert (pair.verdict, Comparison([pair]).exit_code) == (verdict, code)


def test_what_could_not_be_compared_weighs_more_than_what_differs() -> None:
    pairs = [Pair("a", said("a"), said("b")), Pair("b", said("b"), FAILED), Pair("c", said("c"), said("c"))]
    assert [pair.verdict for pair in pairs] == [DIFFERENT, NOT_COMPARED, SAME]
    assert Comparison(pairs).exit_code == 2


def test_figures_are_medians_of_what_is_known() -> None:
    replies = [Reply(response="a", seconds=seconds, ttft_ms=ttft) for seconds, ttft in [(9, None), (1, 5), (2, 7)]]
    figures = Replies([*replies, Reply(error="500: It failed.")]).figures
    assert (figures.seconds, figures.ttft_ms, figures.tokens) == (2, 6, None)


ANSWERS = {"none": ([], None), "one": (["a"], None), "the same": (["a", "a"], True), "others": (["a", "b"], False)}


@pytest.mark.parametrize(("texts", "deterministic"), ANSWERS.values(), ids=ANSWERS)
def test_a_server_is_deterministic_when_two_answers_are_the_same(texts: list[str], deterministic: bool | None) -> None:
    assert said(*texts).deterministic is deterministic


SPEED = {"seconds": 6.0, "tokens": 12, "tokens_per_second": 2.0, "ttft_ms": 100.0}
QUICK = {"seconds": 2.0, "tokens": 12, "tokens_per_second": 6.0, "ttft_ms": 50.0}


def test_the_totals_are_of_the_prompts_that_both_tell_the_time_of() -> None:
    pairs = [Pair("a", said("a", **SPEED), said("a", **QUICK))] * 2 + [Pair("b", said("b", **SPEED), FAILED)]
    comparison = Comparison(pairs)
    demo, direct = comparison.total("demo"), comparison.total("direct")
    assert (demo.tokens, demo.seconds, demo.tokens_per_second, demo.ttft_ms) == (24, 12.0, 2.0, 100.0)
    assert (direct.tokens, direct.seconds) == (24, 4.0)
    assert (comparison.speed_up, pairs[0].speed_up, pairs[2].speed_up) == (3.0, 3.0, None)


def test_a_sum_of_which_a_part_is_missing_is_unknown() -> None:
    pairs = [Pair("a", said("a", seconds=1.0, tokens=tokens), said("a", seconds=0.0)) for tokens in (1, None)]
    comparison = Comparison(pairs)
    assert (comparison.total("demo").tokens, comparison.total("demo").tokens_per_second) == (None, None)
    assert comparison.speed_up is None  # nothing is divided by zero seconds


def test_where_the_time_went_is_shown_by_parts() -> None:
    demo = said("a", seconds=10.0, parts={"startup": 3.0, "load": 4.0, "decode": 2.0})
    pair = Pair("a", demo, said("a", seconds=2.5, parts={"decode": 2.0}))
    assert Comparison([pair]).parts == [
        Part("startup", 3.0, None),
        Part("load", 4.0, None),
        Part("decode", 2.0, 2.0),
        Part("other", 1.0, 0.5),
    ]
    assert [part.extra for part in Comparison([pair]).parts] == [3.0, 4.0, 0.0, 0.5]


SECONDS = st.none() | st.floats(0, 100)
TIMED = st.builds(
    lambda seconds, load, decode: said(
        "a",
        seconds=seconds,
        parts={name: seconds for name, seconds in (("load", load), ("decode", decode)) if seconds is not None},
    ),
    SECONDS,
    SECONDS,
    SECONDS,
)


@given(st.lists(st.tuples(TIMED, TIMED), max_size=5))
def test_the_parts_add_up_to_the_whole(both: list[tuple[Replies, Replies]]) -> None:
    comparison = Comparison([Pair("a", *each) for each in both])
    whole = comparison.whole
    assert sum(part.demo or 0.0 for part in comparison.parts) == pytest.approx(whole.demo or 0.0, abs=1e-6)
    assert sum(part.extra for part in comparison.parts) == pytest.approx(whole.extra, abs=1e-6)


def test_settings_are_the_union_without_what_was_sent_and_what_differs_is_marked() -> None:
    healths: dict[str, dict[str, object]] = {
        "demo": {
            "engine": "demo",
            "settings": {
                "temperature": 0.7,
                "max_seq_len": 1024,
                "precision": None,
                "sampling": {"top_p": 0.9},
                "seed": 1,
            },
        },
        "direct": {"settings": {"temperature": 0.0, "max_seq_len": 2048, "precision": "bf8", "paged_attention": True}},
    }
    pair = Pair("a", FAILED, said("a", engine="direct", model="m", device="CPU"))
    compared = settings_of(healths, [pair], {"temperature": 0.0, "seed": None})
    assert compared == [
        Setting("engine", "demo", "direct"),
        Setting("model", None, "m"),
        Setting("device", None, "CPU"),
        Setting("max_seq_len", "1024", "2048"),
        Setting("precision", None, "bf8"),
        Setting("sampling.top_p", "0.9", None),
        Setting("seed", "1", None),
        Setting("paged_attention", None, "true"),
    ]
    assert [each.name for each in compared if each.differs] == ["engine", "max_seq_len"]


@pytest.mark.parametrize("health", [{}, {"settings": None}, {"settings": [1]}, {"engine": 3, "model": None}], ids=str)
def test_a_health_that_tells_little_is_no_error(health: dict[str, object]) -> None:
    assert [each.name for each in settings_of({"demo": health, "direct": {}}, [], {})] == ["engine", "model", "device"]


# Prompt files


def test_the_bundled_prompts_are_those_that_users_see() -> None:
    seen = Path(__file__).parents[2] / "prompts" / "compare.json"
    assert read_prompts(BUNDLED / "compare.json") == read_prompts(seen)
    assert len(read_prompts(seen)) >= 8


def test_an_entry_may_have_keys_that_are_for_others(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text('[{"prompt": "a", "expect": {"min_tokens": 5}}]')
    assert read_prompts(tmp_path / "f.json") == ["a"]


NO_PROMPTS = {
    "not JSON": ("[", "EOF"),
    "an object": ("{}", "input should be a valid array"),
    "no prompt": ('[{"prompt": "a"}, {"text": "b"}]', "entry 2, 'prompt': field required"),
    "not text": ('[{"prompt": 1}]', "entry 1, 'prompt': input should be a valid string"),
    "empty": ("[]", "has no prompts"),
    "a context": ('[{"prompt": "a", "context": "http://x"}]', "has a context, which is not sent"),
}


@pytest.mark.parametrize(("content", "sentence"), NO_PROMPTS.values(), ids=NO_PROMPTS)
def test_what_is_no_prompt_file_is_said(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "f.json").write_text(content)
    with pytest.raises(BadRequest, match=re.escape(sentence)):
        read_prompts(tmp_path / "f.json")


# The command


class SayingRunner(EchoRunner):
    """Says something else than the prompt, and remembers what it was asked."""

    def __init__(self, says: Callable[[str], str]) -> None:
        super().__init__()
        self.asked: list[messages.Request] = []
        self._says = says

    def generate(self, batch: Batch, listener: Listener, lock: DeviceLock, warm: object = None) -> Outcome:
        self.asked += [run.request for run in batch.runs]
        outcome = super().generate(batch, listener, lock)
        results = [
            result
            if result.answer is None
            else replace(
                result,
                answer=replace(result.answer, response=self._says(result.answer.response)),
                timing=Timing(startup_seconds=0.25, ttft_ms=12.0),
                model="echo",
                device="CPU",
            )
            for result in outcome.results
        ]
        return replace(outcome, results=results)


StartTwo = Callable[..., tuple[list[str], SayingRunner, SayingRunner]]


@pytest.fixture
def two(serve: Callable[..., Server], settings: Callable[..., Settings], tmp_path: Path) -> StartTwo:
    """Starts two servers that say what they are to, and gives the flags that name them."""

    def start(
        demo: Callable[[str], str] = str.upper, direct: Callable[[str], str] = str.upper
    ) -> tuple[list[str], SayingRunner, SayingRunner]:
        engines = [SayingRunner(says) for side, says in (("demo", demo), ("direct", direct))]
        servers = [
            serve(settings(state_dir=tmp_path / side), engine)
            for side, engine in zip(("demo", "direct"), engines, strict=True)
        ]
        return [f"--demo={servers[0].url}", f"--direct={servers[1].url}"], *engines

    return start


@pytest.fixture
def prompt_file(tmp_path: Path) -> Callable[..., str]:
    """Writes a prompt file, and gives the flag that names it."""

    def write(*prompts: str) -> str:
        (tmp_path / "prompts.json").write_text(json.dumps([{"prompt": prompt} for prompt in prompts]))
        return f"--prompts={tmp_path / 'prompts.json'}"

    return write


def compare(*flags: str) -> Result:
    return CliRunner().invoke(main, ["compare", *flags], catch_exceptions=False)


def test_the_same_answers_are_0_and_both_servers_are_sent_every_parameter(two: StartTwo) -> None:
    urls, demo, direct = two()
    done = compare(*urls)
    prompts = read_prompts(BUNDLED / "compare.json")
    steps = done.stderr.splitlines()
    assert (done.exit_code, steps[:2]) == (0, ["waiting for the demo server", "waiting for the direct server"])
    assert steps[2:4] == [f"request {n} of {2 * len(prompts)}, to {side}" for n, side in ((1, "demo"), (2, "direct"))]
    assert len(steps) == 2 + 2 * len(prompts)
    assert f"{len(prompts)} prompts: {len(prompts)} same" in done.stdout
    assert demo.asked == direct.asked
    assert [each.prompt for each in demo.asked] == prompts
    assert demo.asked[0].model_fields_set == set(messages.Request.model_fields)
    assert (demo.asked[0].max_tokens, demo.asked[0].temperature, demo.asked[0].top_p) == (64, 0.0, 0.9)


def test_flags_become_parameters(two: StartTwo, prompt_file: Callable[..., str]) -> None:
    urls, demo, _direct = two()
    flags = ["--max-tokens=7", "--temperature=0.5", "--top-p=0.25", "--seed=3"]
    assert compare(*urls, prompt_file("a"), *flags).exit_code == 0
    asked = demo.asked[0]
    assert (asked.max_tokens, asked.temperature, asked.top_p, asked.seed) == (7, 0.5, 0.25, 3)


def test_different_answers_are_1_and_it_is_said_where(
    two: StartTwo, prompt_file: Callable[..., str], tmp_path: Path
) -> None:
    urls, *_ = two(direct=lambda text: f"{text.upper()} indeed")
    done = compare(*urls, prompt_file("one two three"), f"--json={tmp_path / 'f.json'}")
    assert done.exit_code == 1
    (pair,) = json.loads((tmp_path / "f.json").read_text())["prompts"]
    assert (pair["first_difference"], pair["similarity"]) == ({"character": 14, "word": 4}, pytest.approx(6 / 7))
    printed = " ".join(done.stdout.split())
    assert "1 prompt: 1 different" in printed
    assert "demo: ONE TWO THREE" in printed
    assert "direct: ONE TWO THREE indeed" in printed
    assert compare(*urls, prompt_file("one two three"), "--min-similarity=0.8").exit_code == 0


def test_the_servers_take_turns_in_coming_first(two: StartTwo, prompt_file: Callable[..., str]) -> None:
    order: list[str] = []
    urls, *_ = two(
        demo=lambda text: order.append("demo") or text,  # type: ignore[func-returns-value]
        direct=lambda text: order.append("direct") or text,  # type: ignore[func-returns-value]
    )
    assert compare(*urls, prompt_file("a", "b", "c")).exit_code == 0
    assert order == ["demo", "direct", "direct", "demo", "demo", "direct"]


KEPT = {
    "its answer is the demo's": (str.upper, 0, "1 prompt: 1 same; the demo took"),
    "its answer is another": (str.lower, 1, "the kept model's answer is not the demo's; similarity 0.000"),
}


@pytest.mark.parametrize(("says", "code", "sentence"), KEPT.values(), ids=KEPT)
def test_a_demo_whose_model_is_kept_is_shown_between_them(
    two: StartTwo,
    serve: Callable[..., Server],
    settings: Callable[..., Settings],
    prompt_file: Callable[..., str],
    tmp_path: Path,
    says: Callable[[str], str],
    code: int,
    sentence: str,
) -> None:
    urls, *_ = two()
    kept = SayingRunner(says)
    server = serve(settings(state_dir=tmp_path / "kept"), kept)
    files = [f"--json={tmp_path / 'f.json'}", f"--html={tmp_path / 'f.html'}"]
    done = compare(*urls, f"--kept={server.url}", prompt_file("ab"), *files)
    assert done.exit_code == code
    assert sentence in " ".join(done.stdout.split())
    assert [each.prompt for each in kept.asked] == ["ab", "ab"]  # the first one loads it, and is not counted
    report = json.loads((tmp_path / "f.json").read_text())
    (pair,) = report["prompts"]
    assert [(side, len(pair[side]["replies"])) for side in ("demo", "kept", "direct")] == [
        ("demo", 1),
        ("kept", 1),
        ("direct", 1),
    ]
    assert {"name", "demo", "kept", "direct", "extra"} == set(report["seconds_by_part"][0])
    assert says("ab") in (tmp_path / "f.html").read_text()


def test_one_failed_prompt_is_2_and_stops_none_of_the_others(
    two: StartTwo, prompt_file: Callable[..., str], tmp_path: Path
) -> None:
    urls, demo, direct = two(direct=str.lower)
    done = compare(*urls, prompt_file("a", "fail", "B"), f"--json={tmp_path / 'f.json'}")
    assert done.exit_code == 2
    assert [len(engine.asked) for engine in (demo, direct)] == [3, 3]
    assert "demo failed: 500: It failed." in done.stdout  # the server's own words, with its next step
    report = json.loads((tmp_path / "f.json").read_text())
    assert [pair["verdict"] for pair in report["prompts"]] == [DIFFERENT, NOT_COMPARED, DIFFERENT]
    assert (report["exit_code"], report["totals"]["prompts"]) == (2, 2)


def test_answers_that_change_between_repeats_are_named(two: StartTwo, prompt_file: Callable[..., str]) -> None:
    numbers = iter(range(100))
    urls, demo, _direct = two(direct=lambda text: text.upper() if (n := next(numbers)) == 0 else f"{text}{n}")
    done = compare(*urls, prompt_file("a"), "--repeat=3")
    assert done.exit_code == 0  # the first answers are the same
    assert len(demo.asked) == 3
    assert "direct is not deterministic: 3 different answers in 3" in done.stdout
    assert "demo is not deterministic" not in done.stdout
    assert "medians of 3 repeats" in " ".join(done.stdout.split())


def test_nobody_at_an_address_is_2(two: StartTwo) -> None:
    urls, demo, _direct = two()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = compare(urls[0], f"--direct=http://127.0.0.1:{port}")
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"There is no server at http://127.0.0.1:{port}: Connection refused." in done.stderr
    assert demo.asked == []


STRANGERS = {
    "a page": (200, b"<html>hello</html>", "It answered 200, but not as /chat does: the body: Invalid JSON"),
    "other JSON": (200, b'{"status": "ok"}', "It answered 200, but not as /chat does: response: Field required"),
    "a list": (200, b"[]", "It answered 200, but not as /chat does"),
    "an error page": (502, b"<h1>Bad\x1b[31m gateway</h1>", r"502: <h1>Bad\x1b[31m gateway</h1>"),
    "nothing": (404, b"", "404: Not Found"),
    "our own error": (401, b'{"error": "No.", "next_step": "Say who you are."}', "401: No. Say who you are."),
    "elsewhere": (302, b"", "302: Found"),
}


@pytest.mark.parametrize(("status", "says", "sentence"), STRANGERS.values(), ids=STRANGERS)
def test_what_another_program_says_is_shown_as_its_error(
    two: StartTwo,
    prompt_file: Callable[..., str],
    stranger: Callable[..., str],
    status: int,
    says: bytes,
    sentence: str,
) -> None:
    urls, *_ = two()
    done = compare(urls[0], f"--direct={stranger(status, says)}", prompt_file("a"))
    assert done.exit_code == 2
    assert f"direct failed: {sentence}" in " ".join(done.stdout.split())
    assert "\x1b" not in done.stdout


def test_figures_that_are_unknown_are_dashes(
    two: StartTwo, prompt_file: Callable[..., str], stranger: Callable[..., str]
) -> None:
    urls, *_ = two()
    odd = b'{"response": "A", "timing": {"load_seconds": "x", "ttft_ms": true, "decode_seconds": NaN}}'
    done = compare(urls[0], f"--direct={stranger(200, odd)}", prompt_file("a"))
    assert (done.exit_code, "1 prompt: 1 same.") == (0, done.stdout.strip().splitlines()[-1])


def test_a_server_that_does_not_answer_in_time_is_said(
    serve: Callable[..., Server], settings: Callable[..., Settings], two: StartTwo, prompt_file: Callable[..., str]
) -> None:
    urls, *_ = two()
    held = EchoRunner(paused=True)
    server = serve(settings(), held)
    done = compare(urls[0], f"--direct={server.url}", prompt_file("a"), "--timeout=0.2")
    held.let_go.set()
    assert done.exit_code == 2
    assert "direct failed: It did not answer within 0.2 s." in done.stdout


HERE = "--demo=http://127.0.0.1:1"
WRONG_USE = {
    "no servers": ([], "(--demo and --direct), or use --start"),
    "one server": ([HERE], "(--demo and --direct), or use --start"),
    "both ways": (["--start", HERE], "leave --demo out"),
    "no address": ([HERE, "--direct=localhost"], "localhost is not the address of a server"),
    "no port": ([HERE, "--direct=http://h:99999"], "is not the address of a server"),
    "a server's setting": ([HERE, HERE.replace("demo", "direct"), "--slots=2"], "cannot be given --slots"),
    "max_tokens": (["--start", "--max-tokens=0"], "'max_tokens' is wrong"),
    "temperature": (["--start", "--temperature=nan"], "'temperature' is wrong"),
    "no repeats": (["--start", "--repeat=0"], "--repeat"),
    "similarity": (["--start", "--min-similarity=2"], "--min-similarity"),
    "a setting": (["--start", "--slots=none"], "DEMO_API_SLOTS or --slots"),
    "no prompts": (["--start", "--prompts=/none.json"], "/none.json cannot be read"),
    "no folder": (["--start", "--html=/none/f.html"], "nothing can be written in /none"),
}


@pytest.mark.parametrize(("flags", "sentence"), WRONG_USE.values(), ids=WRONG_USE)
def test_wrong_use_is_2_and_asks_nobody(flags: list[str], sentence: str) -> None:
    done = compare(*flags)
    assert (done.exit_code, done.stdout) == (2, "")
    assert sentence in " ".join(done.stderr.split())


def test_a_password_in_an_address_is_not_shown(two: StartTwo, prompt_file: Callable[..., str], tmp_path: Path) -> None:
    urls, *_ = two()
    secret = [url.replace("http://", "http://me:secret@") for url in urls]
    assert compare(*secret, prompt_file("a"), f"--json={tmp_path / 'f.json'}").exit_code == 0
    assert "secret" not in (tmp_path / "f.json").read_text()


def test_a_file_that_cannot_be_written_after_all_is_said(two: StartTwo, prompt_file: Callable[..., str]) -> None:
    urls, *_ = two()
    done = compare(*urls, prompt_file("a"), "--json=/dev/full")
    assert done.exit_code == 2
    assert "1 prompt: 1 same" in done.stdout
    assert "cannot be written: No space left on device" in done.stderr


# Servers that it starts itself


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment of a user, with a folder for temporary files that a test can look into."""
    (tmp_path / "tmp").mkdir()
    return clean_environ() | {"TMPDIR": str(tmp_path / "tmp"), "DEMO_API_STOP_GRACE": "5"}


def spawn(environ: dict[str, str], *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "demo_api", "compare", "--start", *flags]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def servers_left(environ: dict[str, str]) -> list[psutil.Process]:
    return survivors("TMPDIR", [environ["TMPDIR"]])


def test_start_compares_the_real_engines_and_leaves_nothing(
    environ: dict[str, str], model_dir: Path, prompt_file: Callable[..., str], tmp_path: Path
) -> None:
    files = [f"--json={tmp_path / 'f.json'}", f"--html={tmp_path / 'f.html'}"]
    prompts = prompt_file("What is 2+2?")
    process = spawn(environ, prompts, "--max-tokens=8", f"--llama-dir={model_dir}", *files)
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stdout + stderr
    assert "1 prompt: 1 same" in stdout
    report = json.loads((tmp_path / "f.json").read_text())
    engines = {"demo": "demo", "kept": "demo", "direct": "direct"}
    assert report["settings"][0] == {"name": "engine", **engines, "differs": True}
    parts = {part["name"]: part for part in report["seconds_by_part"]}
    assert 0 < parts["load"]["kept"] < parts["load"]["demo"]
    assert parts["decode"]["kept"] > 0
    assert "1 prompt: 1 same" in (tmp_path / "f.html").read_text()
    assert list((tmp_path / "tmp").iterdir()) == []
    assert servers_left(environ) == []


def test_a_direct_server_with_another_model_file_differs(
    serve: Callable[..., Server],
    settings: Callable[..., Settings],
    prompt_file: Callable[..., str],
    model_dir: Path,
    tmp_path: Path,
) -> None:
    (path,) = model_dir.glob("*.gguf")
    system = b"You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    other = tmp_path / "other.gguf"  # its chat template tells the model something else
    other.write_bytes(
        path.read_bytes().replace(system, b"Answer in French, and only about the sea.".ljust(len(system)))
    )
    demo = serve(settings(llama_dir=model_dir))
    direct = serve(settings(llama_dir=other, engine="direct", state_dir=tmp_path / "direct"))
    direct.service.wait_until_loaded()  # type: ignore[attr-defined]
    words = [f"--demo={demo.url}", f"--direct={direct.url}", "--max-tokens=16", prompt_file("Write about love.")]
    done = CliRunner().invoke(main, ["compare", *words])
    assert done.exit_code == 1, done.output
    assert "1 prompt: 1 different" in done.output


def test_a_server_that_does_not_start_is_2_and_says_why(environ: dict[str, str], tmp_path: Path) -> None:
    process = spawn(environ, f"--model-dir={tmp_path / 'none'}")
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (2, "")
    assert "The demo server did not start (exit code 3)." in stderr
    assert "demo-api model pull" in stderr  # its own next step
    assert servers_left(environ) == []


def test_away_from_the_cpu_edition_one_server_runs_at_a_time(
    environ: dict[str, str], tmp_path: Path, prompt_file: Callable[..., str]
) -> None:
    (tmp_path / "model").mkdir()
    home = make_home(tmp_path / "home", "passes")
    process = spawn(environ, prompt_file("a"), f"--demo-home={home}", f"--llama-dir={tmp_path / 'model'}")
    stdout, stderr = process.communicate(timeout=100)
    assert (process.returncode, stdout) == (2, "")
    assert "The direct server did not start" in stderr  # the home has a demo, but no model for the engine in memory
    assert servers_left(environ) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_an_interrupt_stops_servers_and_children(
    environ: dict[str, str], tmp_path: Path, prompt_file: Callable[..., str], number: signal.Signals
) -> None:
    (tmp_path / "model").mkdir()
    home = make_home(tmp_path / "home", "closes_device_slowly")
    process = spawn(environ, prompt_file("a"), f"--demo-home={home}", f"--llama-dir={tmp_path / 'model'}")
    logs = (tmp_path / "tmp").glob
    until(
        lambda: (
            any("Starting decode loop" in log.read_text() for log in logs("*/demo/state/runs/*/stderr.txt"))
            or process.poll() is not None
        )
    )
    process.send_signal(number)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert (home / "device_closed").exists()
    assert servers_left(environ) == []
    assert list((tmp_path / "tmp").iterdir()) == []
