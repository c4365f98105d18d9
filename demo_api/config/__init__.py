"""Every setting in one place: the default, then the environment variable, then the flag.

This is the only module that reads ``os.environ``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from demo_api.config import values
from demo_api.errors import BadRequest

_WATCHING = 128
"""Clients that may follow events, or ask again for a run under its Idempotency-Key."""

_CHILD_IDLE_SECONDS = 300.0

_MOST_WAITING = 1000
"""Clients that may wait for runs in the queue."""

CPU_DEMO_HOME = Path(__file__).parents[1] / "cpu_demo"

# LLAMA_DIR and HF_MODEL keep the names that tt-metal gives them, so that a shell set up for the demo is set up for us.
_UNPREFIXED = {"llama_dir": "LLAMA_DIR", "hf_model": "HF_MODEL"}

# Settings without a flag: everybody on the machine can read a process's command line.
_VARIABLES_ONLY = ("keys", "key")
# An empty text is a list with nothing in it: no keys. Of any other setting it is no value.
_LISTS = ("keys", "hosts", "cors_origins")
_SECRET = ("keys", "key", "database_url", "session_url")
"""They may hold a password, so no error repeats them."""

AbsolutePath = Annotated[Path, AfterValidator(values.absolute)]
Command = Annotated[str, AfterValidator(values.command)]


class Settings(BaseModel):
    """The settings of one process, checked. Seconds are seconds, sizes are bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port on 127.0.0.1 where a worker answers `/livez`, `/health` and `/metrics`."
    )
    keys: Annotated[tuple[str, ...], BeforeValidator(lambda text: values.parse_keys(text.split(",")))] = Field(
        (), repr=False, description="API keys that clients must send, separated by commas; at least 16 characters each."
    )
    keys_file: AbsolutePath | None = Field(
        None, description="File of API keys, one per line, readable only by its owner; reread when it changes."
    )
    key: Annotated[str, AfterValidator(values.key)] | None = Field(
        None, repr=False, description="API key that `chat --url`, `smoke --url` and `compare` send."
    )
    insecure: bool = Field(False, description="Accept requests from other machines without keys.")
    hosts: Annotated[tuple[str, ...], BeforeValidator(values.hosts)] = Field(
        (), description="Host names that clients use for the server, besides localhost: `a.example,b`."
    )
    rate_limit: int | None = Field(
        None, ge=1, description="Requests per minute allowed for each key, or for each address without a key."
    )
    run_rate_limit: int | None = Field(
        None, ge=1, description="The same, counting only requests that run the model: `/chat`, `POST /runs`, OpenAI's."
    )
    max_body: int = Field(
        2**20, ge=1024, le=16 * 2**20, description="Largest request body in bytes; larger ones get 413."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="`text` for people, or `json` for programs, one object per line."
    )
    log_prompts: bool = Field(True, description="Whether the log shows the start of each prompt.")
    engine: Literal["demo", "direct"] = Field(
        "demo",
        description="`demo` runs the demo as a child process for each batch; `direct` keeps the model in memory.",
    )
    slots: int = Field(8, ge=1, le=64, description="Requests that the direct engine answers at the same time.")
    max_seq_len: Annotated[int, AfterValidator(values.power_of_two)] | None = Field(
        None,
        ge=1024,
        description="Most tokens of a prompt and its answer together on the direct engine; a power of two, from 1024.",
    )
    fail_fast: bool | None = Field(
        None,
        description="Whether `serve` exits if the direct engine cannot load its model; yes on a terminal.",
    )
    demo_home: AbsolutePath = Field(
        CPU_DEMO_HOME, description="Folder with the layout of a tt-metal checkout; the default is the CPU edition."
    )
    llama_dir: AbsolutePath | None = Field(None, description="Model folder, for a demo that reads LLAMA_DIR.")
    hf_model: str | None = Field(None, description="Hugging Face model name or folder, for a demo that reads HF_MODEL.")
    python: AbsolutePath | None = Field(
        None, description="Python for the child process, if the demo home has no python_env/bin/python."
    )
    model_dir: AbsolutePath = Field(
        default_factory=lambda: values.users_folder(platformdirs.user_cache_path) / "models",
        description="Where `demo-api model pull` stores the small model.",
    )
    state_dir: AbsolutePath = Field(
        default_factory=lambda: values.users_folder(platformdirs.user_state_path),
        description="Folder for the ledger, the runs' logs and the devices' locks.",
    )
    node: str | None = Field(
        None, description="Name of this host for people, in a new state folder; random digits are added to it."
    )
    database_url: str | None = Field(
        None,
        repr=False,
        description="The ledger's database, if not SQLite in the state folder: postgresql://user:password@host/name.",
    )
    session_url: Annotated[str, AfterValidator(values.postgresql)] | None = Field(
        None,
        repr=False,
        description="PostgreSQL's own address, if a pooler such as pgbouncer is between it and `--database-url`.",
    )
    session_timeout: float = Field(
        3,
        ge=1.5,
        allow_inf_nan=False,
        description="Seconds after which a server that PostgreSQL no longer hears from counts as lost.",
    )
    devices: Annotated[tuple[values.DeviceSetting, ...], BeforeValidator(values.devices)] = Field(
        (values.DeviceSetting("device"),),
        description='Devices of this host, each with the variables that select it: "a TT_VISIBLE_DEVICES=0; b ..."; or '
        "`none`: other hosts' workers have them all.",
    )
    max_queue: int = Field(32, ge=1, le=10_000, description="Most runs that can wait; further ones get 503.")
    accept_without_worker: bool = Field(
        False, description="Whether runs are accepted for a model whose workers on other hosts are all gone; they wait."
    )
    max_batch: int = Field(32, ge=1, le=32, description="Most runs in a batch; 1 turns batching off.")
    run_timeout: float = Field(
        900, gt=0, allow_inf_nan=False, description="Seconds a run may take once started; then it gets 504."
    )
    stop_grace: float = Field(
        20,
        ge=0,
        allow_inf_nan=False,
        description="Seconds a child has to close the device after SIGINT, before SIGTERM.",
    )
    drain: float = Field(
        30, ge=0, allow_inf_nan=False, description="Seconds a running batch has to finish when the server stops."
    )
    lease: float = Field(
        20,
        ge=1,
        allow_inf_nan=False,
        description="Seconds without a sign of life from a server before its runs count as lost.",
    )
    warm: Literal["off", "imports", "model"] | None = Field(
        None,
        description="What a child keeps between runs: `off` (nothing), `imports` (it is started ahead), or `model` (it "
        "stays, with the device open and the model loaded; the CPU edition's default).",
    )
    warm_idle: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Seconds without a request before a warm child is ended; on the direct engine, before the model is "
        "let go, which it never is if this is unset.",
    )
    reset_command: Command | None = Field(
        None, description="Command that resets a device that was not closed, such as `tt-smi -r`; run without a shell."
    )
    reset_check: Command | None = Field(
        None, description="Command that fails if the reset did not help, such as `tt-smi -s`."
    )
    reset_timeout: float = Field(
        120, gt=0, allow_inf_nan=False, description="Seconds the reset and its check may take together."
    )
    cancel_on_disconnect: bool | None = Field(
        None,
        description="Whether a run is cancelled when its last client disconnects; yes on the direct engine.",
    )
    max_output: int = Field(256 * 2**20, ge=2**16, description="Bytes a child may print before it is stopped.")
    keep_runs: int = Field(1000, ge=1, description="Finished runs to keep, with their logs.")
    keep_days: float = Field(30, gt=0, allow_inf_nan=False, description="Days to keep finished runs.")
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(values.origins)] = Field(
        (),
        description="Origins whose pages may read responses in a browser, separated by commas, such as http://host:8080.",
    )

    # What the child inherits from, taken when the settings were loaded. Not a setting.
    inherited: dict[str, str] = Field(default_factory=dict, repr=False, exclude=True)

    @classmethod
    def load(cls, flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
        """Puts defaults, environment and flags together.

        Args:
            flags: values by field name; None means that the flag was not given.
            environ: the environment; default ``os.environ``.

        Raises:
            BadRequest: a value is of the wrong kind or out of range, or a variable is set and empty; the sentence names
                the variable or the flag.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {
            name: environ[variable(name)] for name in setting_names() if variable(name) in environ
        }
        for name, value in values.items():
            if not value.strip() and name not in _LISTS:
                # To take it for none would be to test, or to serve, something else than was meant: scripts lose values.
                raise BadRequest(f"{variable(name)} is empty.", next_step="Give it a value, or unset it.")
        values = {name: value for name, value in values.items() if value.strip()}
        values.update({name: value for name, value in (flags or {}).items() if value is not None})
        try:
            return cls(**values, inherited=dict(environ))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0])
            given = "not usable" if name in _SECRET else repr(first["input"])
            named = variable(name) if name in _VARIABLES_ONLY else f"{variable(name)} or {flag(name)}"
            raise BadRequest(
                f"{named} is {given}: {first['msg'].lower()}.",
                next_step="Correct the value; `demo-api serve --help` explains every setting.",
            ) from None

    @property
    def runs_dir(self) -> Path:
        """Where the folders of the batches are."""
        return self.state_dir / "runs"

    @property
    def max_waiting(self) -> int:
        """How many clients may wait for runs at the same time: all whose runs wait or run, and those who watch.

        Each occupies a thread, so of a longer queue not every client can wait: the others ask again for their run.
        """
        return min(self.max_queue, _MOST_WAITING) + self.max_batch * len(self.devices) + _WATCHING

    @property
    def warm_level(self) -> Literal["off", "imports", "model"]:
        """What a child keeps between batches. With a tt-metal home a waiting child keeps the device from others."""
        return self.warm or ("model" if self.is_cpu_demo else "off")

    @property
    def child_idle(self) -> float:
        """Seconds without a request before a warm child is ended."""
        return _CHILD_IDLE_SECONDS if self.warm_idle is None else self.warm_idle

    @property
    def cancels_on_disconnect(self) -> bool:
        """Whether a client that hangs up cancels its run. The direct engine keeps no answer that could be had later."""
        return self.engine == "direct" if self.cancel_on_disconnect is None else self.cancel_on_disconnect

    @property
    def is_cpu_demo(self) -> bool:
        """Whether the demo home is the CPU edition that ships in this package."""
        return self.demo_home.resolve() == CPU_DEMO_HOME.resolve()


def setting_names() -> list[str]:
    """The settings' names, in the order of the table in docs/reference.md."""
    return [name for name in Settings.model_fields if name != "inherited"]


def flag_names() -> list[str]:
    """The settings that have a flag."""
    return [name for name in setting_names() if name not in _VARIABLES_ONLY]


def variable(name: str) -> str:
    """The environment variable of a setting: ``max_queue`` -> ``DEMO_API_MAX_QUEUE``."""
    return _UNPREFIXED.get(name, f"DEMO_API_{name.upper()}")


def flag(name: str) -> str:
    """The command line's flag of a setting: ``max_queue`` -> ``--max-queue``."""
    return "--" + name.replace("_", "-")
