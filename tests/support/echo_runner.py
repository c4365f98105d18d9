"""A hand-written runner, and what a door must know of it, for the tests of what stands above the runners."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from support.waiting import wait_for

from demo_api.demo.capabilities import check_model
from demo_api.demo.progress import Listener
from demo_api.demo.warm_child import WarmChild
from demo_api.devices.lock import DeviceLock
from demo_api.errors import SetupError
from demo_api.messages import Answer, Batch, Event, Failure, Outcome, Request, Result, Run
from demo_api.messages.health import ModelHealth, PoolModel


class EchoRunner:
    """Answers with the prompt; with ``paused``, each batch waits until it is let go, or cancelled."""

    name = "demo"

    def __init__(self, *, paused: bool = False) -> None:
        self.let_go = threading.Event()
        self.entered = threading.Event()
        self.seen: list[list[str]] = []
        self.cancelled: list[tuple[str, str]] = []
        self.suspect: str | None = None
        self.hurried = False
        self._now: str | None = None
        if not paused:
            self.let_go.set()

    def check(self) -> None:
        pass

    def pool_of(self, requests: Sequence[Request]) -> str | None:
        return None

    def accept(self, requests: Sequence[Request], pool: str | None = None) -> None:
        self.check()
        for request in requests:
            check_model(request.model, self.models())

    def is_only_here(self, pool: str | None) -> bool:
        return True

    def models(self) -> list[str]:
        return ["echo"]

    def model_name(self) -> str:
        return "echo"

    def describe(self) -> ModelHealth:
        return {"model": "echo", "model_loaded": True}

    def pool_model(self) -> PoolModel:
        return {**self.describe(), "sequence_limit": 2048, "takes_seed": True}

    def choose(self, runs: Sequence[Run], warm: WarmChild | None = None) -> list[Run]:
        return list(runs)

    def start_warm(self, batch_id: str, lock: DeviceLock, batch: Batch | None = None) -> WarmChild:
        raise OSError("An echo has no children.")

    def prepare_next(self, warm: WarmChild, batch_id: str) -> None:
        raise NotImplementedError

    def end_users(self, batch_id: str, users: Sequence[int]) -> None:
        pass

    def suits(self, warm: WarmChild) -> bool:
        return False

    def generate(self, batch: Batch, listener: Listener, lock: DeviceLock, warm: WarmChild | None = None) -> Outcome:
        self._now = batch.batch_id
        prompts = [run.request.prompt for run in batch.runs]
        self.seen.append(prompts)
        self.entered.set()
        for run in batch.runs:
            listener(run.run_id, Event("phase", None, {"phase": "decode"}))
        if "break" in prompts:
            raise OSError(28, "No space left on device")
        if "unplug" in prompts:
            raise SetupError("The demo home is gone.")
        if batch.batch_id not in dict(self.cancelled):  # perhaps before it came here
            wait_for(self.let_go)
        reason = dict(self.cancelled).get(batch.batch_id)
        if reason is not None:
            failure = Failure(reason, "The batch was ended.")
            return Outcome([Result(run.run_id, failure=failure) for run in batch.runs], self.suspect)
        if "fail" in prompts:
            failure = Failure("demo_failed", "It failed.")
            return Outcome([Result(run.run_id, failure=failure) for run in batch.runs], self.suspect)
        return Outcome([Result(run.run_id, answer=Answer(run.request.prompt, 1)) for run in batch.runs], self.suspect)

    def cancel(self, batch_id: str, reason: str) -> None:
        self.cancelled.append((batch_id, reason))
        if batch_id == self._now:
            self.let_go.set()

    def hurry(self) -> None:
        self.hurried = True
