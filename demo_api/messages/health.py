"""How an engine, its model, its devices and the whole lab are: what ``/health`` says."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from typing_extensions import NotRequired, TypedDict

DEVICE_STATES = ("free", "busy", "suspect", "resetting", "drained", "failed")
"""What a device can be, the best first. ``suspect``: a child may have left it open; ``failed``: no reset helped."""

OUT_OF_SERVICE = ("drained", "failed")
"""The states in which a device takes no run before somebody does something."""

Model = Annotated[str | None, Field(description="The model's name in the demo; null if the demo did not report it.")]
DeviceName = Annotated[
    str | None, Field(description="The device's name in the demo; null if the demo did not report it.")
]


class Estimate(TypedDict):
    """How long a run usually takes from its start to its end, by earlier runs that succeeded."""

    low_seconds: Annotated[float, Field(description="The lower of the two quantiles, in seconds.")]
    high_seconds: Annotated[float, Field(description="The higher one.")]
    quantiles: Annotated[list[float], Field(description="Which two: 0.1 and 0.9, so 8 of 10 runs were between them.")]
    runs: Annotated[int, Field(description="How many earlier runs they are of: 5 to 20.")]


class Queue(TypedDict):
    """How many requests wait and run."""

    waiting: int
    running: int
    limit: Annotated[int, Field(description="The most that can wait.")]
    slots: NotRequired[Annotated[int, Field(description="Requests that the direct engine answers at the same time.")]]


class DeviceHealth(TypedDict):
    """A device, as `/health` tells of it."""

    name: DeviceName
    state: Annotated[str, Field(json_schema_extra={"enum": list(DEVICE_STATES)})]
    reason: Annotated[str | None, Field(description="Why it is suspect or has failed; null if it is healthy.")]
    since: Annotated[float | None, Field(description="Unix seconds; null if it never changed.")]
    warm: Annotated[
        str,
        Field(
            description="What the child has that waits for a run: `imports`, or `model` (it keeps the model loaded, "
            "also while it answers); `off` if there is none."
        ),
    ]
    warm_since: Annotated[float | None, Field(description="When that child was started, Unix seconds, if it is ours.")]
    warm_batches: Annotated[int | None, Field(description="Batches that it has answered; null likewise.")]


class ModelPlace(TypedDict, total=False):
    """Where the model is: one of the two, by what its demo reads."""

    llama_dir: str
    hf_model: str


class ModelHealth(ModelPlace):
    """The model, as `/health` tells of it."""

    model: Model
    model_loaded: Annotated[bool, Field(description="Whether the model is in memory.")]
    settings: NotRequired[Annotated[dict[str, Any], Field(description="For `demo-api compare`.")]]
    losses: NotRequired[
        Annotated[int, Field(description="How often the direct engine's model was lost since the server was started.")]
    ]
    latest_loss: NotRequired[Annotated[str | None, Field(description="How it was lost last; null if it never was.")]]


class PoolModel(ModelHealth):
    """The model of a pool, with all that a door must know to accept runs for it."""

    sequence_limit: Annotated[int, Field(description="Most tokens of a prompt and its answer together.")]
    takes_seed: Annotated[bool, Field(description="Whether a seed is of use.")]


class NodeHealth(TypedDict):
    """A worker that lives, as `/health` and `demo-api status` tell of it."""

    node: Annotated[str, Field(description="The name of its node: one state folder on one host.")]
    model: Annotated[str, Field(description="The model that its runs are for.")]
    version: Annotated[str, Field(description="demo_api's version there.")]
    since: Annotated[float, Field(description="When it began, Unix seconds.")]
    devices: list[DeviceHealth]


class PoolHealth(TypedDict):
    """The runs and the workers of one model."""

    model: Annotated[
        str | None,
        Field(description="Null for runs that an earlier version accepted: any worker may take them, so all count."),
    ]
    workers: Annotated[int, Field(description="How many live.")]
    devices: Annotated[int, Field(description="How many they have together.")]
    waiting: int
    running: int


class LabHealth(TypedDict):
    """All that share the ledger, if that is PostgreSQL; else nothing."""

    nodes: Annotated[list[NodeHealth], Field(description="The workers that live.")]
    pools: Annotated[list[PoolHealth], Field(description="The models that they have, or that runs wait for.")]


class EngineHealth(ModelHealth, LabHealth):
    """What `/health` says beside the status."""

    queue: Queue | None
    device: Annotated[
        DeviceHealth | None, Field(description="The one in the best state; null until the model is in memory.")
    ]
    devices: list[DeviceHealth]
    estimate: Annotated[
        Estimate | None, Field(description="By the latest runs, whatever they asked for; null if they are too few.")
    ]
