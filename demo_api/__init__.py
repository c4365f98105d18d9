"""An HTTP door to Tenstorrent's ``simple_text_demo.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from demo_api.config import Settings
    from demo_api.web.engine import Engine

__all__ = ["create_app"]


def create_app(settings: Settings | None = None, engine: Engine | None = None) -> Flask:
    """The WSGI application, for ``demo-api serve``, for tests and for ``gunicorn 'demo_api:create_app()'``.

    Args:
        settings: default: from the environment; the log is then set up too, unless somebody has done that.
        engine: default: as the settings say, the demo on every device of this host or on those of other hosts, or a
            model in memory.

    Raises:
        BadRequest: a setting has a wrong value.
        SetupError: the ledger, or the file of keys, cannot be used; or there are no devices, and the ledger is SQLite.
    """
    # Imported here, so that a command or a child that needs one room only does not load the others.
    from demo_api.config import Settings
    from demo_api.web.app import make_app

    if settings is None:  # for a server of others, which knows nothing of our log
        from demo_api.cli.logs import configure

        settings = Settings.load()
        configure(settings)
    return make_app(settings, engine or _engine(settings))


def _engine(settings: Settings) -> Engine:
    if settings.engine == "direct":
        from demo_api.direct import DirectEngine, make_model

        return DirectEngine(make_model(settings), settings)
    from demo_api.queue import Ledger

    ledger = Ledger(settings)
    if not settings.devices:
        ledger.check_many_hosts()
        from demo_api.queue.door import Door
        from demo_api.queue.pools import Pools

        return Door(ledger, Pools(ledger.workers, waits=settings.accept_without_worker), settings)
    from demo_api.devices.demo_engine import DemoEngine

    return DemoEngine.of(settings, ledger)
