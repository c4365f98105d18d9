"""What the demo can be asked for: checked before a run is accepted."""

from __future__ import annotations

from collections.abc import Sequence

from demo_api.config import Settings
from demo_api.demo import home
from demo_api.demo.command import DEFAULT_TEMPERATURE
from demo_api.demo.home import ResolvedDemo
from demo_api.demo.model_shape import sequence_limit
from demo_api.demo.run_folder import check_state_folder
from demo_api.errors import BadRequest
from demo_api.messages import ModelHealth, Request


class Capabilities:
    """The limits of the demo that the settings select, as it is on the disk now."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def check(self) -> None:
        """Raises SetupError when the script, the interpreter or the model is missing, or the state cannot be kept."""
        self._resolve()

    def accept(self, requests: Sequence[Request]) -> None:
        """Raises what keeps a run of these requests from being accepted.

        Raises:
            BadRequest: as ``check_requests``.
            SetupError: as ``check``.
        """
        check_requests(self._resolve(), requests)

    def describe(self) -> ModelHealth:
        """The model as it is set. It is never loaded here: every run loads it anew."""
        demo = home.resolve(self._settings)
        settings = {
            "max_seq_len": f"as the prompt needs, up to {sequence_limit(demo.context_length, 1)}",
            "paged_attention": not demo.is_cpu_demo,
            "temperature": DEFAULT_TEMPERATURE,
        }
        place = home.model_place(demo.model_variable, demo.model)
        health: ModelHealth = {"model": demo.model_name, "model_loaded": False, "settings": settings}
        return {**health, **place}

    def _resolve(self) -> ResolvedDemo:
        demo = home.resolve(self._settings)
        check_state_folder(self._settings.state_dir)
        return demo


def check_requests(demo: ResolvedDemo, requests: Sequence[Request]) -> None:
    """Raises BadRequest for a seed that the demo cannot take, or for what cannot fit into the model."""
    for request in requests:
        _check_seed(demo, request)
        _check_length(demo, request)


def _check_seed(demo: ResolvedDemo, request: Request) -> None:
    if request.seed is not None and not demo.takes_seed:
        raise BadRequest(
            "The field 'seed' cannot be used: this checkout's demo takes no seed.",
            next_step="Leave it out, or set 'temperature' to 0 for answers that repeat.",
            field="seed",
        )


def _check_length(demo: ResolvedDemo, request: Request) -> None:
    limit = sequence_limit(demo.context_length, 1)
    if request.max_tokens >= limit:
        raise BadRequest(
            f"An answer of {request.max_tokens} tokens leaves no room for the prompt: this model has {limit} for both.",
            next_step="Ask for fewer tokens, so that the prompt and the answer fit together.",
            field="max_tokens",
        )
