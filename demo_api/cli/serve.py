"""Serves the demo over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import click

from demo_api import home, server
from demo_api.app import create_app, endpoints
from demo_api.cli.options import flags_of
from demo_api.config import Settings, setting_names
from demo_api.errors import SetupError
from demo_api.health import DEMO_NOTE
from demo_api.runner import DemoRunner


@click.command()
@flags_of(setting_names())
def serve(**flags: str | None) -> None:
    """Serve the demo over HTTP."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a waiting line is our normal state
    logging.getLogger("alembic").setLevel(logging.WARNING)
    settings = Settings.load(flags)
    click.echo("\n".join(_banner_of_checks(settings)))
    DemoRunner(settings).check()
    app = create_app(settings)
    http = server.HttpServer(app, settings)
    click.echo("Endpoints:")
    for endpoint in endpoints(app):
        method, path = endpoint.split()
        click.echo(f"  {method:4} {http.url}{path}")
    click.echo(f"Note: {DEMO_NOTE}\nPress Ctrl+C to stop.\n{'=' * 72}")
    dispatcher = app.extensions["demo_api"]

    def stop() -> None:
        dispatcher.close()
        http.close()

    server.stop_on_signals(stop, dispatcher.hurry)
    dispatcher.start()  # what an earlier server left in the line is run without anybody asking
    http.run()


def _banner_of_checks(settings: Settings) -> Iterator[str]:
    yield from ("=" * 72, "🚀 demo_api: simple_text_demo.py over HTTP", "=" * 72)
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
