"""``demo-api serve``: serves an engine over HTTP."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import click

from demo_api import create_app
from demo_api.cli.logs import configure
from demo_api.cli.options import flags_of
from demo_api.config import Settings, flag_names
from demo_api.demo import home
from demo_api.direct import DirectEngine
from demo_api.errors import SetupError
from demo_api.process.stopping import stop_on_signals
from demo_api.web import server
from demo_api.web.access import check_exposure
from demo_api.web.error_handlers import endpoints
from demo_api.web.health import NOTES


@click.command()
@flags_of(flag_names())
def serve(**flags: str | None) -> None:
    """Serve the demo, or a model in memory, over HTTP."""
    settings = Settings.load(flags)
    configure(settings)
    check_exposure(settings)
    click.echo("\n".join(_banner_of_checks(settings)))
    app = create_app(settings)
    service = app.extensions["demo_api"]
    if not isinstance(service, DirectEngine):
        service.check()
    http = server.HttpServer(app, settings)
    click.echo("Endpoints:")
    for endpoint in endpoints(app):
        method, path = endpoint.split()
        click.echo(f"  {method:4} {http.url}{path}")
    click.echo(f"Note: {NOTES[settings.engine]}\nPress Ctrl+C to stop.\n{'=' * 72}")

    def stop() -> None:
        service.close()
        http.close()

    stop_on_signals(stop, service.hurry)
    service.start()  # runs that an earlier server left in the queue start without a request
    failed = _stop_if_it_fails(service, stop) if _fails_fast(settings) else []
    http.run()
    if failed:
        raise failed[0]


def _fails_fast(settings: Settings) -> bool:
    return settings.engine == "direct" and (sys.stdout.isatty() if settings.fail_fast is None else settings.fail_fast)


def _stop_if_it_fails(direct: DirectEngine, stop: Callable[[], None]) -> list[SetupError]:
    """Has the server leave when the model cannot be loaded. Returns where the reason will be."""
    failed: list[SetupError] = []

    def watch() -> None:
        try:
            direct.wait_until_loaded()
        except SetupError as error:
            failed.append(error)
            stop()

    threading.Thread(target=watch, name="fail-fast").start()
    return failed


def _banner_of_checks(settings: Settings) -> Iterator[str]:
    yield from ("=" * 72, "🚀 demo_api: simple_text_demo.py over HTTP", "=" * 72)
    checks: list[tuple[str, Callable[[], object]]] = [
        ("Demo script", lambda: home.script(settings)),
        ("Interpreter", lambda: sys.executable if settings.engine == "direct" else home.interpreter(settings)),
        ("Model", lambda: "=".join(home.model_variable(settings))),
    ]
    for name, check in checks:
        try:
            yield f"✓ {name + ':':12} {check()}"
        except SetupError as error:
            yield f"✗ {name + ':':12} {error} {error.next_step}"
    yield f"  PYTHONPATH:  {settings.demo_home}"
