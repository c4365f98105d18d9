"""``demo-api status``: every node, device and model of the lab, and how many runs wait."""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from demo_api.cli.console import console_of
from demo_api.cli.options import flags_of
from demo_api.cli.visible import visible
from demo_api.config import Settings
from demo_api.messages import DeviceHealth, NodeHealth, PoolHealth
from demo_api.queue import Ledger
from demo_api.queue.lab import describe_nodes, describe_pools

_NOBODY = "No worker is connected. Start `demo-api worker`, or `demo-api serve`, with the same DEMO_API_DATABASE_URL."


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@flags_of(["state_dir", "database_url"])
def status(as_json: bool, **flags: str | None) -> None:
    """Show every node, device and model that shares the database. Needs PostgreSQL."""
    ledger = Ledger(Settings.load(flags))
    ledger.check_many_hosts()
    workers = ledger.workers.live()
    nodes, pools = describe_nodes(workers), describe_pools(workers, ledger.history)
    if as_json:
        click.echo(json.dumps({"nodes": nodes, "pools": pools}))
        return
    console = console_of(sys.stdout)
    _print_nodes(console, nodes)
    if pools:
        _print_pools(console, pools)


def _print_nodes(console: Console, nodes: list[NodeHealth]) -> None:
    if not nodes:
        console.print(_NOBODY, soft_wrap=True)
        return
    table = Table("node", "model", "version", "up", "device", "state", "warm", box=None, pad_edge=False)
    for node in nodes:
        up = str(timedelta(seconds=max(0, int(time.time() - node["since"]))))
        first = [node["node"], node["model"], node["version"], up]
        for device in node["devices"]:
            table.add_row(*map(_text, [*first, device["name"], _state(device), device["warm"]]))
            first = [""] * len(first)
    console.print(table)


def _print_pools(console: Console, pools: list[PoolHealth]) -> None:
    console.print()
    columns = ("workers", "devices", "waiting", "running")
    table = Table("model", *columns, box=None, pad_edge=False)
    for pool in pools:
        numbers = (pool["workers"], pool["devices"], pool["waiting"], pool["running"])
        table.add_row(_text(pool["model"] or "any"), *map(str, numbers))
    console.print(table)


def _state(device: DeviceHealth) -> str:
    return f"{device['state']}: {device['reason']}" if device["reason"] else device["state"]


def _text(words: object) -> Text:
    return Text(visible(str(words)))
