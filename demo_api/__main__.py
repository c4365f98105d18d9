"""``demo-api``, and ``python -m demo_api``."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Runs the command line."""
    # Until everything is imported: what Python makes of Ctrl-C is an exception, which an import may show or swallow.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from demo_api.cli import main as commands

    commands()


if __name__ == "__main__":
    main()
