"""Who may ask, under which name, and how often: a real server on a real port."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner
from flask import Flask
from support.echo_runner import EchoRunner
from support.serving import Server, application

from demo_api.cli import main
from demo_api.config import Settings
from demo_api.errors import BadRequest, SetupError
from demo_api.web.access import check_exposure, is_loopback, is_ours
from demo_api.web.server import HttpServer

KEY = "0123456789abcdef-one"
OTHER = "0123456789abcdef-two"


@pytest.fixture
def make(serve: Callable[..., Server], settings: Callable[..., Settings]) -> Callable[..., Server]:
    def start(**flags: object) -> Server:
        return serve(settings(**flags), EchoRunner())

    return start


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def ask(server: Server, path: str = "/runs", method: str = "GET", **options: object) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False  # .netrc
        return session.request(method, f"{server.url}{path}", timeout=60, **options)  # type: ignore[arg-type]


# Keys

REFUSED = {
    "none": {},
    "another": bearer("0123456789abcdef-six"),
    "only its beginning": bearer(KEY[:-1]),
    "two": bearer(f"{KEY}, Bearer {OTHER}"),
    "as a password": {"Authorization": f"Basic {KEY}"},
    "without a scheme": {"Authorization": KEY},
    "in another header": {"X-Api-Key": KEY},
    "not ASCII": {"Authorization": b"Bearer \xc3\xa9" + KEY.encode()},
    "empty": {"Authorization": "Bearer "},
}


@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED)
def test_who_has_no_key_is_told_to_send_one(make: Callable[..., Server], headers: dict[str, str]) -> None:
    server = make(keys=f"{KEY},{OTHER}")
    answer = ask(server, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    error = answer.json()
    assert (error["success"], error["code"]) == (False, "unauthorized")
    assert "Authorization: Bearer" in error["next_step"]
    assert error["request_id"] == answer.headers["X-Request-Id"]
    assert KEY[:12] not in answer.text


@pytest.mark.parametrize("path", ["/runs", "/chat", "/runs/x/log", "/v1/models", "/metrics", "/nothing"])
def test_every_other_route_asks_for_a_key(make: Callable[..., Server], path: str) -> None:
    answer = ask(make(keys=KEY), path)
    assert answer.status_code == 401
    assert "available_endpoints" not in answer.text


@pytest.mark.parametrize("headers", [bearer(KEY), bearer(OTHER), {"Authorization": f"bearer  {KEY}"}])
def test_who_has_a_key_is_answered(make: Callable[..., Server], headers: dict[str, str]) -> None:
    server = make(keys=f"{KEY},{OTHER}")
    answer = ask(server, "/chat", "POST", json={"prompt": "Hello"}, headers=headers)
    assert (answer.status_code, answer.json()["response"]) == (200, "Hello")
    assert ask(server, "/v1/models", headers=headers).status_code == 200


def test_a_key_in_the_address_does_not_count_and_is_not_logged(
    make: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    server = make(keys=KEY)
    assert ask(server, f"/runs?key={KEY}&api_key={KEY}&access_token={KEY}").status_code == 401
    assert ask(server, headers=bearer(KEY)).status_code == 200
    assert "/runs" in caplog.text
    own = [record for record in caplog.records if not record.name.startswith("urllib3")]  # the client of this test
    assert own
    assert not any(KEY in record.getMessage() for record in own)


def test_openai_below_v1_is_refused_in_openais_shape(make: Callable[..., Server]) -> None:
    answer = ask(make(keys=KEY), "/v1/chat/completions", "POST", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")


def test_the_official_openai_client_sends_its_api_key(make: Callable[..., Server]) -> None:
    from openai import AuthenticationError, OpenAI

    server = make(keys=KEY)
    with OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        assert client.models.list().data[0].id == "echo"
    with (
        OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(AuthenticationError, match="one of this server's"),
    ):
        client.models.list()


class UnpluggedEngine(EchoRunner):
    def check(self) -> None:
        raise SetupError("There is no demo script at /opt/secret/place.", next_step="Look into /opt/secret.")


def test_health_and_readyz_say_less_without_a_key(
    serve: Callable[..., Server], settings: Callable[..., Settings]
) -> None:
    server = serve(settings(keys=KEY), UnpluggedEngine())
    assert ask(server, "/livez").json() == {"status": "alive"}
    brief = ask(server, "/health").json()
    assert brief == {"status": "unhealthy", "note": "With a key this says more.", "engine": "demo"}
    ready = ask(server, "/readyz", headers=bearer("wrong"))
    assert (ready.status_code, ready.json()["code"], ready.headers["Retry-After"]) == (503, "not_set_up", "10")
    assert "secret" not in ready.text
    whole = ask(server, "/health", headers=bearer(KEY)).json()
    assert "secret" in whole["note"]
    assert {"queue", "device"} <= set(whole)
    assert "secret" in ask(server, "/readyz", headers=bearer(KEY)).json()["error"]


def test_health_without_a_key_is_healthy_when_it_is(make: Callable[..., Server]) -> None:
    server = make(keys=KEY)
    assert ask(server, "/health").json()["status"] == "healthy"
    assert ask(server, "/readyz").json() == {"status": "ready"}


# Where the server can be reached


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "some-name", ""])
def test_others_are_not_let_in_without_keys(settings: Callable[..., Settings], host: str) -> None:
    with pytest.raises(SetupError, match="no keys are set") as caught:
        HttpServer(Flask("any"), settings(host=host))  # before it listens
    assert "--insecure" in caught.value.next_step


@pytest.mark.parametrize(
    "flags", [{"keys": KEY}, {"insecure": "true"}, {"host": "127.0.0.1"}, {"host": "localhost"}], ids=str
)
def test_others_are_let_in_with_keys_or_on_demand(settings: Callable[..., Settings], flags: dict[str, str]) -> None:
    check_exposure(settings(**({"host": "0.0.0.0"} | flags)))


@pytest.mark.parametrize(
    ("flags", "client", "status"),
    [
        ({}, "192.0.2.7", 403),
        ({}, "::ffff:192.0.2.7", 403),
        ({}, "127.0.0.1", 200),
        ({}, "::1", 200),
        ({}, "::ffff:127.0.0.1", 200),
        ({}, "", 200),
        ({"insecure": "true"}, "192.0.2.7", 200),
        ({"keys": KEY}, "192.0.2.7", 401),
    ],
)
def test_behind_another_web_server_only_this_machine_is_answered_without_keys(
    settings: Callable[..., Settings], flags: dict[str, str], client: str, status: int
) -> None:
    app = application(settings(**flags), EchoRunner())
    try:
        answer = app.test_client().get("/runs", environ_overrides={"REMOTE_ADDR": client})
    finally:
        app.extensions["demo_api"].close()
    assert answer.status_code == status
    if status == 403:
        assert answer.get_json()["code"] == "keys_needed"


HOSTS = {
    "127.0.0.1": True, "127.0.0.1:8080": True, "127.8.9.1:1": True, "localhost": True, "LocalHost:9": True,
    "[::1]": True, "[::1]:8080": True, "evil.example": False, "127.0.0.1.evil.example": False, "192.0.2.1": False,
    "localhost.evil.example": False, "localhost, evil.example": False, "localhost@evil.example": False, "": False,
    "localhost:8080:1": False, "[::2]": False, "[::1": False, "2130706433": False, "0.0.0.0": False,
}  # fmt: skip


@pytest.mark.parametrize(("host", "ours"), HOSTS.items(), ids=repr)
def test_a_name_that_is_not_loopbacks_is_not_ours(host: str, ours: bool) -> None:
    assert is_ours(host, ()) is ours


def test_a_page_elsewhere_cannot_make_a_browser_ask_us(make: Callable[..., Server]) -> None:
    answer = ask(make(), "/health", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.json()["code"]) == (421, "wrong_host")
    assert "DEMO_API_HOSTS" in answer.json()["next_step"]


@pytest.mark.parametrize(("host", "status"), [("Demo.Example:443", 200), ("b", 200), ("127.0.0.1", 200), ("c", 421)])
def test_further_names_can_be_set(make: Callable[..., Server], host: str, status: int) -> None:
    assert ask(make(hosts=" demo.example, b"), "/livez", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    "hosts", ["https://demo.example", "demo.example:443", "a,b c", "demo.example/", "[::1]:80", "*"]
)
def test_names_that_no_request_could_have_are_refused(settings: Callable[..., Settings], hosts: str) -> None:
    with pytest.raises(BadRequest, match=r"DEMO_API_HOSTS or --hosts .* without scheme and port"):
        settings(hosts=hosts)


def test_elsewhere_than_on_loopback_any_name_will_do_unless_names_are_set(
    make: Callable[..., Server], settings: Callable[..., Settings]
) -> None:
    for flags, status in (({"keys": KEY}, 200), ({"keys": KEY, "hosts": "a"}, 421)):
        app = application(settings(host="0.0.0.0", **flags), EchoRunner())
        try:
            assert app.test_client().get("/livez", headers={"Host": "x.example"}).status_code == status
        finally:
            app.extensions["demo_api"].close()


def test_loopback_is_known_by_address() -> None:
    assert is_loopback("127.3.2.1")
    assert is_loopback("::ffff:127.0.0.1")
    assert not is_loopback("::ffff:192.0.2.1")
    assert not is_loopback("128.0.0.1")


# How much, and how often


def test_the_limit_of_a_body_is_a_setting(make: Callable[..., Server]) -> None:
    server = make(max_body=2000)
    small, large = ({"prompt": "a" * size} for size in (1500, 2500))
    assert ask(server, "/chat", "POST", json=small).status_code == 200
    answer = ask(server, "/chat", "POST", json=large)
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert "2000" in answer.json()["next_step"]
    chunked = ask(server, "/chat", "POST", data=iter([b" " * 1500] * 2), headers={"Content-Type": "application/json"})
    assert chunked.status_code == 413


def test_more_requests_than_the_limit_are_sent_away_until_it_is_over(make: Callable[..., Server]) -> None:
    server = make(rate_limit=3)
    assert [ask(server).status_code for _ in range(4)] == [200, 200, 200, 429]
    answer = ask(server, "/runs/nothing")  # one limit for all routes
    assert answer.status_code == 429
    error = answer.json()
    assert (error["success"], error["code"]) == (False, "rate_limited")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert error["retry_after"] == int(answer.headers["Retry-After"])
    for path in ("/livez", "/readyz", "/health", "/metrics"):
        assert [ask(server, path).status_code for _ in range(4)] == [200] * 4


def test_what_runs_the_model_has_a_limit_of_its_own(make: Callable[..., Server]) -> None:
    server = make(rate_limit=8, run_rate_limit=2)
    body = {"json": {"prompt": "Hello"}}
    assert [ask(server, path, "POST", **body).status_code for path in ("/chat", "/runs")] == [200, 202]
    for path in ("/chat", "/chat/stream", "/runs", "/v1/chat/completions"):
        refused = ask(server, path, "POST", **body)
        assert refused.status_code == 429, path
        assert "More than 2 requests that run the model were sent within a minute." in refused.text
    assert [ask(server).status_code for _ in range(3)] == [200, 200, 429]  # other requests have the general limit only
    assert "More than 8 requests were sent" in ask(server).text


@pytest.mark.parametrize("hours", [-1, 1], ids=["back", "forward"])
def test_a_clock_that_is_set_refuses_nobody_for_longer_than_the_limit(
    make: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    server, clock = make(rate_limit=2), time.time
    ask(server, "/runs")
    monkeypatch.setattr(time, "time", lambda: clock() + 3600 * hours)
    assert [ask(server, "/runs").status_code for _ in range(3)] == [200, 200, 429]
    assert int(ask(server, "/runs").headers["Retry-After"]) <= 60


def test_each_key_has_a_limit_of_its_own_and_wrong_ones_have_one_together(make: Callable[..., Server]) -> None:
    server = make(rate_limit=2, keys=f"{KEY},{OTHER}")
    wrong = [ask(server, headers=bearer(f"{number:016}")).status_code for number in range(3)]
    assert wrong == [401, 401, 429]
    assert [ask(server, headers=bearer(KEY)).status_code for _ in range(3)] == [200, 200, 429]
    assert ask(server, headers=bearer(OTHER)).status_code == 200


ORACLES = [("GET", "/nothing"), ("PUT", "/livez"), ("GET", "/health"), ("GET", "/readyz"), ("GET", "/metrics")]


@pytest.mark.parametrize(("method", "path"), ORACLES)
def test_keys_are_nowhere_guessed_without_a_limit(make: Callable[..., Server], method: str, path: str) -> None:
    server = make(rate_limit=2, keys=KEY)
    told = [ask(server, path, method, headers=bearer(f"{number:016}")).status_code for number in range(3)]
    assert told[2] == 429, told
    assert ask(server, path, method, headers=bearer(KEY)).status_code in (200, 404, 405)
    assert ask(server, "/livez").status_code == 200  # who sends no key guesses none


def test_there_is_no_limit_by_default(make: Callable[..., Server]) -> None:
    server = make()
    assert {ask(server).status_code for _ in range(70)} == {200}


def test_the_limits_log_names_no_key(make: Callable[..., Server], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    server = make(rate_limit=1, keys=KEY)
    assert [ask(server, headers=bearer(KEY)).status_code for _ in range(2)] == [200, 429]
    assert re.search(r"key [0-9a-f]{8}", caplog.text)
    assert KEY not in "".join(record.getMessage() for record in caplog.records if record.name != "urllib3")


# Commands that ask a server


ELSEWHERE = "http://elsewhere.example"
SENDERS = {
    "a program": ({}, 200),
    "our own page": ({"Sec-Fetch-Site": "same-origin", "Origin": "OWN"}, 200),
    "our own page, in a browser that says less": ({"Origin": "OWN"}, 200),
    "our own page, behind a proxy": ({"Origin": ELSEWHERE, "Content-Type": "application/json"}, 200),
    "an allowed page": ({"Sec-Fetch-Site": "cross-site", "Origin": "http://friend.example"}, 200),
    "a page elsewhere": ({"Sec-Fetch-Site": "cross-site", "Origin": ELSEWHERE}, 403),
    "a page of another port": ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"}, 403),
    "a page elsewhere, in a browser that says less": ({"Origin": ELSEWHERE}, 403),
    "a page without an origin": ({"Origin": "null"}, 403),
    "a form elsewhere": ({"Origin": ELSEWHERE, "Content-Type": "text/plain"}, 403),
}


@pytest.mark.parametrize(("headers", "status"), SENDERS.values(), ids=SENDERS)
def test_a_page_of_another_site_cannot_cancel_a_run(
    serve: Callable[..., Server], settings: Callable[..., Settings], headers: dict[str, str], status: int
) -> None:
    server = serve(settings(cors_origins="http://friend.example"), EchoRunner(paused=True))
    run_id = requests.post(f"{server.url}/runs", json={"prompt": "hang"}, timeout=60).json()["run_id"]
    given = {name: server.url if value == "OWN" else value for name, value in headers.items()}
    done = requests.post(f"{server.url}/runs/{run_id}/cancel", headers=given, timeout=60)
    assert done.status_code == status, done.text
    assert status == 200 or done.json()["code"] == "cross_site"
    assert (server.get(f"/runs/{run_id}").json()["status"] == "cancelled") == (status == 200)


@pytest.mark.parametrize(("key", "code", "told"), [(KEY, 0, "1 passed"), (None, 2, "unauthorized: The key is missing")])
def test_smoke_sends_its_key(
    make: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, code: int, told: str
) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text('[{"prompt": "Hello"}]')
    if key:
        monkeypatch.setenv("DEMO_API_KEY", key)
    url = make(keys=KEY).url
    done = CliRunner().invoke(main, ["smoke", "--url", url, "--prompts", str(prompts)])
    assert done.exit_code == code, done.output
    assert told in done.output
    assert KEY not in done.output


@pytest.mark.parametrize("key", ["abcdefghijklmnop\nX: private", "priväte-abcdefghijklmnop", "private", " , "])
@pytest.mark.parametrize("command", ["smoke --url http://127.0.0.1:9", "compare --demo http://a --direct http://b"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, command: str, key: str
) -> None:
    monkeypatch.setenv("DEMO_API_KEY", key)
    done = CliRunner().invoke(main, command.split())
    assert done.exit_code == 2, done.output
    assert "DEMO_API_KEY is not usable" in done.output
    assert "priv" not in done.output
    assert "abcdefgh" not in done.output


@pytest.mark.parametrize(("key", "code", "told"), [(KEY, 0, "1 same"), (OTHER, 2, "is not one of this server's")])
def test_compare_sends_its_key(
    serve: Callable[..., Server],
    settings: Callable[..., Settings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    code: int,
    told: str,
) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text('[{"prompt": "Hello"}]')
    urls = [serve(settings(keys=KEY, state_dir=tmp_path / side), EchoRunner()).url for side in ("demo", "direct")]
    monkeypatch.setenv("DEMO_API_KEY", key)
    words = [f"--demo={urls[0]}", f"--direct={urls[1]}", f"--prompts={prompts}"]
    done = CliRunner().invoke(main, ["compare", *words])
    assert done.exit_code == code, done.output
    assert told in " ".join(done.output.split())
    assert key not in done.output
