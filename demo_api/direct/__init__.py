"""The direct engine: the model stays in memory, and answers in milliseconds to seconds."""

from demo_api.config import Settings
from demo_api.direct.engine import DirectEngine
from demo_api.direct.model import Model

__all__ = ["DirectEngine", "make_model"]


def make_model(settings: Settings) -> Model:
    """The model for the demo home: llama.cpp for the CPU edition, tt-metal's own for a checkout. It is not loaded."""
    # Imported here, because each has dependencies of its own.
    if settings.is_cpu_demo:
        from demo_api.direct.llama_cpp import LlamaCpp

        return LlamaCpp(settings)
    from demo_api.direct.tt_metal import TtMetal

    return TtMetal(settings)
