"""What the demo can be asked for: checked before a run is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from demo_api.config import Settings
from demo_api.demo import home
from demo_api.demo.command import DEFAULT_TEMPERATURE
from demo_api.demo.home import ResolvedDemo
from demo_api.demo.run_folder import check_state_folder
from demo_api.errors import BadRequest, ModelNotFound
from demo_api.messages import Request
from demo_api.messages.health import ModelHealth, PoolModel


class Capabilities:
    """The limits of the demo that the settings select, as it is on the disk now."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def check(self) -> None:
        """Raises SetupError when the script, the interpreter or the model is missing, or the state cannot be kept."""
        self._resolve()

    def pool_of(self, requests: Sequence[Request]) -> None:
        """There is one pool only: None."""

    def accept(self, requests: Sequence[Request], pool: str | None = None) -> None:
        """Raises what keeps a run of these requests from being accepted.

        Raises:
            ModelNotFound: one is for another model.
            BadRequest: as ``check_requests``.
            SetupError: as ``check``.
        """
        demo = self._resolve()
        for request in requests:
            check_model(request.model, [demo.model_name])
        check_requests(demo, requests)

    def is_only_here(self, pool: str | None) -> bool:
        """Whether no other node can run these runs: there is one demo only."""
        return True

    def models(self) -> list[str]:
        """The names of the models that a request may ask for."""
        return [self.model_name()]

    def model_name(self) -> str:
        """The name of the one model. Raises SetupError where that, the script or the interpreter is missing."""
        home.script(self._settings)
        home.interpreter(self._settings)
        return home.model_name(home.model_variable(self._settings)[1])

    def describe(self) -> ModelHealth:
        """The model as it is set. It is never loaded here: every run loads it anew."""
        demo = home.resolve(self._settings)
        settings = {
            "max_seq_len": f"as the prompt needs, up to {demo.sequence_limit}",
            "paged_attention": not demo.is_cpu_demo,
            "temperature": DEFAULT_TEMPERATURE,
        }
        place = home.model_place(demo.model_variable, demo.model)
        health: ModelHealth = {"model": demo.model_name, "model_loaded": False, "settings": settings}
        return {**health, **place}

    def pool_model(self) -> PoolModel:
        """The model with its limits, for doors elsewhere. Raises SetupError as ``check``."""
        demo = self._resolve()
        return {**self.describe(), "sequence_limit": demo.sequence_limit, "takes_seed": demo.takes_seed}

    def _resolve(self) -> ResolvedDemo:
        demo = home.resolve(self._settings)
        check_state_folder(self._settings.state_dir)
        return demo


def check_model(asked: str | None, models: Sequence[str]) -> None:
    """Raises ModelNotFound for one that is none of these; None is any."""
    if asked is not None and asked not in models:
        there = " and ".join(map(repr, models)) or "none"
        next_step = f"Ask for {' or '.join(map(repr, models))}." if models else "GET /v1/models lists those here."
        raise ModelNotFound(f"There is no model {asked[:200]!r} here, but {there}.", next_step=next_step, field="model")


class Limits(Protocol):
    """What is known of a demo: ``ResolvedDemo``, or what a worker elsewhere says of its own."""

    @property
    def sequence_limit(self) -> int:
        """Most tokens of a prompt and its answer together."""

    @property
    def takes_seed(self) -> bool:
        """Whether a seed is of use."""


def check_requests(limits: Limits, requests: Sequence[Request]) -> None:
    """Raises BadRequest for a seed that the demo cannot take, or for what cannot fit into the model."""
    for request in requests:
        _check_seed(limits, request)
        _check_length(limits, request)


def _check_seed(limits: Limits, request: Request) -> None:
    if request.seed is not None and not limits.takes_seed:
        raise BadRequest(
            "The field 'seed' cannot be used: this checkout's demo takes no seed.",
            next_step="Leave it out, or set 'temperature' to 0 for answers that repeat.",
            field="seed",
        )


def _check_length(limits: Limits, request: Request) -> None:
    limit = limits.sequence_limit
    if request.max_tokens >= limit:
        raise BadRequest(
            f"An answer of {request.max_tokens} tokens leaves no room for the prompt: this model has {limit} for both.",
            next_step="Ask for fewer tokens, so that the prompt and the answer fit together.",
            field="max_tokens",
        )
