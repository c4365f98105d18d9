"""All workers of a database, and the runs of each model: what ``demo-api status`` and ``/health`` show of the lab."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from demo_api.messages.health import NodeHealth, PoolHealth
from demo_api.queue.history import History
from demo_api.queue.workers import Worker


def describe_nodes(workers: Sequence[Worker]) -> list[NodeHealth]:
    """Each worker, in the order of the nodes' names."""
    return [
        {
            "node": worker.node,
            "model": worker.pool,
            "version": worker.version,
            "since": worker.since,
            "devices": list(worker.devices),
        }
        for worker in sorted(workers, key=lambda worker: (worker.node, worker.number))
    ]


def describe_pools(workers: Sequence[Worker], history: History) -> list[PoolHealth]:
    """Each model that a worker has or a run waits for, in the order of the names."""
    return list(_pools(workers, history.count_open()))


def _pools(workers: Sequence[Worker], counts: dict[tuple[str | None, str], int]) -> Iterator[PoolHealth]:
    names = {worker.pool for worker in workers} | {pool for pool, _ in counts}
    for name in sorted(names, key=lambda name: (name is None, name)):
        there = [worker for worker in workers if name in (worker.pool, None)]
        # Servers that share a node share its devices.
        devices = {(worker.node, device["name"]) for worker in there for device in worker.devices}
        yield {
            "model": name,
            "workers": len(there),
            "devices": len(devices),
            "waiting": counts.get((name, "queued"), 0),
            "running": counts.get((name, "running"), 0),
        }
