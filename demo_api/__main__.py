"""``demo-api``, and ``python -m demo_api``."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Runs the command line."""
    # Until everything is imported: what Python makes of Ctrl-C is an exception, which an import may show or swallow.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    # A stream that is closed would leave its number to the next file: what is printed would be written into the ledger.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    from demo_api.cli import main as commands

    commands()


if __name__ == "__main__":
    main()
