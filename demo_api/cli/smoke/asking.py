"""Sends the prompts of a smoke test to the demo, or to a server, within a time limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue

import requests
from pydantic import ValidationError

from demo_api import bodies
from demo_api.cli.smoke.checks import FAILED, Check, Entry, Reply, judge
from demo_api.client import Client, json_of, reason
from demo_api.demo.progress import Listener
from demo_api.devices.local_run import LocalRun
from demo_api.errors import DemoApiError, RunFailed
from demo_api.messages import Request, Run

AT_ONCE = 4
"""Prompts that a server gets at the same time, so that it can give them to one child together."""

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
        return Check(entry, FAILED, (f"timed_out: It did not end within --max-seconds ({self.seconds:g} s).",))


def ask_demo(
    entries: Sequence[Entry],
    asked: Sequence[Request],
    demo: LocalRun,
    deadline: Deadline,
    tell: Listener,
) -> Iterator[Check]:
    """Runs the demo, as few children as fit, and yields a check when a prompt's child has ended.

    Args:
        asked: the request for each of the entries.
        tell: gets the runs' events, each with the run's id.
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

    Raises:
        BadRequest: the URL is none.
    """
    client = Client(url, key=key)
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
            done.put(judge(entry, _chat(client, request, deadline)))

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


def _chat(client: Client, request: Request, deadline: Deadline) -> Reply:
    late = deadline.left() + _SPARE_SECONDS  # longer than the deadline, which is not for this thread to tell
    try:
        answer = client.send("POST", "/chat", request.model_dump(exclude_none=True), timeout=late)
    except requests.RequestException as error:
        return Reply(code="unreachable", error=f"{client.url} cannot be reached: {reason(error)}.")
    said = f"{client.url} answered {answer.status_code} {answer.reason}"
    body = json_of(answer)
    if body is None:
        where = f" ({answer.headers['Location']})" if "Location" in answer.headers else ""
        return Reply(code="not_demo_api", error=f"{said}{where}, and not in JSON.")
    try:
        reply = Reply.model_validate(body)
    except ValidationError:
        return Reply(code="not_demo_api", error=f"{said}, which is not a response of demo_api.")
    if reply.success or reply.code:
        return reply
    return Reply(code="not_demo_api", error=f"{said}: {reply.error or 'no reason is given'}.")
