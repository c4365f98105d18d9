"""The page at /, in a real browser, on real servers: what its users see, and what they never should."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Locator, expect
from support.browser import Tab, browser
from support.cutting_proxy import CuttingProxy
from support.doc_pages import PAGES
from support.echo_model import EchoModel
from support.echo_runner import EchoRunner
from support.lab import Enlist, Lab, device
from support.serving import Server
from support.waiting import until, wait_for

from demo_api.config import Settings
from demo_api.devices.batch_runner import Listener
from demo_api.devices.lock import DeviceLock
from demo_api.direct import DirectEngine
from demo_api.messages import Answer, Batch, Event, Failure, Outcome, Request, Result, Timing
from demo_api.queue import Ledger

__all__ = ["browser"]  # the fixture

Serve = Callable[..., Server]
Make = Callable[..., Settings]
Open = Callable[..., Tab]

WEB = Path(__file__).parents[2] / "demo_api" / "web"
NARROW = {"width": 320, "height": 640}
REFUSED = "Failed to load resource"  # what a browser says of every answer that is an error


class TellingEngine(EchoRunner):
    """Tells what a test has it tell, and answers what the test wants, when it wants that."""

    response: str | None = None
    finish_reason = "stop"
    queue_seconds = 0.1

    def generate(self, batch: Batch, listener: Listener, lock: DeviceLock, warm: object = None) -> Outcome:
        self._now, self._batch, self._listener = batch.batch_id, batch, listener
        self.entered.set()
        wait_for(self.let_go)
        self.entered.clear()
        if batch.batch_id in dict(self.cancelled):
            failure = Failure("cancelled", "It was cancelled.")
            return Outcome([Result(run.run_id, failure=failure) for run in batch.runs])
        results = []
        for run in batch.runs:
            answer = Answer(run.request.prompt if self.response is None else self.response, 7)
            failed = Failure("demo_failed", "It failed.") if "fail" in run.request.prompt else None
            timing = Timing(
                warm="imports", queue_seconds=self.queue_seconds, startup_seconds=0.0, startup_ahead_seconds=4.2,
                load_seconds=2.0, decode_seconds=1.0, ttft_ms=80.1, decode_tokens_per_second=43.3,
            )  # fmt: skip
            finish = self.finish_reason
            results.append(Result(run.run_id, None if failed else answer, failed, timing, "echo", finish_reason=finish))
        return Outcome(results, self.suspect)

    def tell(self, kind: str, **data: object) -> None:
        wait_for(self.entered)
        for run in self._batch.runs:
            self._listener(run.run_id, Event(kind, time.time(), data))


@pytest.fixture
def open_tab(browser: Browser) -> Iterator[Open]:
    """Opens tabs on servers; when the test ends their consoles must be empty and nobody else asked."""
    tabs: list[tuple[Tab, tuple[str, ...]]] = []

    def make(
        url: str, fragment: str = "", *, others: tuple[str, ...] = (), expected: tuple[str, ...] = (), **options: Any
    ) -> Tab:
        tab = Tab(browser.new_context(**options), url, expected)
        tabs.append((tab, others))
        return tab.open(fragment)

    yield make
    for tab, others in tabs:
        tab.close(*others)


@pytest.fixture
def engine(settings: Make) -> TellingEngine:
    return TellingEngine()


@pytest.fixture
def slow(settings: Make) -> TellingEngine:
    return TellingEngine(paused=True)


@pytest.fixture
def server(serve: Serve, settings: Make, engine: TellingEngine) -> Server:
    return serve(settings(), engine)


@pytest.fixture
def slow_server(serve: Serve, settings: Make, slow: TellingEngine) -> Server:
    return serve(settings(max_batch=1), slow)


_IS_SEEN_IN_LOG = """mark => {
  const [log, place] = [mark.closest("pre").getBoundingClientRect(), mark.getBoundingClientRect()];
  return place.top >= log.top && place.bottom <= log.bottom;
}"""


# The whole way, with the real demo


def test_a_prompt_is_answered_by_the_real_demo_and_its_phases_are_seen(
    serve: Serve, settings: Make, model_dir: Path, open_tab: Open
) -> None:
    tab = open_tab(serve(settings(llama_dir=model_dir)).url)
    tab.ask("What is 2+2?", **{"Max tokens": "32", "Temperature": "0"})
    tab.page.wait_for_selector(".panel .chip[data-status=succeeded]")
    assert "4" in tab.text(".panel .answer")
    seen = tab.page.evaluate("window.shownAsNow")
    assert [label for label in seen if label in ("Start-up", "Load", "Prefill", "Decode")] == [
        "Start-up", "Load", "Prefill", "Decode",
    ]  # fmt: skip
    times = tab.text(".panel .times")
    for label in ("Queued", "Start-up", "Load", "Prefill compile", "Prefill", "Decode compile", "Decode", "Close"):
        assert re.search(rf"{label}\s+\d+\.\d\d s", times), label
    tab.page.locator("summary", has_text="All that was printed").click()
    tab.page.get_by_label("Search").fill("prefill")
    assert re.fullmatch(r"1 of \d+", tab.text(".log .tools .hint"))
    assert tab.page.locator(".log mark.current").inner_text().lower() == "prefill"
    tab.page.get_by_label("Search").fill("passed")  # far down
    assert tab.page.locator(".log mark.current").evaluate(_IS_SEEN_IN_LOG)


# Ask


def test_phases_speed_and_text_are_shown_as_they_come(slow_server: Server, slow: TellingEngine, open_tab: Open) -> None:
    tab = open_tab(slow_server.url)
    tab.ask("Hello", **{"Max tokens": "9"})
    now = tab.page.locator(".timeline li[data-state=now]")
    for phase, label in {"startup": "Start-up", "load": "Load", "prefill": "Prefill", "decode": "Decode"}.items():
        slow.tell("phase", phase=phase)
        expect(now).to_contain_text(f"now: {label}")
        reading = "reading the prompt" if phase == "prefill" else ""
        expect(tab.page.locator(".panel .facts")).to_have_text(reading)
    expect(tab.page.locator(".panel .elapsed")).to_have_text(re.compile(r"\d+\.\d s"))
    slow.tell("progress", iteration=3, tokens_per_second_per_user=12.3)
    slow.tell("text", user=0, tail="<|im_start|>assistant Good mor")
    expect(tab.page.locator(".panel .facts")).to_have_text("12.3 tokens/s · token 5 of at most 9")
    expect(tab.page.locator(".panel .answer")).to_contain_text("Good mor")
    expect(tab.page.locator("#announcer")).to_have_text("Decode: writes the answer.")
    slow.let_go.set()
    tab.wait_for_end()
    expect(tab.page.locator(".panel .answer")).to_have_text("Hello")
    assert "Load" in tab.text(".shares")
    assert "Longest: load (2.00 s, " in tab.text(".times")
    expect(tab.page.locator(".panel .metrics")).to_contain_text("ended by itself")
    assert "A warm child: 4.20 s of its start-up was done before the request." in tab.text(".times")
    expect(tab.page.locator("#announcer")).to_contain_text("Answered in")


def test_who_waits_sees_the_place_in_the_line_and_cancels(
    slow_server: Server, slow: TellingEngine, open_tab: Open
) -> None:
    first = open_tab(slow_server.url)
    first.ask("first")
    wait_for(slow.entered)
    second = open_tab(slow_server.url)
    second.ask("second")
    expect(second.page.locator(".panel .chip")).to_have_text("queued")
    expect(second.page.locator(".timeline li[data-state=now]")).to_contain_text("Queued")
    expect(second.page.locator(".position")).to_have_text("Place 1 in the queue")
    second.page.get_by_role("button", name="Cancel").click()
    second.wait_for_end("cancelled")
    assert "The run was cancelled" in second.text(".panel .problem")
    assert "Next step: Send the request again." in second.text(".panel .problem")
    expect(first.page.locator(".panel .chip")).to_have_text("running")
    first.page.get_by_role("button", name="Cancel").click()
    first.wait_for_end("cancelled")
    until(lambda: slow.cancelled)


def test_a_reload_finds_the_run_again(slow_server: Server, slow: TellingEngine, open_tab: Open) -> None:
    tab = open_tab(slow_server.url)
    tab.ask("Hello again")
    slow.tell("phase", phase="load")
    expect(tab.page).to_have_url(re.compile("#ask/"))
    tab.page.reload()
    expect(tab.page.locator(".timeline li[data-state=now]")).to_contain_text("Load")
    assert tab.field("Prompt").input_value() == "Hello again"
    slow.let_go.set()
    tab.wait_for_end()
    tab.page.reload()
    tab.wait_for_end()
    assert tab.text(".panel .answer") == "Hello again"


def test_a_refused_request_says_what_to_do_at_the_field(server: Server, open_tab: Open) -> None:
    tab = open_tab(server.url, expected=(REFUSED,))
    tab.ask("Hello", Temperature="3")
    problem = tab.page.locator("#ask-form .problem")
    expect(problem).to_contain_text("The field 'temperature' is wrong")
    expect(problem).to_contain_text("Next step: Correct that field")
    expect(problem).to_contain_text("400 · bad_request · request ")
    expect(tab.field("Temperature")).to_be_focused()
    tab.ask("Hello", Temperature="warm")
    expect(problem).to_contain_text("should be a valid number")


def test_an_answer_that_was_cut_has_a_badge_of_its_own(server: Server, engine: TellingEngine, open_tab: Open) -> None:
    engine.finish_reason = "length"
    tab = open_tab(server.url)
    tab.ask("Hello")
    tab.wait_for_end()
    cut = tab.page.locator(".panel .top .chip[data-status=cut]")
    expect(cut).to_have_text("cut at max tokens")
    colour = "chip => getComputedStyle(chip).color"
    assert cut.evaluate(colour) != tab.page.locator(".panel .chip[data-status=succeeded]").evaluate(colour)
    expect(tab.page.locator(".panel .metrics")).to_contain_text("cut at max tokens")


def test_waiting_for_long_is_what_took_the_longest(server: Server, engine: TellingEngine, open_tab: Open) -> None:
    engine.queue_seconds = 7.3
    tab = open_tab(server.url)
    tab.ask("Hello")
    tab.wait_for_end()
    assert "Longest: waiting in the queue (7.30 s, 71 %)" in tab.text(".times")


def test_a_full_queue_is_counted_down_and_tried_again(
    serve: Serve, settings: Make, slow: TellingEngine, open_tab: Open
) -> None:
    server = serve(settings(max_batch=1, max_queue=1), slow)
    for prompt in ("runs", "waits"):
        requests.post(f"{server.url}/runs", json={"prompt": prompt}, timeout=60)
        wait_for(slow.entered)
    tab = open_tab(server.url, expected=(REFUSED,))
    tab.ask("Hello")
    result = tab.page.locator("#ask-result")
    expect(result.get_by_role("alert")).to_have_text("The queue is full (1 of 1).")
    expect(result).to_contain_text(re.compile(r"Try again (in \d+ s|now)\."))
    expect(result).to_contain_text("Try again now.")  # in as many seconds as the first one runs
    expect(tab.page.locator("#ask-form .problem")).to_have_count(0)
    slow.let_go.set()
    until(lambda: server.get("/health").json()["queue"]["waiting"] == 0)
    result.get_by_role("button", name="Retry").click()
    tab.wait_for_end()
    assert tab.text(".panel .answer") == "Hello"


def test_a_failed_run_says_what_to_do(server: Server, open_tab: Open) -> None:
    tab = open_tab(server.url)
    tab.ask("fail")
    tab.wait_for_end("failed")
    assert re.search(r"It failed\.\s+Next step: Fix the cause in the error", tab.text(".panel .problem"))


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31mred\x1b[0m \u202etxt.exe\r&amp; </pre>"


def test_markup_script_and_escapes_show_as_typed(server: Server, open_tab: Open) -> None:
    tab = open_tab(server.url)
    dialogs: list[str] = []
    tab.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    server.chat(HOSTILE)
    shown = "<script>alert(1)</script><img src=x onerror=alert(2)>␛[31mred␛[0m ⟨U+202E⟩txt.exe␍&amp; </pre>"
    tab.page.goto(f"{server.url}/#runs")
    expect(tab.page.locator(".history .prompt")).to_have_text(shown)
    tab.page.locator(".history .prompt").click()
    tab.wait_for_end()
    assert [tab.page.locator("#run .answer").nth(number).inner_text() for number in (0, 1)] == [shown, shown]
    assert not dialogs
    assert tab.page.locator("#run script, #run img").count() == 0


def test_the_answer_is_copied_as_it_is(server: Server, open_tab: Open) -> None:
    tab = open_tab(server.url, permissions=["clipboard-read", "clipboard-write"])
    run = server.chat(HOSTILE).json()["run_id"]
    tab.page.goto(f"{server.url}/#runs/{run}")
    tab.page.get_by_role("button", name="Copy the answer").click()
    expect(tab.page.get_by_role("button", name="Copy the answer")).to_have_text("Copied")
    assert tab.page.evaluate("navigator.clipboard.readText()") == HOSTILE
    tab.page.get_by_role("button", name="Run again").click()
    tab.page.wait_for_selector("#ask .panel[data-ended]")
    assert [run["prompt"] for run in server.get("/runs").json()["runs"]] == [HOSTILE, HOSTILE]


TYPED = """It's "quoted" $HOME `id` \\ ! 50% @file
ünïcödé 日本語 😀 <b>"""


PROGRAMS = {
    "curl": ["bash", "-c"],
    "Python": [sys.executable, "-c"],
    "JavaScript": ["node", "--input-type=module", "--eval"],
}


def run_code(tab: Tab, language: str, key: str = "", blocks: int | None = None) -> list[str]:
    """What the first blocks of code print that the page shows in this language; all of them by default."""
    program = PROGRAMS[language]
    if shutil.which(program[0]) is None:
        pytest.skip(f"there is no {program[0]} on this machine")
    tab.page.locator(".view:not([hidden])").get_by_label("Language").select_option(language)
    written = tab.page.locator(".view:not([hidden]) .code pre").all_inner_texts()
    environ = {**os.environ, "DEMO_API_KEY": key}
    return [
        subprocess.run([*program, code], capture_output=True, text=True, timeout=30, check=True, env=environ).stdout
        for code in written[:blocks]
    ]


@pytest.mark.parametrize("language", PROGRAMS)
def test_the_code_does_the_same(server: Server, open_tab: Open, language: str) -> None:
    tab = open_tab(server.url)
    tab.ask(TYPED, Seed="7")
    tab.wait_for_end()
    chat, run, followed, record = run_code(tab, language)
    assert json.loads(chat)["prompt"] == json.loads(chat)["response"] == json.loads(run)["prompt"] == TYPED
    assert json.loads(run)["seed"] == 7
    assert "event: done" in followed
    assert json.loads(record.split("\n", 1)[0])["prompt"] == TYPED
    tab.page.reload()
    tab.wait_for_end()
    assert tab.page.locator(".panel").get_by_label("Language").input_value() == language


def test_a_run_is_saved_as_json(server: Server, start_direct: Callable[..., Server], open_tab: Open) -> None:
    for each, engine in ((server, "demo"), (start_direct(EchoModel()), "direct")):
        tab = open_tab(each.url)
        tab.ask(TYPED)
        tab.wait_for_end()
        with tab.page.expect_download() as download:
            tab.page.get_by_role("button", name="Download as JSON").click()
        saved = json.loads(Path(download.value.path()).read_text())
        assert (saved["prompt"], saved["response"], saved["status"]) == (TYPED, TYPED, "succeeded")
        assert download.value.suggested_filename == f"{saved['run_id']}.json"
        if engine == "demo":
            assert saved == server.get(f"/runs/{saved['run_id']}").json()


def test_how_long_runs_usually_take_stands_beside_the_seconds(
    slow_server: Server, slow: TellingEngine, start_direct: Callable[..., Server], open_tab: Open
) -> None:
    model = EchoModel()
    for server, let_go in ((slow_server, slow.let_go), (start_direct(model), model.let_go)):
        let_go.set()
        for _ in range(5):
            assert server.chat("Hello", max_tokens=64, temperature=0).ok
        let_go.clear()
        tab = open_tab(server.url)
        tab.ask("Hello")
        usual = re.compile(r"^\d+\.\d s · usually \d.* s, by 5 earlier runs$")
        expect(tab.page.locator(".panel .elapsed")).to_have_text(usual)
        let_go.set()
        tab.wait_for_end()
        expect(tab.page.locator(".panel .elapsed")).to_have_text("")
        tab.page.get_by_role("link", name="Health").click()
        expect(tab.page.locator("#health")).to_contain_text(re.compile(r"A run usually takes\d.* s, by the latest \d"))


LINES = "apples\n\npears fail\n  plums \nfigs\ngrapes"


def test_a_prompt_a_line_is_asked_in_one_batch_and_each_has_its_answer(
    serve: Serve, settings: Make, slow: TellingEngine, open_tab: Open
) -> None:
    server = serve(settings(), slow)
    tab = open_tab(server.url, expected=(REFUSED,))
    tab.field("One prompt per line").check()
    tab.ask(LINES, Temperature="3")
    expect(tab.page.locator("#ask-form .problem")).to_contain_text("The field 'temperature' is wrong")
    tab.field("Temperature").fill("0")
    expect(tab.page.locator("#form-code")).to_contain_text(
        '"prompts":["apples","pears fail","  plums ","figs","grapes"]'
    )
    tab.page.get_by_role("button", name="Run", exact=True).click()
    slow.tell("phase", phase="decode")
    items = tab.page.locator(".several li")
    expect(items.locator(".chip")).to_have_text(["running"] * 5)
    slow.let_go.set()
    expect(items.locator(".chip")).to_have_text(["succeeded", "failed", "succeeded", "succeeded", "succeeded"])
    assert items.nth(0).locator(".answer").inner_text() == "apples"
    expect(items.nth(1)).to_contain_text("It failed.")
    summary = tab.page.locator(".several [role=status]")
    expect(summary).to_contain_text(
        re.compile(r"^5 of 5 ended in .* s, in one batch · 28 tokens, .* tokens/s together$")
    )
    items.nth(4).get_by_role("link", name="Show the run").click()
    tab.wait_for_end()
    assert tab.text(".panel .answer") == "grapes"


def test_the_runs_of_several_prompts_are_cancelled_together(
    serve: Serve, settings: Make, slow: TellingEngine, open_tab: Open
) -> None:
    tab = open_tab(serve(settings(), slow).url)  # in one batch, which goes on until all of them are cancelled
    tab.field("One prompt per line").check()
    tab.ask("a\nb\nc\nd\ne\nf")
    wait_for(slow.entered)
    tab.page.get_by_role("button", name="Cancel all").click()
    expect(tab.page.locator(".several .chip")).to_have_text(["cancelled"] * 6)


def test_a_direct_server_answers_several_prompts_at_the_same_time(
    start_direct: Callable[..., Server], open_tab: Open
) -> None:
    model = EchoModel(paused=True)
    tab = open_tab(start_direct(model).url)
    tab.field("One prompt per line").check()
    tab.ask("one\ntwo\nthree\nfour\nfive")
    chips = tab.page.locator(".several .chip")
    expect(chips.filter(has_text="running")).to_have_count(2)  # whichever came first
    expect(chips.filter(has_text="queued")).to_have_count(3)
    model.let_go.set()
    expect(chips).to_have_text(["succeeded"] * 5)
    assert model.most_at_once == 2
    assert tab.page.locator(".several .answer").all_inner_texts() == ["one", "two", "three", "four", "five"]


def test_on_a_phone_rare_fields_are_folded_and_the_answer_comes_into_view(server: Server, open_tab: Open) -> None:
    tab = open_tab(server.url, expected=(REFUSED,), viewport={"width": 375, "height": 667})
    expect(tab.field("Top p")).to_be_hidden()
    expect(tab.field("Seed")).to_be_hidden()
    tab.page.locator("summary", has_text="More").click()
    tab.field("Top p").fill("2")
    tab.page.locator("summary", has_text="More").click()
    tab.page.get_by_role("button", name="Run", exact=True).click()
    expect(tab.field("Top p")).to_be_focused()  # what is wrong is not hidden
    tab.field("Top p").fill("1")
    tab.page.get_by_role("button", name="Run", exact=True).click()
    tab.wait_for_end()
    expect(tab.page.locator(".panel .answer")).to_be_in_viewport(ratio=1)
    box = tab.page.locator(".panel").bounding_box()
    assert box is not None
    assert 0 <= box["y"] < 150, "at the top of the screen"
    tab.page.set_viewport_size({"width": 1000, "height": 667})
    expect(tab.field("Seed")).to_be_visible()


def test_the_endpoints_are_one_link_away(server: Server, open_tab: Open) -> None:
    tab = open_tab(server.url)
    tab.page.get_by_role("link", name="API").click()
    expect(tab.page.get_by_role("heading", level=1)).to_be_visible()
    assert "POST" in tab.page.locator("body").inner_text()


# Runs


def test_the_history_is_filtered_opened_and_run_again(server: Server, engine: TellingEngine, open_tab: Open) -> None:
    for prompt in ("apples", "pears", "fail"):
        server.chat(prompt)
    tab = open_tab(server.url, "#runs")
    prompts = tab.page.locator(".history .prompt")
    expect(prompts).to_have_text(["fail", "pears", "apples"])
    assert "7 tokens" in tab.page.locator(".history .facts").nth(1).inner_text()
    tab.page.get_by_label("Status").select_option("succeeded")
    expect(prompts).to_have_text(["pears", "apples"])
    tab.page.get_by_label("Prompt or answer contains").fill("APP")
    expect(prompts).to_have_text(["apples"])
    expect(tab.page.locator("#runs [role=status]")).to_have_text("1 of 2 runs")
    prompts.first.click()
    expect(tab.page.get_by_role("heading", name="Run", exact=True)).to_be_focused()
    tab.wait_for_end()
    assert tab.text(".panel .answer") == "apples"
    tab.page.go_back()
    expect(prompts).to_have_text(["apples"])
    tab.page.get_by_role("button", name="Run again: apples").click()
    expect(tab.page).to_have_url(re.compile("#ask/"))
    tab.wait_for_end()
    assert [run["prompt"] for run in server.get("/runs").json()["runs"]] == ["apples", "fail", "pears", "apples"]


def test_older_runs_are_read_when_asked_for(serve: Serve, settings: Make, open_tab: Open) -> None:
    server = serve(settings(max_queue=50), EchoRunner())
    ids = []
    for part in range(2):
        body = {"prompts": [f"prompt {part}-{number}" for number in range(15)]}
        answer = requests.post(f"{server.url}/runs", json=body, timeout=60)
        ids += [run["run_id"] for run in answer.json()["runs"]]
    until(lambda: server.get(f"/runs/{ids[-1]}").json()["status"] == "succeeded")
    tab = open_tab(server.url, "#runs")
    items = tab.page.locator(".history li")
    expect(items).to_have_count(20)
    expect(tab.page.locator("#runs [role=status]")).to_have_text("20 runs read so far")
    tab.page.get_by_role("button", name="Older runs").click()
    expect(items).to_have_count(30)
    expect(tab.page.get_by_role("button", name="Older runs")).to_be_hidden()


def test_a_run_that_is_not_kept_says_so(server: Server, open_tab: Open) -> None:
    tab = open_tab(server.url, "#runs/20200101-000000-00000000", expected=(REFUSED,))
    expect(tab.page.locator("#run .problem")).to_contain_text("GET /runs lists all stored runs.")


def test_an_answer_that_is_no_json_is_told_as_such(server: Server, open_tab: Open) -> None:
    tab = open_tab(server.url, "#runs/..")  # a browser makes / of /runs/..
    expect(tab.page.locator("#run .problem")).to_contain_text(f"{server.url}/ does not answer in JSON.")


# The direct engine, and Compare


@pytest.fixture
def model() -> EchoModel:
    return EchoModel()


@pytest.fixture
def start_direct(serve: Serve, settings: Make) -> Callable[..., Server]:
    def start(model: EchoModel, **flags: object) -> Server:
        made = settings(engine="direct", **flags)
        server = serve(made, DirectEngine(model, made))
        until(lambda: server.get("/readyz").status_code == 200)
        return server

    return start


def test_a_direct_server_answers_token_by_token_and_has_no_runs(
    start_direct: Callable[..., Server], open_tab: Open
) -> None:
    model = EchoModel(paused=True)
    tab = open_tab(start_direct(model).url)
    expect(tab.page.get_by_role("link", name="Runs")).to_be_hidden()
    tab.ask("one two three")
    expect(tab.page.locator(".timeline li[data-state=now]")).to_contain_text("Prefill")
    expect(tab.page.locator(".panel .facts")).to_have_text("reading the prompt · on CPU")
    model.let_go.set()
    tab.wait_for_end()
    assert tab.text(".panel .answer") == "one two three"
    assert "chat/stream" in tab.page.locator(".code pre").nth(1).inner_text()
    assert tab.page.locator(".log").count() == 0
    model.let_go.clear()
    tab.ask("one two three")
    tab.page.get_by_role("button", name="Cancel").click()
    tab.wait_for_end("cancelled")
    model.let_go.set()


def test_two_servers_are_compared_word_by_word(
    serve: Serve, settings: Make, engine: TellingEngine, start_direct: Callable[..., Server], open_tab: Open
) -> None:
    here = serve(settings(), engine)
    there = start_direct(EchoModel(), cors_origins=f"http://example.org, {here.url}")
    tab = open_tab(here.url, "#compare", others=(there.url,))
    form = tab.page.locator("#compare-form")
    form.get_by_label("The other server").fill(there.url)
    form.get_by_label("Prompt").fill("the same in both")
    form.get_by_role("button", name="Compare").click()
    verdict = tab.page.locator(".verdict")
    expect(verdict).to_contain_text("The answers are the same, to the character.")
    engine.response = "the other in both cases"
    form.get_by_role("button", name="Compare").click()
    expect(verdict).to_contain_text("The answers differ, from word 2 on.")
    marks = tab.page.locator("#comparison mark")
    assert [mark.strip() for mark in marks.all_text_contents()] == [
        "[only here:] other [end]", "[only here:] cases [end]", "[only here:] same [end]",
    ]  # fmt: skip
    answers = tab.page.locator("#comparison .answer").all_text_contents()
    assert [re.sub(r" \[.*?\] ", "", answer) for answer in answers] == ["the other in both cases", "the same in both"]
    assert "underline" in marks.first.evaluate("mark => getComputedStyle(mark).textDecorationLine")
    assert re.search(r"This server\s+\d.*The other server\s+\d", tab.text(".verdict .timeline"), re.DOTALL)


@contextmanager
def full(server: Server, model: EchoModel) -> Iterator[None]:
    """One request is answered and one waits, until the model is let go, at the latest when the block ends."""
    model.let_go.clear()
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(server.chat) for _ in range(2)]
        try:
            until(lambda: server.get("/health").json()["queue"]["waiting"] == 1)
            yield
        finally:
            model.let_go.set()
    assert all(answer.result().ok for answer in asked)


def test_a_full_queue_of_either_server_is_counted_down_and_compared_again(
    serve: Serve, settings: Make, slow: TellingEngine, start_direct: Callable[..., Server], open_tab: Open
) -> None:
    here = serve(settings(max_batch=1, max_queue=1), slow)
    model = EchoModel(slots=1, paused=True)
    there = start_direct(model, cors_origins=here.url, max_queue=1)
    for prompt in ("runs", "waits"):
        requests.post(f"{here.url}/runs", json={"prompt": prompt}, timeout=60)
        wait_for(slow.entered)
    with full(there, model):
        tab = open_tab(here.url, "#compare", others=(there.url,), expected=(REFUSED,))
        tab.field("The other server").fill(there.url)
        tab.page.get_by_role("button", name="Compare").click()
        refusal = tab.page.locator("#comparison")
        expect(refusal.get_by_role("alert")).to_have_text("This server: The queue is full (1 of 1).")
        expect(refusal).to_contain_text(re.compile(r"Try again (in \d+ s|now)\."))
        slow.let_go.set()
        until(lambda: here.get("/health").json()["queue"]["waiting"] == 0)
        refusal.get_by_role("button", name="Retry").click()
        expect(refusal.get_by_role("alert")).to_have_text("The other server: The queue is full (1 of 1).")
        model.let_go.set()
        until(lambda: there.get("/health").json()["queue"]["running"] == 0)
        refusal.get_by_role("button", name="Retry").click()
        expect(tab.page.locator(".verdict")).to_contain_text("The answers are the same")


# A conversation


def say(tab: Tab, text: str) -> None:
    tab.field("Message").fill(text)
    tab.page.get_by_role("button", name="Send").click()


def test_a_conversation_is_sent_whole_and_kept_in_the_tab_until_a_new_one(
    start_direct: Callable[..., Server], open_tab: Open
) -> None:
    tab = open_tab(start_direct(EchoModel()).url, "#conversation")
    sent: list[dict[str, Any]] = []
    tab.page.on("request", lambda each: sent.append(each.post_data_json) if each.url.endswith("completions") else None)
    messages = tab.page.locator("#messages .answer")
    say(tab, "Hello <b>there</b>")
    expect(messages).to_have_text(["Hello <b>there</b>"] * 2)
    tab.field("Max tokens").fill("2")
    tab.field("Message").fill("one two three")
    tab.field("Message").press("Control+Enter")
    expect(messages).to_have_text(["Hello <b>there</b>", "Hello <b>there</b>", "one two three", "one two"])
    expect(tab.page.locator("#messages .facts").last).to_have_text(
        re.compile(r"^2 tokens in \d.* s · cut at max tokens$")
    )
    history = [
        {"role": "user", "content": "Hello <b>there</b>"},
        {"role": "assistant", "content": "Hello <b>there</b>"},
        {"role": "user", "content": "one two three"},
    ]
    assert sent[1]["messages"] == history
    for language in PROGRAMS:
        (printed,) = run_code(tab, language)
        assert json.loads(printed)["choices"][0]["message"]["content"] == "one two"
    tab.page.reload()
    expect(messages).to_have_count(4)
    expect(tab.page.locator("#conversation-code")).to_contain_text("one two three")
    tab.page.get_by_role("button", name="New conversation").click()
    expect(messages).to_have_count(0)
    expect(tab.field("Message")).to_be_focused()
    say(tab, "afresh")
    expect(messages).to_have_text(["afresh", "afresh"])
    assert [message["content"] for message in sent[2]["messages"]] == ["afresh"]


def test_an_answer_in_a_conversation_is_stopped(start_direct: Callable[..., Server], open_tab: Open) -> None:
    model = EchoModel(paused=True)
    tab = open_tab(start_direct(model).url, "#conversation")
    messages = tab.page.locator("#messages .answer")
    say(tab, "one two three")
    expect(tab.page.locator("#messages .facts").last).to_have_text(re.compile(r"^reading the prompt · \d+\.\d s$"))
    tab.page.get_by_role("button", name="Stop").click()
    expect(messages).to_have_count(0)  # there is no answer yet
    expect(tab.field("Message")).to_have_value("one two three")
    until(lambda: model.at_once == 0)
    model.let_words(2)
    tab.page.get_by_role("button", name="Send").click()
    expect(messages).to_have_text(["one two three", "one two"])
    tab.page.get_by_role("button", name="Stop").click()
    expect(tab.page.locator("#messages .facts").last).to_have_text("stopped")
    until(lambda: model.at_once == 0)
    model.let_go.set()
    say(tab, "go on")
    expect(messages).to_have_text(["one two three", "one two", "go on", "go on"])


def test_a_message_that_is_refused_goes_back_into_the_form(start_direct: Callable[..., Server], open_tab: Open) -> None:
    model = EchoModel(slots=1)
    server = start_direct(model, max_queue=1)
    tab = open_tab(server.url, "#conversation", expected=(REFUSED,))
    form = tab.page.locator("#conversation-form")
    say(tab, "refuse this")
    expect(form.locator(".problem")).to_contain_text("No.")
    expect(tab.field("Message")).to_be_focused()
    expect(tab.field("Message")).to_have_value("refuse this")
    say(tab, "break")
    expect(form.locator(".problem")).to_contain_text("It broke.")
    with full(server, model):
        say(tab, "Hello")
        refusal = tab.page.locator("#conversation-refusal")
        expect(refusal.get_by_role("alert")).to_have_text("The queue is full (1 of 1).")
        model.let_go.set()
        until(lambda: server.get("/health").json()["queue"]["running"] == 0)
        refusal.get_by_role("button", name="Retry").click()
        expect(tab.page.locator("#messages .answer")).to_have_text(["Hello", "Hello"])


def test_a_script_in_a_conversation_does_not_run(start_direct: Callable[..., Server], open_tab: Open) -> None:
    tab = open_tab(start_direct(EchoModel()).url, "#conversation")
    dialogs: list[str] = []
    tab.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    for _ in ("answered", "kept"):
        if not tab.page.locator("#messages li").count():
            say(tab, "<script>alert(1)</script> <img src=x onerror=alert(2)> \x1b[31m")
        shown = "<script>alert(1)</script> <img src=x onerror=alert(2)> ␛[31m"
        expect(tab.page.locator("#messages .answer")).to_have_text([shown] * 2)
        assert tab.page.locator("#messages script, #messages img").count() == 0
        tab.page.reload()
    assert not dialogs


def test_a_demo_server_explains_where_conversations_are(server: Server, open_tab: Open) -> None:
    tab = open_tab(server.url)
    tab.page.get_by_role("link", name="Conversation").click()
    expect(tab.page.locator("#conversation-demo")).to_contain_text("demo-api serve --engine direct")
    expect(tab.field("Message")).to_be_hidden()


def test_a_page_elsewhere_may_ask_with_openais_client(
    serve: Serve, settings: Make, engine: TellingEngine, start_direct: Callable[..., Server], open_tab: Open
) -> None:
    here = serve(settings(), engine)
    there = start_direct(EchoModel(), cors_origins=here.url)
    tab = open_tab(here.url, others=(there.url,))
    ask = """async (url) => {
      const headers = { Authorization: "Bearer none", "X-Stainless-OS": "Linux", "X-Stainless-Retry-Count": "0" };
      return (await fetch(url, { headers })).json();
    }"""
    assert tab.page.evaluate(ask, f"{there.url}/v1/models")["data"][0]["id"] == "echo"


def test_a_server_that_does_not_let_the_page_ask_is_explained(
    server: Server, start_direct: Callable[..., Server], open_tab: Open
) -> None:
    there = start_direct(EchoModel(), cors_origins="http://example.org")
    tab = open_tab(server.url, "#compare", others=(there.url,), expected=(REFUSED, "blocked by CORS policy"))
    form = tab.page.locator("#compare-form")
    form.get_by_label("The other server").fill(there.url)
    form.get_by_label("The other server").press("Tab")  # nothing is sent yet
    expect(form.locator(".problem")).to_contain_text(f"{there.url} answers, but does not let this page ask.")
    expect(form.locator(".problem")).to_contain_text(f"--cors-origins {server.url}")
    form.get_by_role("button", name="Compare").click()
    expect(form.locator(".problem")).to_contain_text(f"{there.url} answers, but does not let this page ask.")
    form.get_by_label("The other server").fill("javascript:alert(1)")
    form.get_by_role("button", name="Compare").click()
    expect(form.locator(".problem")).to_contain_text("This is not the address of a server.")


def test_a_server_that_is_not_there_is_named_as_typed_before_the_form_is_sent(server: Server, open_tab: Open) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        there = f"http://127.0.0.1:{taken.getsockname()[1]}"
        tab = open_tab(server.url, "#compare", others=(there,), expected=(REFUSED,))
        tab.field("The other server").fill(there)
        tab.field("The other server").press("Tab")
        problem = tab.page.locator("#compare-form .problem")
        expect(problem).to_contain_text(f"{there} does not answer.")
        expect(problem).to_contain_text("Start it with: demo-api serve")


def test_a_comparison_is_stopped_and_its_run_with_it(
    slow_server: Server, slow: TellingEngine, start_direct: Callable[..., Server], open_tab: Open
) -> None:
    there = start_direct(EchoModel(), cors_origins=slow_server.url)
    tab = open_tab(slow_server.url, "#compare", others=(there.url,))
    tab.field("The other server").fill(there.url)
    tab.page.get_by_role("button", name="Compare").click()
    slow.tell("phase", phase="load")
    expect(tab.page.locator("#comparison .timeline li[data-state=now]")).to_contain_text("Load")
    tab.page.get_by_role("button", name="Stop").click()
    expect(tab.page.locator("#comparison")).to_have_text("Stopped.")
    until(lambda: slow.cancelled)


# Keys, health, lost connections


KEY = "open-sesame-and-close-again"


@pytest.fixture
def guarded(serve: Serve, settings: Make, engine: TellingEngine) -> str:
    """A server that answers only those who have the key; the page and a short /health are for all."""
    return serve(settings(keys=KEY), engine).url


def test_a_key_is_asked_for_once_and_sent_as_a_header(guarded: str, open_tab: Open) -> None:
    tab = open_tab(guarded, expected=(REFUSED,))
    dialog = tab.page.get_by_role("dialog")
    expect(dialog).to_contain_text("A key is needed")
    dialog.get_by_label("Key").fill("wrong")
    dialog.get_by_label("Key").press("Enter")
    expect(dialog).to_contain_text("refused the key (401)")
    dialog.get_by_label("Key").fill(KEY)
    dialog.get_by_label("Key").press("Enter")
    expect(tab.page.locator("#server-status")).to_contain_text("demo engine · echo")
    expect(tab.page.locator("#form-code")).to_contain_text('-H "Authorization: Bearer $DEMO_API_KEY"')
    tab.ask("Hello")
    tab.wait_for_end()
    assert tab.text(".panel .answer") == "Hello"
    assert 'Authorization: Bearer $DEMO_API_KEY"' in tab.text(".code")
    for language in PROGRAMS:
        (chat,) = run_code(tab, language, KEY, blocks=1)
        assert json.loads(chat)["response"] == "Hello"
    assert KEY not in tab.page.content()
    tab.page.reload()
    tab.wait_for_end()
    expect(dialog).to_be_hidden()
    assert not any(KEY in url for url in tab.asked)


def test_who_gives_no_key_is_asked_again_only_on_a_new_wish(guarded: str, open_tab: Open) -> None:
    tab = open_tab(guarded, "#runs", expected=(REFUSED,))
    dialog = tab.page.get_by_role("dialog")
    expect(dialog).to_contain_text("A key is needed")
    dialog.get_by_role("button", name="Not now").click()
    expect(tab.page.locator("#runs .problem")).to_contain_text("The key is missing.")
    expect(tab.page.locator("#runs [role=status]")).to_have_text("")  # nobody knows whether there are runs
    tab.asked.clear()
    with tab.page.expect_response(f"{guarded}/health"):
        pass
    assert {url.removeprefix(guarded) for url in tab.asked} == {"/health"}
    expect(dialog).to_be_hidden()
    expect(tab.page.locator("#server-status")).to_contain_text("healthy · demo engine")
    tab.page.get_by_role("link", name="Health").click()
    dialog.get_by_label("Key").fill(KEY)
    dialog.get_by_label("Key").press("Enter")
    expect(tab.page.locator("#health .device")).to_contain_text("free")
    expect(tab.page.locator("#health")).to_contain_text('-H "Authorization: Bearer $DEMO_API_KEY"')
    tab.page.get_by_role("button", name="Forget the key").click()
    expect(tab.page.locator("#form-code")).not_to_contain_text("Authorization")
    expect(tab.page.locator("#health")).to_contain_text("With a key this says more.")
    expect(dialog).to_be_hidden()


def test_the_other_server_may_want_a_key_of_its_own(
    server: Server, start_direct: Callable[..., Server], open_tab: Open
) -> None:
    there = start_direct(EchoModel(), cors_origins=server.url, keys=KEY)
    tab = open_tab(server.url, "#compare", others=(there.url,), expected=(REFUSED,))
    sent: dict[str, str | None] = {}
    tab.page.on("request", lambda each: sent.update({each.url: each.headers.get("authorization")}))
    tab.field("The other server").fill(there.url)
    tab.page.get_by_role("button", name="Compare").click()
    dialog = tab.page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"{there.url}/ answers only those who have a key (401).")
    dialog.get_by_label("Key").fill(KEY)
    dialog.get_by_label("Key").press("Enter")
    expect(tab.page.locator(".verdict")).to_contain_text("The answers are the same")
    assert sent[f"{there.url}/chat/stream"] == f"Bearer {KEY}"
    assert sent[f"{server.url}/chat/stream"] is None


def test_where_several_models_are_served_a_menu_offers_them_and_health_shows_who_has_them(
    lab: Lab, open_tab: Open
) -> None:
    door = lab.door()
    for model in ("llama", "qwen"):
        lab.worker(model)
    until(lambda: len(door.get("/v1/models").json()["data"]) == 2)
    tab = open_tab(door.url)
    expect(tab.field("Model").locator("option")).to_have_text(["llama", "qwen"])
    tab.field("Model").select_option("qwen")
    expect(tab.page.locator("#form-code")).to_contain_text('"model":"qwen"')
    tab.ask("Hello")
    tab.wait_for_end()
    assert "qwen" in tab.text(".panel")
    assert not tab.serious()
    tab.open("#health")
    for card in ("Model llama", "Model qwen"):
        expect(tab.page.locator("#health .pool", has_text=card)).to_contain_text("0 running, 0 waiting")
    expect(tab.page.locator("#health .node", has_text="llama")).to_contain_text("device free")


def test_health_of_a_lab_is_readable_on_a_narrow_screen_whatever_the_names_are(
    serve: Serve, settings: Make, postgresql_schema: str, enlist: Enlist, open_tab: Open
) -> None:
    door = settings(database_url=postgresql_schema, devices="none")
    ledger = Ledger(door)
    model = f"<b>{'W' * 200}"
    enlist(ledger, model, device("W" * 100, "failed"), device("right"))
    ledger.queue.submit([Request(prompt="Hello")], pool="gone")
    ledger.close()
    tab = open_tab(serve(door).url, "#health", viewport=NARROW)
    expect(tab.page.locator("#health .pool", has_text="Model gone")).to_contain_text(
        re.compile("Workers0Devices0Queue0 running, 1 waiting")
    )
    expect(tab.page.locator("#health .pool", has_text=model)).to_contain_text("Workers1Devices2")
    node = tab.page.locator("#health .node")
    expect(node).to_contain_text(f"Node {ledger.workers.node}Model{model}Version0.1.0")
    expect(node).to_contain_text(f"{'W' * 100} failed, right free")
    assert tab.serious() == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


def test_where_one_model_is_served_there_is_no_menu(server: Server, open_tab: Open) -> None:
    expect(open_tab(server.url).page.locator("#model")).to_be_hidden()


def test_health_says_what_to_do_about_a_device_in_doubt(server: Server, engine: TellingEngine, open_tab: Open) -> None:
    engine.suspect = "It had to be <killed>."
    server.chat("fail")
    tab = open_tab(server.url, "#health")
    card = tab.page.locator(".device")
    expect(card).to_contain_text("suspect")
    expect(card).to_contain_text("It had to be <killed>.")
    expect(card).to_contain_text("demo-api device reset")
    expect(card).to_contain_text("No warm child.")
    expect(card).to_contain_text(re.compile(r"Since\d+/\d+/20\d\d"))
    expect(tab.page.locator("#server-status")).to_contain_text("device suspect")


def test_the_words_about_devices_are_those_of_the_documentation() -> None:
    script = (WEB / "static" / "health.js").read_text()
    for state, meaning in re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGES["devices.md"], re.MULTILINE):
        assert re.search(rf'  {state}: \[\s*"{re.escape(meaning)}"', script), state


ADDRESSES = ["#%", "#constructor", "#__proto__/x", "#run/1", "#nothing", "#ask/", "#runs/"]


def test_a_strange_address_shows_a_view(server: Server, open_tab: Open) -> None:
    tab = open_tab(server.url, expected=(REFUSED,))
    for fragment in ADDRESSES:
        tab.page.goto("about:blank")
        tab.open(fragment)
        expect(tab.page.locator(".view:not([hidden]) h1")).to_have_text(re.compile("Ask|Runs"))


@pytest.fixture
def lay_cable() -> Iterator[Callable[[Server], CuttingProxy]]:
    laid: list[CuttingProxy] = []

    def lay(server: Server) -> CuttingProxy:
        laid.append(CuttingProxy(server.url))
        return laid[-1]

    yield lay
    for cable in laid:
        cable.close()


@pytest.fixture
def cable(lay_cable: Callable[[Server], CuttingProxy], slow_server: Server) -> CuttingProxy:
    return lay_cable(slow_server)


def test_a_direct_answer_whose_connection_is_lost_is_lost_and_says_so(
    start_direct: Callable[..., Server], lay_cable: Callable[[Server], CuttingProxy], open_tab: Open
) -> None:
    model = EchoModel(paused=True)
    cable = lay_cable(start_direct(model))
    tab = open_tab(cable.url, expected=(REFUSED, "ERR_"))
    tab.ask("one two three")
    expect(tab.page.locator(".timeline li[data-state=now]")).to_contain_text("Prefill")
    cable.cut()
    problem = tab.page.locator(".panel .problem")
    expect(problem).to_contain_text("The connection was lost before the answer was there.")
    expect(problem).to_contain_text("The direct engine keeps nothing: ask again.")
    expect(tab.page.get_by_role("button", name="Cancel")).to_have_count(0)
    model.let_go.set()


def test_a_lost_connection_is_made_again_and_nothing_is_missed(
    slow: TellingEngine, cable: CuttingProxy, open_tab: Open
) -> None:
    tab = open_tab(cable.url, expected=(REFUSED,))
    resumed: list[str] = []
    tab.page.on("request", lambda request: resumed.append(request.headers.get("last-event-id", "")))
    tab.ask("Hello")
    slow.tell("phase", phase="load")
    expect(tab.page.locator(".timeline li[data-state=now]")).to_contain_text("Load")
    cable.cut()
    unreachable = "Server unreachable. If it is still running, your run continues."
    expect(tab.page.locator(".panel .trouble")).to_contain_text(unreachable)
    slow.tell("phase", phase="decode")
    cable.mend()
    expect(tab.page.locator(".panel .trouble")).to_have_text("Connected again: nothing was missed.")
    expect(tab.page.locator(".timeline li[data-state=now]")).to_contain_text("Decode")
    assert any(number.isdigit() for number in resumed)
    slow.let_go.set()
    tab.wait_for_end()


def test_a_request_that_may_have_arrived_is_sent_again_under_its_key(
    slow: TellingEngine, slow_server: Server, cable: CuttingProxy, open_tab: Open
) -> None:
    tab = open_tab(cable.url, expected=(REFUSED,))
    keys: list[str] = []
    tab.page.on("request", lambda sent: keys.append(sent.headers.get("idempotency-key", "")))
    cable.cut()
    tab.ask("Hello")
    expect(tab.page.locator("#ask-form .problem")).to_contain_text("does not answer.Next step: Is the server there?")
    cable.mend()
    slow.let_go.set()
    tab.page.get_by_role("button", name="Run", exact=True).click()
    tab.wait_for_end()
    used = [key for key in keys if key]
    assert len(used) == 2
    assert len(set(used)) == 1
    tab.page.get_by_role("button", name="Run again").click()
    until(lambda: len(slow_server.get("/runs").json()["runs"]) == 2)


def test_who_asked_too_often_follows_a_run_later(slow_server: Server, slow: TellingEngine, open_tab: Open) -> None:
    tab = open_tab(slow_server.url, expected=(REFUSED,))
    refusal = {"success": False, "error": "Too many.", "code": "rate_limited", "next_step": "Wait."}
    tab.page.route(
        "**/events", lambda route: route.fulfill(status=429, headers={"Retry-After": "1"}, json=refusal), times=1
    )
    tab.ask("Hello")
    expect(tab.page.locator(".panel .trouble")).to_have_text(
        "Too many. If it is still running, your run continues. Trying again in 1 s."
    )
    slow.let_go.set()
    tab.wait_for_end()


# For everybody


def test_it_can_be_used_with_the_keyboard_alone(server: Server, open_tab: Open) -> None:
    tab = open_tab(server.url)
    press = tab.page.keyboard.press
    prompt = tab.field("Prompt")
    expect(prompt).to_be_focused()
    skip = tab.page.get_by_role("link", name="Skip to the content")
    skip.focus()
    press("Enter")
    press("Tab")
    expect(prompt).to_be_focused()
    assert prompt.evaluate("field => getComputedStyle(field).outlineStyle") == "solid"
    press("Control+A")
    tab.page.keyboard.type("by hand")
    press("Control+Enter")
    tab.wait_for_end()
    assert tab.text(".panel .answer") == "by hand"
    tab.page.get_by_role("link", name="Runs").focus()
    press("Enter")
    expect(tab.page.get_by_role("heading", name="Runs")).to_be_focused()
    expect(tab.page.locator(".history .prompt")).to_be_visible()
    for _ in range(3):
        press("Tab")
    expect(tab.page.locator(".history .prompt")).to_be_focused()
    press("Enter")
    tab.wait_for_end()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_button_is_readable_in_every_state(
    slow_server: Server, start_direct: Callable[..., Server], open_tab: Open, scheme: str
) -> None:
    there = start_direct(EchoModel(), cors_origins=slow_server.url)
    tab = open_tab(slow_server.url, "#compare", others=(there.url,), color_scheme=scheme)
    button = tab.page.locator("#compare-form button.primary")
    stop = tab.page.get_by_role("button", name="Stop")
    tab.field("The other server").fill(there.url)
    found = {f"idle, {state}": ratio for state, ratio in contrasts(button).items()}
    button.click()
    expect(button).to_have_text("Comparing…")
    expect(stop).to_be_visible()
    found |= {f"busy, {state}": ratio for state, ratio in contrasts(button).items()}
    found |= {f"secondary, {state}": ratio for state, ratio in contrasts(stop).items()}
    assert {state: ratio for state, ratio in found.items() if ratio < 4.5} == {}
    stop.click()
    expect(button).to_have_text("Compare")


def contrasts(button: Locator) -> dict[str, float]:
    """The contrast of a button's words at rest, under the mouse, and with the focus."""
    found = {}
    for state, enter in {"rest": lambda: None, "hover": button.hover, "focus": button.focus}.items():
        enter()
        found[state] = button.evaluate(_CONTRAST)
    button.page.mouse.move(0, 0)
    found["focus without the mouse"] = button.evaluate(_CONTRAST)
    return found


# https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio. A canvas knows every way in which a colour can be written.
_CONTRAST = """button => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const luminance = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue] = [...canvas.getImageData(0, 0, 1, 1).data].map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const { color, backgroundColor } = getComputedStyle(button);
  const [dark, light] = [luminance(color), luminance(backgroundColor)].sort((one, other) => one - other);
  return (light + 0.05) / (dark + 0.05);
}"""


VIEWS = ["#ask", "#runs", "#run", "#conversation", "#compare", "#health"]


@pytest.fixture
def furnished(
    serve: Serve, settings: Make, engine: TellingEngine, start_direct: Callable[..., Server]
) -> tuple[Server, Server, dict[str, str]]:
    """Two servers, and the address of each view with something to see in it."""
    here = serve(settings(), engine)
    there = start_direct(EchoModel(), cors_origins=here.url)
    engine.suspect = "It was killed."
    ids = [here.chat(prompt).json()["run_id"] for prompt in ("W" * 400, "fail")]
    return here, there, {"#ask": f"#ask/{ids[0]}", "#run": f"#runs/{ids[1]}"}


def visit(tab: Tab, view: str, fragments: dict[str, str], other: str, engine: TellingEngine) -> None:
    tab.open(fragments.get(view, view))
    if view in ("#ask", "#run"):
        tab.page.wait_for_selector(f"{view} .panel[data-ended]")
    if view == "#compare":
        engine.response = "something else"
        tab.page.get_by_label("The other server").fill(other)
        tab.page.get_by_role("button", name="Compare").click()
        tab.page.wait_for_selector(".verdict .timeline")
        engine.response = None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_any_view(
    furnished: tuple[Server, Server, dict[str, str]], engine: TellingEngine, open_tab: Open, scheme: str
) -> None:
    here, there, fragments = furnished
    tab = open_tab(here.url, others=(there.url,), color_scheme=scheme, reduced_motion="reduce")
    assert tab.serious() == []
    for view in VIEWS:
        visit(tab, view, fragments, there.url, engine)
        assert tab.serious() == [], view


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_answers_of_a_direct_server(
    start_direct: Callable[..., Server], open_tab: Open, scheme: str
) -> None:
    tab = open_tab(start_direct(EchoModel()).url, "#conversation", color_scheme=scheme, viewport=NARROW)
    say(tab, "W" * 400)
    expect(tab.page.locator("#messages .answer").last).to_have_text("W" * 400)
    assert tab.serious() == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    tab.page.get_by_role("link", name="Ask").click()
    tab.field("One prompt per line").check()
    tab.ask("W" * 400 + "\nbreak")
    expect(tab.page.locator(".several .chip")).to_have_text(["succeeded", "failed"])
    assert tab.serious() == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


def test_a_narrow_screen_needs_no_sideways_scrolling(
    furnished: tuple[Server, Server, dict[str, str]], engine: TellingEngine, open_tab: Open
) -> None:
    here, there, fragments = furnished
    tab = open_tab(here.url, others=(there.url,), viewport=NARROW)
    for view in VIEWS:
        visit(tab, view, fragments, there.url, engine)
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], view


# What holds without a browser


SCRIPTS = sorted((WEB / "static").glob("*.js"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_no_script_makes_markup_or_code_of_a_text(script: Path) -> None:
    found = re.findall(
        r"innerHTML|outerHTML|insertAdjacentHTML|createContextualFragment|DOMParser|srcdoc|eval\(|Function\(|"
        r"document\.write|javascript:",
        script.read_text(),
    )
    assert not found


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere() -> None:
    page = (WEB / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)
    assert not re.search(r"url\(|@import", (WEB / "static" / "style.css").read_text())
    for file in [WEB / "index.html", *SCRIPTS]:
        assert not re.search(r"(src|href)=\"(https?:)?//|from \"(?!\./)|import\(", file.read_text()), file.name


def test_every_file_of_the_page_is_in_the_package() -> None:
    listed = (WEB.parent.parent / "setup.cfg").read_text().split("[options.package_data]")[1].split("[")[0].split()
    assert {
        f"*{file.suffix}" for file in WEB.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")
    } <= set(listed)
