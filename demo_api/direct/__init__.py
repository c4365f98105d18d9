"""The direct engine: the model stays in memory, and answers in milliseconds to seconds."""

from contextlib import suppress

from demo_api.config import Settings
from demo_api.demo import home
from demo_api.direct.engine import DirectEngine
from demo_api.direct.model import Model, context_for
from demo_api.errors import SetupError

__all__ = ["DirectEngine", "make_model"]


def make_model(settings: Settings) -> Model:
    """The model for the demo home: llama.cpp for the CPU edition, tt-metal's own for a checkout. It is not loaded.

    Raises:
        BadRequest: ``max_seq_len`` is more than the model was made for, as far as its files say.
    """
    with suppress(SetupError):  # no model: `load` says so
        context_for(settings.max_seq_len, home.context_length(home.model_variable(settings)[1]))
    # Imported here, because each has dependencies of its own.
    if settings.is_cpu_demo:
        from demo_api.direct.llama_cpp import LlamaCpp

        return LlamaCpp(settings)
    from demo_api.direct.tt_metal import TtMetal

    return TtMetal(settings)
