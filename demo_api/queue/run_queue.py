"""The queue of runs: accepts them, gives them to children in batches, and ends each of them once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from sqlalchemy import ColumnElement, Connection, RowMapping, false, select, update

from demo_api.errors import IdempotencyConflict, NoSuchRun, RunEnded
from demo_api.messages import Batch, Event, Failure, Request, Result, Run
from demo_api.messages.health import Queue
from demo_api.queue import asked, rows, transitions
from demo_api.queue.alive import has_lived, living
from demo_api.queue.capacity import Capacity, count
from demo_api.queue.database import Database
from demo_api.queue.node import Node
from demo_api.queue.schema import batches, runs
from demo_api.queue.session import CANCELLED, CHANGED, QUEUED
from demo_api.queue.submissions import Submission, Submissions

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""How often a run is given to a child before it ends as ``child_lost``."""

_SEARCHED_RUNS = 1000
"""The oldest waiting runs, among which those for one batch are looked for: however long the queue, it costs little."""

Choose = Callable[[Sequence[Run]], list[Run]]
"""Which of these runs, oldest first and different in their prompts only, one child can take; the first always."""


class RunQueue:
    """All that changes a run. Every method is one transaction, and may be called from any thread of any process.

    Args:
        node: whose devices are meant where a method takes a device's name.
        lease: seconds for which a batch is its server's without a sign of life.
        devices: how many this server has.
        session_timeout: seconds after which a worker that is cut off has lost its lock for sure.
    """

    def __init__(
        self,
        database: Database,
        node: Node,
        *,
        max_queue: int,
        max_batch: int,
        lease: float,
        session_timeout: float = 3.0,
        devices: int = 1,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._node = node
        self._capacity = Capacity(database, max_queue=max_queue, max_batch=max_batch, devices=devices)
        self._submissions = Submissions(database, self._insert)
        self._max_queue = max_queue
        self._max_batch = max_batch
        self._lease = lease
        self._session_timeout = session_timeout
        self._wall_clock = wall_clock
        self.on_end: Callable[[Run], None] = lambda run: None
        """Called with every run that ends here, once that is on the disk."""
        self.worker: int | None = None
        """This process's number among the workers, while its session lives; see session.py."""

    def submit(
        self, requests: Sequence[Request], idempotency_key: str | None = None, pool: str | None = None
    ) -> list[Run]:
        """Accepts all of the requests, or none.

        Args:
            pool: the model that is to answer; None: any worker's.

        Returns:
            the runs; the earlier ones when the key was used before for the same requests.

        Raises:
            QueueFull: more would wait than may; ``fields["retry_after"]`` is in seconds.
            IdempotencyConflict: the key was used for other requests.
        """
        if idempotency_key is None:
            with self._database.read() as connection:  # a refusal need not wait for those who write
                self._capacity.check(connection, len(requests), pool)
        return self._submissions.write(Submission(requests, idempotency_key, pool))

    def check_room(self, pool: str | None = None) -> None:
        """Raises QueueFull if the pool's queue was full a moment ago."""
        self._capacity.check_latest(pool)

    def claim(self, device: str, choose: Choose, batch_id: str | None = None, pool: str | None = None) -> Batch | None:
        """Takes the oldest waiting run, and those like it that one child can take with it; None when nobody waits.

        Args:
            batch_id: of the batch, where a child waits for it already; default: a new one.
            pool: takes the runs of this pool, and those that any may take.
        """
        damaged: list[Run] = []
        with self._database.write() as connection:
            batch = None
            while batch is None and (found := self._waiting_alike(connection, device, pool)):
                by_id = {row["run_id"]: row for row in found}
                waiting = [rows.to_run(row) for row in found]
                for run in filter(rows.is_damaged, waiting):
                    damaged.append(self._end_damaged(connection, by_id[run.run_id], run))
                readable = [run for run in waiting if not rows.is_damaged(run)]
                if readable:
                    claimed = [by_id[run.run_id] for run in choose(readable)]
                    batch = self._start(connection, device, claimed, batch_id or rows.new_id())
            if batch is not None:
                self._database.notify(connection, CHANGED, "")
        self._capacity.made_room()
        self._report(damaged)
        return batch

    def beat(self, batch_id: str) -> bool:
        """Renews the lease. False: the batch is no longer the caller's, and its results will count for nothing."""
        with self._database.write() as connection:
            until = self._database.clock(connection) + self._lease
            mine = update(batches).where(batches.c.batch_id == batch_id, batches.c.state == "open")
            return bool(connection.execute(mine.values(lease_until=until)).rowcount)

    def wanted(self, batch_id: str) -> set[str]:
        """The batch's runs, by their ids, whose results anybody still wants: those that were not cancelled."""
        running = select(runs.c.run_id).where(runs.c.batch_id == batch_id, runs.c.status == "running")
        with self._database.read() as connection:
            return set(connection.execute(running).scalars())

    def append_events(self, batch_id: str, new: Mapping[str, Sequence[Event]]) -> None:
        """Keeps new events of the batch's runs, by their ids; drops those of runs that are no longer its own."""
        with self._database.write() as connection:
            for row in self._running(connection, batch_id):
                rows.add_events(connection, [(row["number"], event) for event in new.get(row["run_id"], ())])
            self._database.notify(connection, CHANGED, "")

    def finish(self, batch_id: str, results: Sequence[Result], seconds: float | None) -> bool:
        """Ends the batch's runs. Those that were cancelled meanwhile stay cancelled.

        Args:
            seconds: how long the batch took; None where no child was started.

        Returns:
            False: the batch was lost to another server, and nothing was changed.
        """
        with self._database.write() as connection:
            if not self._close(connection, batch_id, "closed", seconds):
                return False
            at, clock = self._wall_clock(), self._database.clock(connection)
            by_id = {result.run_id: result for result in results}
            ended = [
                transitions.end(connection, row, by_id[row["run_id"]], at, clock)
                for row in self._running(connection, batch_id)
            ]
            self._database.notify(connection, CHANGED, "")
        self._report(ended)
        return True

    def requeue(self, batch_id: str) -> bool:
        """Puts the batch's runs back into the queue, at the front; the attempt does not count.

        Returns:
            False: the batch was lost to another server, and nothing was changed.
        """
        with self._database.write() as connection:
            if not self._close(connection, batch_id, "closed"):
                return False
            for row in self._running(connection, batch_id):
                transitions.requeue(connection, row, self._wall_clock(), attempts=row["attempts"] - 1)
                self._database.notify(connection, QUEUED, row["pool"] or "")
            return True

    def batches(self, device: str, state: str) -> list[str]:
        """The device's batches in this state: ``open``, or ``lost`` (its server is gone; processes may be left)."""
        wanted = select(batches.c.batch_id).where(batches.c.state == state, self._is_on(device))
        with self._database.read() as connection:
            return list(connection.execute(wanted).scalars())

    def work(self, device: str, pool: str | None = None) -> tuple[bool, bool]:
        """Whether the device has a run of the pool to take, and whether it has a batch that is open or lost."""
        with self._database.read() as connection:
            waits, left = connection.execute(asked.work(self._names(device), pool)).one()
        return bool(waits), bool(left)

    def node_of(self, batch_id: str) -> str | None:
        """The name of the node that has run this batch, or runs it; None where that is not known."""
        wanted = select(batches.c.device).where(batches.c.batch_id == batch_id)
        with self._database.read() as connection:
            return (connection.execute(wanted).scalar() or "").rpartition("/")[0] or None

    def forget_lost(self, device: str) -> None:
        """Closes the device's lost batches: nothing of them is left on it."""
        if self.batches(device, "lost"):
            lost = update(batches).where(batches.c.state == "lost", self._is_on(device))
            with self._database.write() as connection:
                connection.execute(lost.values(state="closed"))

    def recover(self, gone: Collection[str] = ()) -> list[str]:
        """Puts the runs of lost batches back into the queue; those with too many attempts end as ``child_lost``.

        Args:
            gone: batches whose server is known to be gone. Those of all nodes are lost when their worker's session is
                gone or their lease is over, unless the database was away meanwhile: then nobody could renew it.

        Returns:
            the batches that were lost now.
        """
        with self._database.read() as connection:
            if not self._overdue(connection, gone):
                return []
        with self._database.write() as connection:
            lost = [batch for batch in self._overdue(connection, gone) if self._close(connection, batch, "lost")]
            at, clock = self._wall_clock(), self._database.clock(connection)
            ended = []
            for batch in lost:
                for row in self._running(connection, batch):
                    if row["attempts"] < MAX_ATTEMPTS:
                        transitions.requeue(connection, row, at, attempts=row["attempts"])
                        self._database.notify(connection, QUEUED, row["pool"] or "")
                    else:
                        ended.append(transitions.end(connection, row, _child_lost(row), at, clock))
            self._database.notify(connection, CHANGED, "")
        self._report(ended)
        return lost

    def cancel(self, run_id: str) -> Run:
        """Ends a run that waits or runs, at once; its server stops the child when no other run needs that.

        Raises:
            NoSuchRun: it is not there.
            RunEnded: it has ended, and not by being cancelled.
        """
        with self._database.write() as connection:
            wanted = select(runs).where(rows.named(run_id)).with_for_update()
            row = connection.execute(wanted).mappings().first()
            if row is None:
                raise NoSuchRun(f"There is no run {run_id}.")
            ended = []
            if row["status"] in ("queued", "running"):
                result = Result(run_id, failure=Failure("cancelled", "The run was cancelled."))
                ended.append(
                    transitions.end(connection, row, result, self._wall_clock(), self._database.clock(connection))
                )
                self._database.notify(connection, CHANGED, "")
                if row["status"] == "running":
                    self._database.notify(connection, CANCELLED, row["batch_id"])
            elif row["status"] != "cancelled":
                raise RunEnded(f"The run has already ended: {row['status']}.", run_id=run_id)
            fresh = connection.execute(wanted).mappings().one()
        self._capacity.made_room()
        self._report(ended)
        return rows.to_run(fresh)

    def describe(self) -> Queue:
        """How many runs wait and run, and how many may wait."""
        with self._database.read() as connection:
            waiting, running = count(connection, "queued"), count(connection, "running")
        return {"waiting": waiting, "running": running, "limit": self._max_queue}

    def _insert(self, connection: Connection, new: Submission) -> list[Run]:
        if new.idempotency_key is not None:
            earlier = self._submitted(connection, new.idempotency_key)
            if earlier:
                return _same(earlier, new.requests)
        waiting = self._capacity.check(connection, len(new.requests), new.pool)
        at, clock = self._wall_clock(), self._database.clock(connection)
        self._database.notify(connection, QUEUED, new.pool or "")
        return [
            transitions.insert(connection, request, at, clock, (new.idempotency_key, place), position, new.pool)
            for place, (position, request) in enumerate(enumerate(new.requests, waiting + 1))
        ]

    def _submitted(self, connection: Connection, key: str) -> list[Run]:
        earlier = select(runs).where(runs.c.idempotency_key == key).order_by(runs.c.idempotency_place)
        found = connection.execute(earlier).mappings().all()
        waiting = rows.positions(connection, [row["number"] for row in found])
        return [rows.to_run(row, waiting.get(row["number"])) for row in found]

    def _waiting_alike(self, connection: Connection, device: str, pool: str | None) -> Sequence[RowMapping]:
        """The oldest waiting run of the pool, and those like it; none where nobody waits, or the device takes none."""
        waiting = select(runs).where(runs.c.status == "queued", asked.is_for(pool)).order_by(runs.c.number)
        head = connection.execute(asked.oldest(self._names(device), pool)).mappings().first()
        if head is None:
            return []
        nearest = waiting.with_only_columns(runs.c.number).limit(_SEARCHED_RUNS)
        alike = waiting.where(runs.c.number.in_(nearest), runs.c.batch_key == head["batch_key"])
        # On its last attempt a run is alone: if it is the one that brings its servers down, it takes none with it.
        if head["attempts"] == MAX_ATTEMPTS - 1:
            alike = alike.where(runs.c.number == head["number"])
        else:
            alike = alike.where(runs.c.attempts < MAX_ATTEMPTS - 1).limit(self._max_batch)
        return connection.execute(alike.with_for_update(skip_locked=True)).mappings().all()

    def _end_damaged(self, connection: Connection, row: RowMapping, run: Run) -> Run:
        """Ends a waiting run whose row cannot be read, so that those behind it are served."""
        result = run.result or Result(run.run_id)
        logger.error("run %s: %s", run.run_id, result.failure and result.failure.message)
        return transitions.end(connection, row, result, self._wall_clock(), self._database.clock(connection))

    def _start(self, connection: Connection, device: str, claimed: Sequence[RowMapping], batch_id: str) -> Batch:
        at, clock = self._wall_clock(), self._database.clock(connection)
        connection.execute(
            batches.insert().values(
                batch_id=batch_id,
                device=self._node.device(device),
                started_clock=clock,
                lease_until=clock + self._lease,
                state="open",
                worker=self.worker,
            )
        )
        started = [
            transitions.start(connection, row, batch_id, device, at=at, clock=clock, batch_size=len(claimed))
            for row in claimed
        ]
        return Batch(batch_id, started)

    def _running(self, connection: Connection, batch_id: str) -> Sequence[RowMapping]:
        own = select(runs).where(runs.c.batch_id == batch_id, runs.c.status == "running").order_by(runs.c.number)
        return connection.execute(own.with_for_update()).mappings().all()

    def _report(self, ended: Sequence[Run]) -> None:
        for run in ended:
            self.on_end(run)

    def _close(self, connection: Connection, batch_id: str, state: str, seconds: float | None = None) -> bool:
        mine = update(batches).where(batches.c.batch_id == batch_id, batches.c.state == "open")
        return bool(connection.execute(mine.values(state=state, seconds=seconds)).rowcount)

    def _overdue(self, connection: Connection, gone: Collection[str]) -> list[str]:
        known = (batches.c.state == "open") & batches.c.batch_id.in_(list(gone))
        late = select(batches.c.batch_id).where(known | self._is_overdue())
        return list(connection.execute(late).scalars())

    def _is_overdue(self) -> ColumnElement[bool]:
        """Selects the batches that are open although their lease is over, or their worker is gone.

        None before all could have renewed their leases, or taken their locks again.
        """
        now = self._database.clock_now()
        over: ColumnElement[bool] = false()
        if self._database.was_there(self._lease):
            # A lease longer than any that is given was written before the host's clock began anew.
            over = (batches.c.lease_until < now) | (batches.c.lease_until > now + 10 * self._lease + 3600)
        if self.worker is not None:
            # A session that is younger proves nothing: PostgreSQL was away, or this process was.
            over |= batches.c.worker.not_in(living()) & has_lived(self.worker, self._session_timeout)
        return (batches.c.state == "open") & over

    def _is_on(self, device: str) -> ColumnElement[bool]:
        return batches.c.device.in_(self._names(device))

    def _names(self, device: str) -> tuple[str, ...]:
        return tuple(self._node.names(device))


def _same(earlier: list[Run], requests: Sequence[Request]) -> list[Run]:
    if [run.request for run in earlier] != list(requests):
        raise IdempotencyConflict("The Idempotency-Key was used before, for a different request.")
    return earlier


def _child_lost(row: RowMapping) -> Result:
    sentence = f"The run was tried {row['attempts']} times, and each time the server was lost that ran it."
    return Result(row["run_id"], failure=Failure("child_lost", sentence))
