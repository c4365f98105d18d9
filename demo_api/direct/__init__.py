"""The direct engine: the model stays in memory, and answers in milliseconds to seconds."""

from contextlib import suppress

from demo_api.config import Settings
from demo_api.demo import home
from demo_api.direct.engine import DirectEngine
from demo_api.direct.host.demo_api_host.context import context_for
from demo_api.direct.host.demo_api_host.protocol import Refused
from demo_api.direct.hosted_model import HostedModel
from demo_api.direct.model import Model
from demo_api.errors import BadRequest, SetupError

__all__ = ["DirectEngine", "make_model"]


def make_model(settings: Settings) -> Model:
    """The model for the demo home. It is not loaded.

    Raises:
        BadRequest: ``max_seq_len`` is more than the model was made for, as far as its files say.
    """
    with suppress(SetupError):  # no model: `load` says so
        try:
            context_for(settings.max_seq_len, home.context_length(home.model_variable(settings)[1]))
        except Refused as error:
            raise BadRequest(str(error), next_step=error.next_step) from None
    return HostedModel(settings)
