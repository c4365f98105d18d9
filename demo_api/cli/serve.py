"""``demo-api serve``: serves an engine over HTTP."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator

import click

from demo_api import create_app
from demo_api.cli.logs import configure
from demo_api.cli.options import GroupedCommand, flags_of
from demo_api.config import Settings, flag_names
from demo_api.demo import home
from demo_api.direct import DirectEngine
from demo_api.errors import DemoApiError, SetupError
from demo_api.process.stopping import stop_on_signals
from demo_api.web import server
from demo_api.web.access import check_exposure
from demo_api.web.error_handlers import endpoints
from demo_api.web.health import NOTES

_COMPILES = "The first run on a device compiles kernels, which takes minutes; later runs find them in tt-metal's cache."


@click.command(cls=GroupedCommand)
@click.option(
    "--no-devices", is_flag=True, help="Own no device: workers run what this server accepts (--devices none)."
)
@flags_of([name for name in flag_names() if name != "metrics_port"])
def serve(no_devices: bool, **flags: str | None) -> None:
    """Serve the demo, or a model in memory, over HTTP."""
    settings = Settings.load({**flags, "devices": "none"} if no_devices else flags)
    configure(settings)
    check_exposure(settings)
    click.echo("\n".join(_banner_of_checks(settings)))
    app = create_app(settings)
    service = app.extensions["demo_api"]
    if not isinstance(service, DirectEngine) and settings.devices:  # a door alone may be there before its workers
        service.check()
    http = server.HttpServer(app, settings)
    click.echo("\n".join(_banner_of_server(endpoints(app), http.url, settings)))

    def stop() -> None:
        service.close()
        http.close()

    stop_on_signals(stop, service.hurry)
    service.start()  # runs that an earlier server left in the queue start without a request
    failed: list[DemoApiError] = []
    if isinstance(service, DirectEngine):
        failed = _when_loaded(service, http.url, stop if _fails_fast(settings) else None)
    else:
        _say_ready(http.url)
    http.run()
    if failed:
        raise failed[0]


def _banner_of_server(routes: Iterable[str], url: str, settings: Settings) -> Iterator[str]:
    yield "Endpoints:"
    for route in routes:
        method, path = route.split()
        yield f"  {method:4} {url}{path}"
    yield f"Note: {NOTES[settings.engine]}"
    if not settings.is_cpu_demo:
        yield f"Warning: {_COMPILES}"
    yield from ("Press Ctrl+C to stop.", "=" * 72)


def _say_ready(url: str) -> None:
    click.echo(f"Server ready on {url}")


def _fails_fast(settings: Settings) -> bool:
    return sys.stdout.isatty() if settings.fail_fast is None else settings.fail_fast


def _when_loaded(direct: DirectEngine, url: str, stop: Callable[[], None] | None) -> list[DemoApiError]:
    """Says when the server is ready.

    Args:
        stop: called if the model cannot be loaded.

    Returns:
        where the reason will be, if the server is stopped.
    """
    failed: list[DemoApiError] = []

    def watch() -> None:
        try:
            direct.wait_until_loaded()
        except DemoApiError as error:
            if stop is not None and not direct.closed:
                failed.append(error)
                stop()
        else:
            if not direct.closed:
                _say_ready(url)

    click.echo(f"Listening on {url}; the model is being loaded")
    threading.Thread(target=watch, name="loaded").start()
    return failed


def _banner_of_checks(settings: Settings) -> Iterator[str]:
    yield from ("=" * 72, "🚀 demo_api: simple_text_demo.py over HTTP", "=" * 72)
    if not settings.devices:
        yield "  This server has no devices: workers of other hosts run what it accepts."
        return
    checks: list[tuple[str, Callable[[], object]]] = [
        ("Demo script", lambda: home.script(settings)),
        ("Interpreter", lambda: home.interpreter(settings)),
        ("Model", lambda: "=".join(home.model_variable(settings))),
    ]
    for name, check in checks:
        try:
            yield f"✓ {name + ':':12} {check()}"
        except SetupError as error:
            yield f"✗ {name + ':':12} {error} {error.next_step}"
    yield f"  PYTHONPATH:  {settings.demo_home}"
