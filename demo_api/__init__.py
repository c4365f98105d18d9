"""An HTTP door to Tenstorrent's ``simple_text_demo.py``."""

from demo_api.app import create_app

__all__ = ["create_app"]
