"""The HTTP client of this API, for people and for our own commands.

It does what ``requests`` alone leaves to its caller: a run is submitted once however often that had to be tried, its
events go on after a lost connection, and an error is an exception that has the server's code and next step.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import requests

from demo_api.bodies import Accepted, ChatAnswer, Health, RunRecord
from demo_api.errors import BadRequest

_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 45.0  # of a stream that is alive: the server sends a comment every 15
_AGAIN_SECONDS = 0.5


class ServerError(Exception):
    """The server answered, and not with what was asked for.

    Attributes:
        status: of HTTP.
        code: what is wrong, as docs/errors.md has it; ``not_demo_api`` where somebody else has answered.
        next_step: what to do about it.
        body: all that the error tells.
    """

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(body["error"])
        self.status = status
        self.code: str = body["code"]
        self.next_step: str = body["next_step"]
        self.body = body


# What may be another time. An answer that was cut in its headers has no JSON.
_LOST = (
    ServerError,
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.JSONDecodeError,
)


@dataclass(frozen=True)
class Piece:
    """What comes next of an answer.

    Attributes:
        text: what it adds; empty in the last one.
        finish_reason: ``stop`` or ``length`` in the last one; before, None.
    """

    text: str
    finish_reason: str | None = None


@dataclass(frozen=True)
class RunEvent:
    """One thing that happened in a run: docs/runs.md has the kinds and their data."""

    number: int
    kind: str
    data: Mapping[str, Any]


class Client:
    """One server. Every request has a connection of its own, so any thread may call.

    Args:
        url: of the server, such as ``http://127.0.0.1:8080``.
        key: one of the server's keys, where it has any.
        patience: seconds for which a server may be away, or have no room, until ``submit``, ``events`` or ``wait``
            gives up.
        timeout: seconds to wait for one answer; ``chat`` waits for the whole run.
        trust_env: whether proxies and ``.netrc`` of the environment are used, as ``requests`` does; they are seldom
            meant for a server of one's own, and ``.netrc`` would take the place of the key.

    Attributes:
        url: the server's, as it may be shown: without a password.
        timeout: as given.

    Raises:
        BadRequest: the URL is none.

    Every method but ``send`` raises ServerError, or one of ``requests.RequestException`` where nobody answers.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        key: str | None = None,
        patience: float = 60.0,
        timeout: float | None = None,
        trust_env: bool = False,
    ) -> None:
        self._url = url.rstrip("/")
        self.url = re.sub("(^|//)[^/]*@", r"\1", self._url)
        if not _is_address(url):
            raise BadRequest(
                f"{self.url} is not the address of a server.", next_step="Use one such as http://127.0.0.1:8080."
            )
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._patience = patience
        self.timeout = timeout
        self._trust_env = trust_env

    def health(self) -> Health:
        """How the server is."""
        return cast(Health, self._ask("GET", "/health"))

    def chat(self, prompt: str, **fields: object) -> ChatAnswer:
        """One prompt to either engine, in one request, which is not repeated.

        Args:
            fields: ``max_tokens``, ``temperature``, ``top_p``, ``seed``.
        """
        return cast(ChatAnswer, self._ask("POST", "/chat", {"prompt": prompt, **fields}))

    def model(self) -> str:
        """The name of the model; a server that is still loading it is waited for."""
        return cast(str, self._ask_patiently("GET", "/v1/models")["data"][0]["id"])

    def converse(self, messages: Sequence[Mapping[str, str]], *, model: str, **fields: object) -> Generator[Piece]:
        """A conversation, to a server with the direct engine: yields the answer as it comes. Closing it cancels that.

        Args:
            messages: each with ``role`` (``system``, ``user``, ``assistant``) and ``content``; the last is the user's.
            fields: ``max_tokens``, ``temperature``, ``top_p``, ``seed``, ``stop``.
        """
        body = {"model": model, "messages": messages, "stream": True, **fields}
        with self.send("POST", "/v1/chat/completions", body, stream=True) as answer:
            for line in _checked(answer).iter_lines(chunk_size=None):
                name, _, value = line.decode().partition(": ")
                if name != "data" or value == "[DONE]":
                    continue
                chunk = json.loads(value)
                if "error" in chunk:
                    raise ServerError(answer.status_code, _flat(chunk))
                for choice in chunk["choices"]:
                    yield Piece(choice["delta"].get("content", ""), choice["finish_reason"])

    def submit(self, prompt: str, *, idempotency_key: str | None = None, **fields: object) -> str:
        """Puts a run into the demo engine's line, once.

        Args:
            idempotency_key: default: a new one.

        Returns:
            the run's id.
        """
        headers = {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
        accepted = cast(Accepted, self._ask_patiently("POST", "/runs", {"prompt": prompt, **fields}, headers))
        return accepted["run_id"]

    def run(self, run_id: str) -> RunRecord:
        """A run as it is now."""
        return cast(RunRecord, self._ask("GET", f"/runs/{run_id}"))

    def cancel(self, run_id: str) -> RunRecord:
        """Ends a run that waits or runs."""
        return cast(RunRecord, self._ask("POST", f"/runs/{run_id}/cancel"))

    def wait(self, run_id: str) -> RunRecord:
        """The run when it has ended, however it did: see its ``status``."""
        for _event in self.events(run_id):
            pass
        return cast(RunRecord, self._ask_patiently("GET", f"/runs/{run_id}"))

    def events(self, run_id: str, *, after: int = 0) -> Iterator[RunEvent]:
        """What happens in a run, each event once, up to ``done``; a lost connection is made again.

        Args:
            after: the number of the last event that is known already.
        """
        deadline = time.monotonic() + self._patience
        while True:
            try:
                headers = {"Last-Event-ID": str(after)}
                with self.send("GET", f"/runs/{run_id}/events", headers=headers, stream=True) as answer:
                    for event in _events(_checked(answer)):
                        after, deadline = event.number, time.monotonic() + self._patience
                        yield event
                        if event.kind == "done":
                            return
                lost: Exception = requests.ConnectionError("The server has ended the stream.")
            except _LOST as error:
                lost = error
            _wait_or_raise(lost, deadline)

    def _ask_patiently(self, *request: Any) -> Any:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return self._ask(*request)
            except _LOST as error:
                _wait_or_raise(error, deadline)

    def _ask(
        self, method: str, path: str, body: Mapping[str, object] | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        return _checked(self.send(method, path, body, headers)).json()

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float | None = None,
        stream: bool = False,
    ) -> requests.Response:
        """Sends one request, for callers who judge the answer themselves, whatever its status.

        Args:
            timeout: seconds to wait for this answer; default: the client's.
            stream: whether the body is read later, as it comes.

        Raises:
            requests.RequestException: nobody answers; see ``reason``.
        """
        with requests.Session() as session:  # a connection that the server closed meanwhile would look like a failure
            session.trust_env = self._trust_env
            return session.request(
                method,
                self._url + path,
                json=body,
                headers={**self._headers, **(headers or {})},
                timeout=(_CONNECT_SECONDS, _SILENCE_SECONDS if stream else timeout or self.timeout),
                stream=stream,
                allow_redirects=False,  # a POST that is redirected becomes a GET
            )


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _checked(answer: requests.Response) -> requests.Response:
    if answer.ok and not answer.is_redirect:
        return answer
    body = _flat(json_of(answer))
    if not (isinstance(body, dict) and {"error", "code", "next_step"} <= body.keys()):
        said = f"{answer.url} answered {answer.status_code} {answer.reason}, and not as demo_api does."
        next_step = "Look at what stands between you and the server."
        body = {"error": said, "code": "not_demo_api", "next_step": next_step}
    raise ServerError(answer.status_code, body)


def _flat(body: Any) -> Any:
    """An error in OpenAI's shape as all others are."""
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        return {**body["error"], "error": body["error"].get("message")}
    return body


def json_of(answer: requests.Response) -> Any:
    """What an answer holds as JSON; None where that is none."""
    try:
        return answer.json()
    except requests.JSONDecodeError:
        return None


def reason(error: requests.RequestException) -> str:
    """Why there is no answer, in the words of the exception at the bottom: ``requests`` wraps it several times."""
    inner: BaseException = error
    while wrapped := inner.__cause__ or inner.__context__:
        inner = wrapped
    return (isinstance(inner, OSError) and inner.strerror) or str(inner) or type(inner).__name__


def _events(answer: requests.Response) -> Iterator[RunEvent]:
    fields: dict[str, str] = {}
    for line in answer.iter_lines(chunk_size=None):
        name, _, value = line.decode().partition(": ")
        if line and name:  # a line without a name is a comment
            fields[name] = value
        elif not line and "data" in fields:
            yield RunEvent(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}


def _wait_or_raise(error: Exception, deadline: float) -> None:
    """Lets some time pass before it is tried again; raises the error where that would not help, or took too long."""
    seconds = _AGAIN_SECONDS
    if isinstance(error, ServerError):
        if error.status not in (429, 502, 503, 504):
            raise error
        seconds = max(seconds, float(error.body.get("retry_after") or 0))
    if time.monotonic() + seconds > deadline:
        raise error
    time.sleep(seconds)
