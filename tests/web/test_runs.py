"""Runs over HTTP: submitted, listed, followed, cancelled; a hand-written engine, a real server, a real port."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from support.echo_runner import EchoRunner
from support.serving import Server
from support.sse import events
from support.waiting import pause, until, wait_for

from demo_api.config import Settings


@dataclass
class PausedServer:
    """A server whose engine keeps every batch until it is let go."""

    server: Server
    engine: EchoRunner

    def post(self, path: str, body: object = None, **headers: str) -> requests.Response:
        return requests.post(f"{self.server.url}{path}", json=body, headers=headers, timeout=30)

    def submit(self, **fields: object) -> str:
        answer = self.post("/runs", {"prompt": "Hello", **fields})
        assert answer.status_code == 202, answer.text
        run_id = answer.json()["run_id"]
        assert isinstance(run_id, str)
        return run_id

    def status(self, run_id: str) -> str:
        status = self.server.get(f"/runs/{run_id}").json()["status"]
        assert isinstance(status, str)
        return status


@pytest.fixture
def paused(serve: Callable[..., Server], settings: Callable[..., Settings]) -> PausedServer:
    engine = EchoRunner(paused=True)
    return PausedServer(serve(settings(max_queue=4), engine), engine)


def test_a_run_is_accepted_shown_and_answered(paused: PausedServer) -> None:
    answer = paused.post("/runs", {"prompt": "Hello", "max_tokens": 5})
    assert answer.status_code == 202
    run_id = answer.json()["run_id"]
    assert answer.headers["Location"] == f"/runs/{run_id}"
    assert [run["run_id"] for run in answer.json()["runs"]] == [run_id]
    waiting = paused.server.get(answer.headers["Location"]).json()
    assert waiting["prompt"] == "Hello"
    assert waiting["max_tokens"] == 5
    assert waiting["finished_at"] is None
    paused.engine.let_go.set()
    assert list(events(f"{paused.server.url}/runs/{run_id}/events"))[-1][1] == "done"
    ended = paused.server.get(f"/runs/{run_id}").json()
    assert (ended["status"], ended["success"], ended["response"]) == ("succeeded", True, "Hello")
    assert ended["time_seconds"] >= 0
    assert ended["attempts"] == 1
    assert ended["accepted_at"] <= ended["started_at"] <= ended["finished_at"]


def test_an_accepted_run_has_an_estimate_when_there_were_enough_like_it(paused: PausedServer) -> None:
    paused.engine.let_go.set()
    for _ in range(4):
        assert paused.server.chat().ok
    assert paused.post("/runs", {"prompt": "Hello"}).json()["estimate"] is None
    assert paused.server.chat().ok
    estimate = paused.post("/runs", {"prompts": ["Hello", "again"]}).json()["estimate"]
    assert 0 <= estimate["low_seconds"] <= estimate["high_seconds"]
    assert estimate["quantiles"] == [0.1, 0.9]
    assert estimate["runs"] >= 5
    assert paused.post("/runs", {"prompt": "Hello", "max_tokens": 5}).json()["estimate"] is None
    assert paused.server.get("/health").json()["estimate"]["runs"] >= 5


def test_several_prompts_are_accepted_together_or_not_at_all(paused: PausedServer) -> None:
    first = paused.submit()
    wait_for(paused.engine.entered)
    answer = paused.post("/runs", {"prompts": ["a", "b", "c"]})
    assert answer.status_code == 202
    assert [run["prompt"] for run in answer.json()["runs"]] == ["a", "b", "c"]
    assert [run["position"] for run in answer.json()["runs"]] == [1, 2, 3]
    refused = paused.post("/runs", {"prompts": ["d", "e"]})
    assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
    assert int(refused.headers["Retry-After"]) >= 1
    assert paused.server.get("/health").json()["queue"] == {"waiting": 3, "running": 1, "limit": 4}
    paused.engine.let_go.set()
    for run in [first] + [run["run_id"] for run in answer.json()["runs"]]:
        assert list(events(f"{paused.server.url}/runs/{run}/events"))[-1][2]["status"] == "succeeded"
    assert paused.engine.seen == [["Hello"], ["a", "b", "c"]]


BAD = {
    "no prompt": ({}, "prompt"),
    "both": ({"prompt": "a", "prompts": ["b"]}, "prompt"),
    "no list": ({"prompts": "a"}, "prompts"),
    "an empty list": ({"prompts": []}, "prompts"),
    "33 prompts": ({"prompts": ["a"] * 33}, "prompts"),
    "a blank one among them": ({"prompts": ["a", " "]}, "prompts[1]"),
    "a number among them": ({"prompts": ["a", 1]}, "prompts[1]"),
    "an unknown field": ({"prompts": ["a"], "n": 1}, "n"),
}


@pytest.mark.parametrize(("body", "field"), BAD.values(), ids=BAD)
def test_a_bad_submission_names_the_field(paused: PausedServer, body: dict[str, object], field: str) -> None:
    answer = paused.post("/runs", body)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (400, "bad_request", field)


def test_an_idempotency_key_gives_the_first_run_again(paused: PausedServer) -> None:
    key = {"Idempotency-Key": "abc"}
    first = paused.post("/runs", {"prompt": "a"}, **key).json()["run_id"]
    again = paused.post("/runs", {"prompt": "a"}, **key)
    assert (again.status_code, again.json()["run_id"]) == (202, first)
    other = paused.post("/runs", {"prompt": "b"}, **key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    paused.engine.let_go.set()
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: paused.post("/chat", {"prompt": "a"}, **key), range(5)))
    assert {answer.json()["run_id"] for answer in answers} == {first}
    assert {answer.json()["response"] for answer in answers} == {"a"}
    assert paused.engine.seen == [["a"]]


@pytest.mark.parametrize("key", ["a b", "x" * 256, "\u00e9".encode().decode("latin-1")])
def test_an_idempotency_key_that_is_none_is_refused(paused: PausedServer, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    answer = requests.post(f"{paused.server.url}/runs", json={"prompt": "a"}, headers=headers, timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


def test_runs_are_listed_in_pages_the_newest_first(paused: PausedServer) -> None:
    paused.engine.let_go.set()
    run_ids = [paused.post("/chat", {"prompt": str(number)}).json()["run_id"] for number in range(5)]
    pages = [page := paused.server.get("/runs?limit=2").json()]
    while page["next"] is not None and len(pages) < len(run_ids):
        pages.append(page := paused.server.get(page["next"]).json())
    assert page["next"] is None
    assert [run["run_id"] for page in pages for run in page["runs"]] == run_ids[::-1]


def test_runs_are_filtered_by_status(paused: PausedServer) -> None:
    runs = paused.submit()
    wait_for(paused.engine.entered)
    cancelled = paused.submit()
    paused.post(f"/runs/{cancelled}/cancel")
    waits = paused.submit()
    for query, expected in {
        "status=queued": [waits],
        "status=running": [runs],
        "status=cancelled": [cancelled],
        "status=queued&status=running": [waits, runs],
        "status=succeeded": [],
    }.items():
        listed = paused.server.get(f"/runs?{query}").json()["runs"]
        assert [run["run_id"] for run in listed] == expected, query


@pytest.mark.parametrize(
    "query", ["status=done", "limit=0", "limit=201", "limit=x", "before=none", "page=2", "limit=-1"]
)
def test_a_query_that_is_none_is_refused_with_what_there_is(paused: PausedServer, query: str) -> None:
    answer = paused.server.get(f"/runs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert answer.json()["next_step"]


@pytest.mark.parametrize("path", ["", "/events", "/log"])
@pytest.mark.parametrize("run_id", ["none", "..%2F..%2Fetc%2Fpasswd", "20260101-000000-0000dead", "%00", "'%20OR%201"])
def test_a_run_that_is_not_there_is_404(paused: PausedServer, run_id: str, path: str) -> None:
    answer = paused.server.get(f"/runs/{run_id}{path}")
    assert answer.status_code == 404
    assert answer.json()["code"] in ("no_such_run", "not_found")


def test_events_come_as_they_happen_with_the_place_in_the_line(paused: PausedServer) -> None:
    paused.submit()
    wait_for(paused.engine.entered)
    ahead, run_id = paused.submit(temperature=1), paused.submit(temperature=0)
    stream = events(f"{paused.server.url}/runs/{run_id}/events")
    number, kind, data = next(stream)
    assert (number, kind, data["position"], data["run_id"]) == (1, "queued", 2, run_id)
    paused.post(f"/runs/{ahead}/cancel")
    number, kind, data = next(stream)
    assert (number, kind, data["position"], data["run_id"]) == (1, "position", 1, run_id)
    paused.engine.let_go.set()
    rest = list(stream)
    assert [kind for _, kind, _ in rest] == ["started", "phase", "done"]
    assert [number for number, _, _ in rest] == [2, 3, 4]
    assert rest[-1][2]["response"] == "Hello"


def test_events_are_replayed_from_any_number(paused: PausedServer) -> None:
    paused.engine.let_go.set()
    run_id = paused.post("/chat", {"prompt": "a"}).json()["run_id"]
    url = f"{paused.server.url}/runs/{run_id}/events"
    whole = list(events(url))
    assert [number for number, _, _ in whole] == list(range(1, len(whole) + 1))
    for last in range(len(whole) + 2):
        assert list(events(url, **{"Last-Event-ID": str(last)})) == whole[last:]
        assert list(events(f"{url}?after={last}")) == whole[last:]
    refused = requests.get(url, headers={"Last-Event-ID": "x"}, timeout=60)
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_request")


ENDS = {
    "answered": ("a", "succeeded", {"success": True, "response": "a"}),
    "failed": ("fail", "failed", {"success": False, "code": "demo_failed"}),
    "cancelled": (None, "cancelled", {"success": False, "code": "cancelled"}),
}


@pytest.mark.parametrize(("prompt", "status", "known"), ENDS.values(), ids=ENDS)
def test_the_last_event_says_how_the_run_ended_as_the_run_itself_does(
    paused: PausedServer, prompt: str | None, status: str, known: dict[str, object]
) -> None:
    run_id = paused.submit(prompt=prompt or "waits")
    if prompt is None:
        paused.post(f"/runs/{run_id}/cancel")
    paused.engine.let_go.set()
    _, kind, data = list(events(f"{paused.server.url}/runs/{run_id}/events"))[-1]
    record = paused.server.get(f"/runs/{run_id}").json()
    assert (kind, data["status"]) == ("done", status)
    assert data.items() >= known.items()
    assert data.pop("at")
    assert data == {name: record[name] for name in data}
    assert record.keys() - data.keys() == {
        "position", "prompt", "max_tokens", "temperature", "top_p", "seed", "attempts", "accepted_at", "started_at",
        "finished_at", "engine",
    }  # fmt: skip


def test_a_hundred_follow_one_run(paused: PausedServer) -> None:
    run_id = paused.submit()
    wait_for(paused.engine.entered)
    with ThreadPoolExecutor(100) as pool:
        streams = [pool.submit(lambda: list(events(f"{paused.server.url}/runs/{run_id}/events"))) for _ in range(100)]
        assert paused.server.get("/health").status_code == 200
        paused.engine.let_go.set()
        seen = [stream.result() for stream in streams]
    assert all(each == seen[0] for each in seen)
    assert seen[0][-1][1] == "done"


def test_more_than_the_server_has_threads_for_are_refused_and_health_answers(paused: PausedServer) -> None:
    run_id = paused.submit()
    wait_for(paused.engine.entered)
    url = f"{paused.server.url}/runs/{run_id}/events"
    limit = paused.server.settings.max_waiting
    streams = []
    for _ in range(limit):
        answer = requests.get(url, stream=True, timeout=30)
        assert answer.status_code == 200
        streams.append(answer)
    refused = requests.get(url, timeout=30)
    assert (refused.status_code, refused.json()["code"]) == (503, "too_many_waiting")
    assert refused.headers["Retry-After"]
    assert paused.server.get("/health").status_code == 200
    paused.engine.let_go.set()
    for answer in streams:
        assert "event: done" in answer.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat/stream", {"prompt": "Hello"}),
        ("/v1/chat/completions", {"model": "echo", "messages": [{"role": "user", "content": "Hello"}], "stream": True}),
    ],
    ids=["chat", "openai"],
)
def test_streams_that_are_refused_take_no_place_from_others(
    paused: PausedServer, path: str, body: dict[str, object]
) -> None:
    paused.submit()
    wait_for(paused.engine.entered)
    *_, last = [paused.submit() for _ in range(paused.server.settings.max_queue)]
    for _ in range(paused.server.settings.max_waiting + 1):
        refused = paused.post(path, body)
        assert refused.status_code == 503
        assert "queue_full" in refused.text
    paused.engine.let_go.set()
    assert list(events(f"{paused.server.url}/runs/{last}/events"))[-1][1] == "done"
    assert paused.post(path, body).status_code == 200


def test_streams_that_have_ended_release_their_slots(paused: PausedServer) -> None:
    paused.engine.let_go.set()
    run_id = paused.post("/chat", {"prompt": "Hello"}).json()["run_id"]
    for _ in range(paused.server.settings.max_waiting + 1):
        assert list(events(f"{paused.server.url}/runs/{run_id}/events"))[-1][1] == "done"


def test_a_waiting_run_is_cancelled_at_once_and_its_client_told(paused: PausedServer) -> None:
    paused.submit()
    wait_for(paused.engine.entered)
    answers: list[requests.Response] = []
    client = threading.Thread(target=lambda: answers.append(paused.server.chat("waits")))
    client.start()
    until(lambda: paused.server.get("/runs?status=queued").json()["runs"])
    run_id = paused.server.get("/runs?status=queued").json()["runs"][0]["run_id"]
    cancelled = paused.post(f"/runs/{run_id}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert paused.post(f"/runs/{run_id}/cancel").status_code == 200
    client.join(10)
    assert (answers[0].status_code, answers[0].json()["code"]) == (409, "cancelled")
    assert paused.status(run_id) == "cancelled"


def test_what_has_ended_or_never_was_is_not_cancelled(paused: PausedServer) -> None:
    paused.engine.let_go.set()
    run_id = paused.post("/chat", {"prompt": "a"}).json()["run_id"]
    ended = paused.post(f"/runs/{run_id}/cancel")
    assert (ended.status_code, ended.json()["code"]) == (409, "run_ended")
    never = paused.post("/runs/none/cancel")
    assert (never.status_code, never.json()["code"]) == (404, "no_such_run")


def hang_up_from_chat(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    body = b'{"prompt": "Hello"}'
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        until(lambda: server.get("/runs").json()["runs"])


def until_status(server: Server, status: str) -> dict[str, Any]:
    until(lambda: server.get("/runs").json()["runs"][0]["status"] == status)
    (run,) = server.get("/runs").json()["runs"]
    assert isinstance(run, dict)
    return run


def test_the_run_of_a_client_that_hangs_up_goes_on_and_is_found(paused: PausedServer) -> None:
    hang_up_from_chat(paused.server)
    pause(1)
    paused.engine.let_go.set()
    assert until_status(paused.server, "succeeded")["response"] == "Hello"


@pytest.fixture
def cancelling(serve: Callable[..., Server], settings: Callable[..., Settings]) -> Server:
    return serve(settings(cancel_on_disconnect=True), EchoRunner(paused=True))


def test_the_run_of_a_client_that_hangs_up_is_cancelled_if_that_is_set(cancelling: Server) -> None:
    hang_up_from_chat(cancelling)
    until_status(cancelling, "cancelled")


def test_the_run_goes_on_until_the_last_one_leaves_its_events(
    cancelling: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "demo_api.web.event_stream.KEEP_ALIVE_SECONDS", 0.2
    )  # who is gone is noticed when something is sent
    run_id = requests.post(f"{cancelling.url}/runs", json={"prompt": "a"}, timeout=60).json()["run_id"]
    url = f"{cancelling.url}/runs/{run_id}/events"
    first, second = (requests.get(url, stream=True, timeout=30) for _ in range(2))
    first.close()
    pause(2)
    until_status(cancelling, "running")
    second.close()
    until_status(cancelling, "cancelled")


def test_a_silent_stream_is_kept_alive(paused: PausedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo_api.web.event_stream.KEEP_ALIVE_SECONDS", 0.2)
    run_id = paused.submit()
    with requests.get(f"{paused.server.url}/runs/{run_id}/events", stream=True, timeout=30) as answer:
        for line in answer.iter_lines():
            if line == b": keep-alive":
                break
        else:
            raise AssertionError("nothing was sent")


def test_livez_and_readyz(paused: PausedServer) -> None:
    assert paused.server.get("/livez").json() == {"status": "alive"}
    assert paused.server.get("/readyz").json() == {"status": "ready"}


def test_a_device_that_has_failed_is_told_everywhere(
    serve: Callable[..., Server], settings: Callable[..., Settings]
) -> None:
    engine = EchoRunner()
    engine.suspect = "A child was killed."
    server = serve(settings(reset_command="false", max_queue=4), engine)
    server.chat("fail")
    until(lambda: server.get("/health").json()["device"]["state"] == "failed")
    health = server.get("/health").json()
    assert health["status"] == "unhealthy"
    assert "`false`" in health["device"]["reason"]
    for answer in (server.chat("a"), requests.post(f"{server.url}/runs", json={"prompt": "a"}, timeout=60)):
        assert (answer.status_code, answer.json()["code"]) == (503, "device_failed")
        assert "demo-api device reset" in answer.json()["next_step"]
    ready = server.get("/readyz")
    assert (ready.status_code, ready.json()["code"]) == (503, "device_failed")
    assert ready.headers["Retry-After"]


def test_a_run_that_was_never_started_has_no_log(paused: PausedServer) -> None:
    paused.submit()
    wait_for(paused.engine.entered)
    answer = paused.server.get(f"/runs/{paused.submit()}/log")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_log")


def test_the_log_grows_with_the_run_and_stays(
    serve: Callable[..., Server], child_settings: Callable[..., Settings]
) -> None:
    server = serve(child_settings("passes_slowly"))
    run_id = requests.post(f"{server.url}/runs", json={"prompt": "Hello"}, timeout=60).json()["run_id"]
    kinds = []
    for _, kind, data in events(f"{server.url}/runs/{run_id}/events"):
        kinds.append(kind)
        if data.get("phase") == "decode":
            log = server.get(f"/runs/{run_id}/log")
            assert log.headers["Content-Type"].startswith("text/plain")
            assert "Starting decode loop" in log.text
            assert "1 passed" not in log.text
    assert "1 passed" in server.get(f"/runs/{run_id}/log").text
    assert kinds[0] == "queued"
    assert kinds[-1] == "done"
    assert {"started", "phase", "progress", "text"} <= set(kinds)


def test_a_run_that_runs_alone_is_cancelled_with_its_child(
    serve: Callable[..., Server], child_settings: Callable[..., Settings]
) -> None:
    server = serve(child_settings("closes_device_slowly", stop_grace=10))
    run_id = requests.post(f"{server.url}/runs", json={"prompt": "Hello"}, timeout=60).json()["run_id"]
    for _, _, data in events(f"{server.url}/runs/{run_id}/events"):
        if data.get("phase") == "decode_compile":
            assert requests.post(f"{server.url}/runs/{run_id}/cancel", timeout=60).json()["status"] == "cancelled"
    assert (server.settings.demo_home / "device_closed").exists() is False  # its run has ended, the child has not yet
    until(lambda: server.get("/health").json()["device"]["state"] != "busy")
    assert server.leftovers() == []
    assert (server.settings.demo_home / "device_closed").exists()
    assert server.get("/health").json()["device"]["state"] == "free"
