"""``demo-api worker``: runs what the servers of other hosts accept, on the devices of this one."""

from __future__ import annotations

import threading

import click

from demo_api.cli.logs import configure
from demo_api.cli.options import DEMO, DEVICES, RESETS, RUNS, STATE, WARM, GroupedCommand, flags_of
from demo_api.config import Settings
from demo_api.devices.demo_engine import DemoEngine
from demo_api.process.stopping import stop_on_signals
from demo_api.queue import Ledger
from demo_api.web.app import make_worker_app
from demo_api.web.server import HttpServer


@click.command(cls=GroupedCommand)
@flags_of(
    (*DEMO, *RUNS, *WARM, *DEVICES, *RESETS, *STATE, "metrics_port", "lease", "drain", "log_format", "log_prompts")
)
def worker(**flags: str | None) -> None:
    """Run on this host's devices what servers elsewhere accept. Needs PostgreSQL."""
    settings = Settings.load({**flags, "engine": "demo"})
    configure(settings)
    ledger = Ledger(settings)
    ledger.check_many_hosts()
    engine = DemoEngine.of(settings, ledger)
    engine.check()
    http = _metrics_of(engine, settings)
    stopped = threading.Event()

    def stop() -> None:
        engine.close()
        if http is not None:
            http.close()
        stopped.set()

    stop_on_signals(stop, engine.hurry)
    engine.start()
    names = ", ".join(device.name for device in settings.devices)
    click.echo(f"Worker ready: {engine.describe()['model']} on {names}. Press Ctrl+C to stop.")
    if http is not None:
        click.echo(f"Health and metrics on {http.url}")
        http.run()
    stopped.wait()


def _metrics_of(engine: DemoEngine, settings: Settings) -> HttpServer | None:
    if settings.metrics_port is None:
        return None
    own = settings.model_copy(update={"host": "127.0.0.1", "port": settings.metrics_port})
    return HttpServer(make_worker_app(own, engine), own)
