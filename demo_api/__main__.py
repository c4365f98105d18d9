"""``python -m demo_api``."""

from demo_api.cli import main

main()
