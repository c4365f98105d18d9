"""A hand-written engine for the tests of what stands above the engines."""

from __future__ import annotations

import threading

from demo_api.errors import SetupError
from demo_api.messages import Answer, Event, Failure, Listener, Request, Result, Run


class EchoEngine:
    """Answers with the prompt; holds each run until it is let go, or stopped."""

    name = "echo"

    def __init__(self, *, hold: bool = False) -> None:
        self.let_go = threading.Event()
        self.stopped = threading.Event()
        self.seen: list[str] = []
        self.hurried = False
        if not hold:
            self.let_go.set()

    def check(self) -> None:
        pass

    def accept(self, request: Request) -> None:
        pass

    def device_is_taken(self) -> bool:
        return False

    def describe(self) -> dict[str, object]:
        return {"model": "echo", "model_loaded": True}

    def generate(self, runs: list[Run], listener: Listener) -> list[Result]:
        prompt = runs[0].request.prompt
        self.seen.append(prompt)
        listener(runs[0].run_id, Event("phase", None, {"phase": "decode"}))
        if prompt == "break":
            raise OSError(28, "No space left on device")
        if prompt == "unplug":
            raise SetupError("The demo home is gone.")
        self.let_go.wait()
        if self.stopped.is_set():
            return [Result(run.run_id, failure=Failure("cancelled", "The run was cancelled.")) for run in runs]
        return [Result(run.run_id, answer=Answer(run.request.prompt, 1)) for run in runs]

    def stop(self, reason: str) -> None:
        self.stopped.set()
        self.let_go.set()

    def hurry(self) -> None:
        self.hurried = True
