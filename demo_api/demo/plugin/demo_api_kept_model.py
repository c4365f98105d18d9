"""Keeps the device open and the model loaded from one run of the demo to the next. A pytest plugin, beside the other.

The demo loads its model with ``create_tt_model`` and makes a ``Generator`` of it. Both are names in its module: there
they are replaced by functions that remember what they returned. Standard library only, Python 3.8+, pytest 7+.
"""

from __future__ import annotations

import gc
import inspect
import os
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from demo_api_control import log

_NAMES = ("create_tt_model", "Generator")
_replaced: list[Callable[..., Any]] = []

MOST_TOKENS = 49152
"""Tokens that the caches of all models of the CPU edition hold together, at most: about 1.1 GB for its own model."""


class Surroundings:
    """What a run may change around itself, and a fresh child would not find so."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        self._folder = os.getcwd()
        torch: Any = sys.modules.get("torch")
        self._torch_state = torch.get_rng_state() if hasattr(torch, "get_rng_state") else None

    def restore(self) -> None:
        """Makes them what they were. What is random in a fresh process is random again."""
        os.chdir(self._folder)
        os.environ.clear()
        os.environ.update(self._environment)
        random.seed()
        numpy: Any = sys.modules.get("numpy")
        if hasattr(numpy, "random"):
            numpy.random.seed()
        if self._torch_state is not None:
            sys.modules["torch"].set_rng_state(self._torch_state)


class _Device:
    """What the demo's ``mesh_device`` fixture opened, and the fixture's own code, which closes it."""

    def __init__(self, fixture: Iterator[Any], parameters: object) -> None:
        self.fixture = fixture
        self.parameters = parameters
        self.opened = next(fixture)

    def close(self) -> None:
        for _ in self.fixture:
            pass


class _Store:
    """All that is kept, for one process.

    Attributes:
        device: the open one.
        models: what ``create_tt_model`` returned, by what it was made for; the one used last comes last.
        generators: by the number of their first model's object, with what they were made of.
        surroundings: of the first run; None before it.
    """

    def __init__(self) -> None:
        self.device: _Device | None = None
        self.models: dict[tuple[Any, ...], Any] = {}
        self.generators: dict[int, tuple[Any, Any]] = {}
        self.surroundings: Surroundings | None = None

    def close(self) -> None:
        """Closes the device; the models go first."""
        device, self.device = self.device, None
        self.generators.clear()
        self.models.clear()
        gc.collect()
        if device is not None:
            device.close()


store = _Store()


def can_keep(items: list[Any]) -> bool:
    """Whether what pytest has collected is one test of a demo that loads its model as those do that are known."""
    return len(items) == 1 and all(callable(getattr(items[0].module, name, None)) for name in _NAMES)


def pytest_collection_finish(session: Any) -> None:
    store.surroundings = store.surroundings or Surroundings()
    if can_keep(session.items):
        module = session.items[0].module
        if module.create_tt_model not in _replaced:  # pytest may take the module that it has imported before
            module.create_tt_model = _remembering_models(module.create_tt_model)
            module.Generator = _remembering_generators(module.Generator)
            _replaced.append(module.create_tt_model)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: Any) -> None:
    # A fixture of this plugin could not stand in for one of a conftest's.
    if fixturedef.argname == "mesh_device" and inspect.isgeneratorfunction(fixturedef.func):
        fixturedef.func = _keeping_open(fixturedef.func)


def _keeping_open(fixture: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    def mesh_device(**arguments: Any) -> Iterator[Any]:
        parameters = {name: repr(value) for name, value in arguments.items() if name != "request"}
        parameters["param"] = repr(getattr(arguments.get("request"), "param", None))
        if store.device is None or store.device.parameters != parameters:
            store.close()
            store.device = _Device(fixture(**arguments), parameters)
        yield store.device.opened

    # pytest has read the arguments' names from the original.
    return mesh_device


def _remembering_models(create: Callable[..., Any]) -> Callable[..., Any]:
    def create_tt_model(mesh_device: Any, *values: Any, **arguments: Any) -> Any:
        key = (id(mesh_device), *map(_fact, values), *((name, _fact(arguments[name])) for name in sorted(arguments)))
        made = store.models.pop(key, None)
        if made is None:
            _make_room(arguments, several="ttnn" not in sys.modules)
            made = create(mesh_device, *values, **arguments)
        else:
            log("kept")
            _forget_text(made[1])
        store.models[key] = made
        return made

    return create_tt_model


def _fact(value: Any) -> Any:
    # What else is given (precision, page table, weights) follows from the test and from options that never change here.
    return value if isinstance(value, (bool, int, float, str)) else type(value).__name__


def _make_room(arguments: dict[str, Any], several: bool) -> None:
    """Gives up models before another is loaded: all of them on a device, on a CPU those used least lately."""
    tokens = arguments.get("max_batch_size", 0) * arguments.get("max_seq_len", 0)
    while store.models and (not several or tokens + sum(map(_tokens, store.models.values())) > MOST_TOKENS):
        made = store.models.pop(next(iter(store.models)))
        store.generators.pop(id(made[1]), None)
        del made
        gc.collect()


def _tokens(made: Any) -> int:
    return int(made[0].max_batch_size * made[0].max_seq_len)


def _forget_text(model: Any) -> None:
    """Sets the caches to zero, as the demo does between batches of its own."""
    for layer in getattr(model, "layers", ()):
        ttnn = sys.modules["ttnn"]
        for cache in layer.attention.layer_past:
            ttnn.mul(cache, 0, output_tensor=cache)


def _remembering_generators(make: Callable[..., Any]) -> Callable[..., Any]:
    def generator(model: Any, *values: Any, **arguments: Any) -> Any:
        models = model if isinstance(model, (list, tuple)) else [model]
        first = id(models[0])
        if first not in store.generators:
            store.generators[first] = (make(model, *values, **arguments), models)
        made = store.generators[first][0]
        if hasattr(made, "prev_page_table"):
            made.prev_page_table = None  # otherwise this run's page table would be taken for the one before
        return made

    return generator
