"""Puts the prompts of a smoke test to the demo, or to a server, within a bounded time."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue

import requests
from pydantic import ValidationError

from demo_api import bodies
from demo_api.cli.smoke.checks import FAILED, Check, Entry, Reply, judge
from demo_api.devices.local_run import LocalRun
from demo_api.errors import DemoApiError, RunFailed
from demo_api.messages import Event, Request, Run
from demo_api.web.keys import bearer

AT_ONCE = 4
"""Prompts that a server gets at the same time, so that it can give them to one child together."""

_CONNECT_SECONDS = 10.0
_LOOK_SECONDS = 0.1
_SPARE_SECONDS = 5.0


class Deadline:
    """The end of the time that a whole smoke test may take, counted from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds; 0 when it is over."""
        return max(0.0, self._end - time.monotonic())

    def missed(self, entry: Entry) -> Check:
        """For a prompt that has not ended by then."""
        return Check(entry, FAILED, (f"timed_out: It had not ended when the {self.seconds:g} s were over.",))


def ask_demo(
    entries: Sequence[Entry],
    asked: Sequence[Request],
    demo: LocalRun,
    deadline: Deadline,
    tell: Callable[[Event], None],
) -> Iterator[Check]:
    """Runs the demo, as few children as fit, and yields a check when a prompt's child has ended.

    Args:
        asked: the request for each of the entries.
        tell: gets the runs' events.
    """
    timer = threading.Timer(deadline.left(), demo.stop, ("timed_out",))
    timer.daemon = True
    timer.start()
    left = list(entries)
    try:
        runs = demo.prepare(asked)
        entry_of = {run.run_id: entry for run, entry in zip(runs, entries, strict=True)}
        for run in demo.run(runs, tell, refuse_failed=True):
            entry = entry_of[run.run_id]
            left.remove(entry)
            reply = _reply(run, "demo")
            late = reply.code == "timed_out" and not deadline.left()
            yield deadline.missed(entry) if late else judge(entry, reply)
    except DemoApiError as error:
        for entry in left:
            yield judge(entry, Reply.of(error))
    finally:
        timer.cancel()


def _reply(run: Run, engine: str) -> Reply:
    try:
        body = bodies.answer(run, engine=engine, output="", seconds=run.time_seconds or 0.0)
    except RunFailed as error:
        return Reply.of(error)
    return Reply.model_validate(body)


def ask_server(
    entries: Sequence[Entry],
    asked: Sequence[Request],
    url: str,
    deadline: Deadline,
    stopped: threading.Event,
    *,
    key: str | None = None,
) -> Iterator[Check]:
    """Asks a server, a few prompts at once, and yields a check when it has answered one.

    Args:
        url: of the server, without a path: ``http://127.0.0.1:8080``.
        stopped: set from another thread, ends it.
        key: the server's, if it has keys.
    """
    headers = bearer(key)
    todo: SimpleQueue[tuple[Entry, Request]] = SimpleQueue()
    done: SimpleQueue[Check] = SimpleQueue()
    for pair in zip(entries, asked, strict=True):
        todo.put(pair)

    def ask() -> None:
        while deadline.left() and not stopped.is_set():
            try:
                entry, request = todo.get_nowait()
            except Empty:
                return
            done.put(judge(entry, _chat(url, headers, request.model_dump(exclude_none=True), deadline)))

    for _ in entries[:AT_ONCE]:
        # Daemons: a server that trickles bytes without end must not keep us from leaving in time.
        threading.Thread(target=ask, daemon=True).start()
    left = list(entries)
    while left and deadline.left() and not stopped.is_set():
        try:
            check = done.get(timeout=min(_LOOK_SECONDS, deadline.left()))
        except Empty:
            continue
        left.remove(check.entry)
        yield check
    for entry in left:
        yield judge(entry, _INTERRUPTED) if stopped.is_set() else deadline.missed(entry)


_INTERRUPTED = Reply(code="cancelled", error="The smoke test was interrupted.")


def _chat(url: str, headers: Mapping[str, str], fields: Mapping[str, object], deadline: Deadline) -> Reply:
    shown = re.sub("//[^/]*@", "//", url)  # without a password
    try:
        with requests.Session() as session:
            session.trust_env = False  # a proxy of the environment is not meant for servers of one's own
            answer = session.post(
                f"{url.rstrip('/')}/chat",
                json=fields,
                headers=headers,
                # Longer than the deadline, which is not for this thread to tell.
                timeout=(_CONNECT_SECONDS, deadline.left() + _SPARE_SECONDS),
                allow_redirects=False,  # a POST that is redirected becomes a GET
            )
    except requests.RequestException as error:
        return Reply(code="unreachable", error=f"{shown} cannot be reached: {_cause(error)}.")
    said = f"{shown} answered {answer.status_code} {answer.reason}"
    try:
        reply = Reply.model_validate(answer.json())
    except ValidationError:
        return Reply(code="not_demo_api", error=f"{said}, and that is no answer of demo_api.")
    except ValueError:  # not JSON
        where = f" ({answer.headers['Location']})" if "Location" in answer.headers else ""
        return Reply(code="not_demo_api", error=f"{said}{where}, and not in JSON.")
    if reply.success or reply.code:
        return reply
    return Reply(code="not_demo_api", error=f"{said}: {reply.error or 'no reason is given'}.")


def _cause(error: BaseException) -> str:
    """The operating system's words, which are at the bottom of a pile of exceptions, or else the exception's own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error)
