"""``demo-api status``: every node, device and model of the lab, and how many runs wait."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from demo_api.cli.console import console_of
from demo_api.cli.options import flags_of
from demo_api.cli.visible import visible
from demo_api.config import Settings
from demo_api.devices.lock import Device, devices_of
from demo_api.messages.health import PoolHealth
from demo_api.queue import Ledger, Worker
from demo_api.queue.lab import describe_nodes, describe_pools

_NOBODY = "No worker is connected. Start `demo-api worker`, or `demo-api serve`, with the same DEMO_API_DATABASE_URL."

_WIDEST = 1000
"""Columns of what is no terminal: a name must not be cut or folded there, for programs that read it."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@flags_of(["state_dir", "database_url", "devices"])
def status(as_json: bool, **flags: str | None) -> None:
    """Show every node, device and model that shares the PostgreSQL database; of SQLite, this host's devices."""
    settings = Settings.load(flags)
    ledger = Ledger(settings)
    console = console_of(sys.stdout)
    if not console.is_terminal:
        console.width = _WIDEST
    if ledger.has_many_hosts:
        workers = ledger.workers.live()
        pools = describe_pools(workers, ledger.history)
        if as_json:
            click.echo(json.dumps({"nodes": describe_nodes(workers), "pools": pools}))
        else:
            _print_lab(console, workers, pools)
        return
    devices = [_describe(device, ledger) for device in devices_of(settings)]
    queue = {name: number for name, number in ledger.queue.describe().items() if name != "limit"}  # each server's own
    if as_json:
        click.echo(json.dumps({"devices": devices, "queue": queue}))
        return
    _print(console, ["device", "state", "reason"], [list(device.values())[:3] for device in devices])
    console.print(f"\n{queue['running']} running, {queue['waiting']} waiting")


def _describe(device: Device, ledger: Ledger) -> dict[str, object]:
    """A device of this host, as far as its lock and the ledger tell."""
    known = ledger.devices.get(device.name)
    is_used = device.has_child() and device.waiting() is None
    busy = known.state in ("free", "suspect") and (is_used or ledger.queue.batches(device.name, "open"))
    return {
        "name": device.name,
        "state": "busy" if busy else known.shown,
        "reason": known.reason,
        "since": known.since,
    }


def _print_lab(console: Console, workers: Sequence[Worker], pools: Sequence[PoolHealth]) -> None:
    if not workers:
        console.print(_NOBODY, soft_wrap=True)
    else:
        rows = [row for worker in sorted(workers, key=lambda worker: worker.node) for row in _rows(worker)]
        _print(console, ["node", "model", "version", "up", "device", "state", "warm", "reason"], rows)
    if pools:
        console.print()
        columns = ["workers", "devices", "waiting", "running"]
        counted = [(pool["workers"], pool["devices"], pool["waiting"], pool["running"]) for pool in pools]
        names = [pool["model"] or "any" for pool in pools]
        _print(console, ["model", *columns], [[name, *each] for name, each in zip(names, counted, strict=True)])


def _rows(worker: Worker) -> list[list[object]]:
    """A row for each device of a worker; what is the worker's own stands in the first."""
    up = str(timedelta(seconds=max(0, int(worker.seconds))))
    first = [worker.node, worker.pool, worker.version, up]
    devices = [[device["name"], device["state"], device["warm"], device["reason"]] for device in worker.devices]
    return [[*(first if number == 0 else [""] * len(first)), *device] for number, device in enumerate(devices)]


def _print(console: Console, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table, without its last column if nothing is in that."""
    rows = list(rows)
    if all(row[-1] is None for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible("" if cell is None else str(cell))) for cell in row))
    console.print(table)
