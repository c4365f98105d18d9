"""The models that a door accepts runs for: those of the workers, on whatever hosts they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from operator import itemgetter
from types import SimpleNamespace
from typing import Protocol, cast

from demo_api.demo.capabilities import Capabilities, check_model, check_requests
from demo_api.errors import BadRequest, DeviceFailed, NoWorker
from demo_api.messages import Request
from demo_api.messages.health import OUT_OF_SERVICE, ModelHealth
from demo_api.queue.workers import Worker, Workers

_OLDEST_SECONDS = 0.5
"""How old the list of workers may be that a request is checked with."""

_RETRY_SECONDS = 10


class Demo(Protocol):
    """What a door must know of what its runs are for: ``Capabilities`` of one demo, or ``Pools``."""

    def check(self) -> None:
        """Raises SetupError or NoWorker, with the next step, when no run could succeed as it is now."""

    def pool_of(self, requests: Sequence[Request]) -> str | None:
        """The pool that these requests are for; None where there is one only.

        Raises:
            BadRequest: they are for several, or do not say for which of several.
            NoWorker: no worker is connected, and they do not say for which.
            SetupError: as ``check``.
        """

    def accept(self, requests: Sequence[Request], pool: str | None) -> None:
        """Raises what keeps a run of these requests from being accepted for the pool.

        Raises:
            ModelNotFound: the model is not here.
            NoWorker: the workers that had it are gone.
            BadRequest: the model's demo is known to be unable to answer one of the requests.
            DeviceFailed: all devices of the pool have failed, and they are others'.
            SetupError: as ``check``.
        """

    def is_only_here(self, pool: str | None) -> bool:
        """Whether no other node can run what this pool gets."""

    def models(self) -> list[str]:
        """The names of the models that a request may ask for."""

    def describe(self) -> ModelHealth:
        """The model of a request that names none, as ``/health`` shows it."""


class Pools:
    """The pools of a database, for one door.

    Args:
        own: the demo of this process, which a request is for that names no model; None for a door alone.
        waits: whether runs are accepted for a model whose workers are all gone.
    """

    def __init__(self, workers: Workers, own: Capabilities | None = None, *, waits: bool = False) -> None:
        self._workers = workers
        self._own = own
        self._waits = waits
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._known: list[tuple[Worker, float | None]] = []

    def check(self) -> None:
        """Raises NoWorker where no worker is connected, and SetupError where this process's own demo is broken."""
        if self._own is not None:
            self._own.check()
        elif not self._live() and not (self._waits and self._read()):
            raise NoWorker("No worker is connected, so nothing would be run.", retry_after=_RETRY_SECONDS)

    def pool_of(self, requests: Sequence[Request]) -> str:
        """As ``Demo.pool_of``."""
        asked = {request.model or self._default() for request in requests}
        if len(asked) > 1:
            raise BadRequest("The requests are for several models.", next_step="Send them apart.", field="model")
        (pool,) = asked
        return pool

    def accept(self, requests: Sequence[Request], pool: str | None) -> None:
        """As ``Demo.accept``."""
        if self._own is not None and pool == self._own.model_name():
            self._own.accept(requests)
        else:
            self._accept_elsewhere(pool, requests)

    def is_only_here(self, pool: str | None) -> bool:
        """Whether the pool is this process's own, and no other node has a device for it that is in service."""
        elsewhere = (worker.devices for worker in self._of(pool) if worker.node != self._workers.node)
        fit = any(device["state"] not in OUT_OF_SERVICE for devices in elsewhere for device in devices)
        return self._own is not None and pool == self._own.model_name() and not fit

    def is_warm_elsewhere(self) -> bool:
        """Whether a device of another node waits with a warm child for runs of this process's own pool."""
        own = None if self._own is None else self._own.model_name()
        devices = (worker.devices for worker in self._of(own) if worker.node != self._workers.node)
        return any(each["state"] == "free" and each["warm"] != "off" for there in devices for each in there)

    def models(self) -> list[str]:
        """The names of the models that a worker has."""
        own = [] if self._own is None else [self._own.model_name()]
        return sorted({*own, *(worker.pool for worker in self._live())})

    def describe(self) -> ModelHealth:
        """The model of a request that names none; of several, the first; none where no worker is connected.

        Raises:
            SetupError: this process's own demo is broken.
        """
        if self._own is not None:
            return self._own.describe()
        live = self._live()
        if not live:
            return {"model": None, "model_loaded": False}
        model = {**live[0].model}
        del model["sequence_limit"], model["takes_seed"]
        return cast(ModelHealth, model)

    def _accept_elsewhere(self, pool: str | None, requests: Sequence[Request]) -> None:
        there = self._of(pool)
        gone = [(gone_at, worker) for worker, gone_at in self._read() if worker.pool == pool and gone_at is not None]
        if gone and not there:
            gone_at, latest = max(gone, key=itemgetter(0))
            if not self._waits:
                since = datetime.fromtimestamp(gone_at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
                raise NoWorker(f"No worker has had the model {pool!r} since {since}.", retry_after=_RETRY_SECONDS)
            check_requests(SimpleNamespace(**latest.model), requests)
            return
        check_model(pool, self.models())
        check_requests(SimpleNamespace(**there[0].model), requests)
        check_in_service((device["state"], device["reason"]) for worker in there for device in worker.devices)

    def _default(self) -> str:
        if self._own is not None:
            return self._own.model_name()
        self.check()
        models = self.models() or sorted({worker.pool for worker, _ in self._read()})
        if len(models) > 1:
            raise BadRequest(
                f"Several models are served here: {', '.join(models)}.",
                next_step="Name one of them in 'model'.",
                field="model",
            )
        return models[0]

    def _of(self, pool: str | None) -> list[Worker]:
        return [worker for worker in self._live() if worker.pool == pool]

    def _live(self) -> list[Worker]:
        return [worker for worker, gone_at in self._read() if gone_at is None]

    def _read(self) -> list[tuple[Worker, float | None]]:
        with self._lock:
            if time.monotonic() - self._read_at > _OLDEST_SECONDS:
                self._known = self._workers.known()
                self._read_at = time.monotonic()
            return self._known


def check_in_service(devices: Iterable[tuple[str, str | None]]) -> None:
    """Raises DeviceFailed if none of the devices takes runs, by their states and the reasons of those."""
    states = list(devices)
    if not states or any(state not in OUT_OF_SERVICE for state, _ in states):
        return
    for state, reason in states:
        if state == "failed":
            raise DeviceFailed(f"The device has failed: {reason}")
    raise DeviceFailed(
        "The device is drained: it takes no runs.",
        next_step="Wait until somebody puts it back into service: `demo-api device resume`.",
    )
