"""Which model a batch goes to: what it is loaded for, and when a kept one is given up."""

from __future__ import annotations

import pytest

from demo_api.demo.model_shape import KeptModel, ModelShape, choose, shape_of
from demo_api.messages import Request, Run


def requests(count: int, length: int = 10, max_tokens: int = 128) -> list[Request]:
    return [Request(prompt="x" * length, max_tokens=max_tokens) for _ in range(count)]


def kept(batch_size: int, max_seq_len: int, *, load: float = 60.0, run: float = 10.0) -> KeptModel:
    return KeptModel(ModelShape(batch_size, max_seq_len), load, run)


@pytest.mark.parametrize(
    ("count", "length", "context", "shape"),
    [
        pytest.param(1, 10, None, (1, 2048), id="most prompts share one model"),
        pytest.param(1, 1600, None, (1, 2048), id="also longer ones"),
        pytest.param(1, 3000, None, (1, 4096), id="a long one has its own"),
        pytest.param(1, 30_000, 8192, (1, 8192), id="not more than the model was made for"),
        pytest.param(3, 10, None, (4, 1024), id="three are four users"),
        pytest.param(32, 10, None, (32, 1024), id="as many as there can be"),
        pytest.param(4, 1000, 2048, (4, 2048), id="several longer ones"),
    ],
)
def test_a_model_is_loaded_for_the_batch(count: int, length: int, context: int | None, shape: tuple[int, int]) -> None:
    assert shape_of(requests(count, length), context) == ModelShape(*shape)


@pytest.mark.parametrize(
    ("count", "length", "has", "shape"),
    [
        pytest.param(1, 10, kept(1, 2048), (1, 2048), id="the same"),
        pytest.param(1, 10, kept(32, 1024), (32, 1024), id="one user of many"),
        pytest.param(3, 10, kept(8, 2048), (8, 2048), id="a longer one than needed"),
        pytest.param(8, 10, kept(1, 2048), (8, 2048), id="more users, and no shorter than before"),
        pytest.param(1, 3000, kept(4, 1024), (4, 4096), id="longer, and no fewer users than before"),
        pytest.param(1, 5000, kept(32, 1024), (1, 8192), id="so long that as many users do not fit"),
    ],
)
def test_a_kept_model_is_used_or_replaced_by_one_that_serves_both(
    count: int, length: int, has: KeptModel, shape: tuple[int, int]
) -> None:
    assert shape_of(requests(count, length), None, has) == ModelShape(*shape)


@pytest.mark.parametrize(
    ("has", "chosen"),
    [
        pytest.param(None, 8, id="nothing is kept"),
        pytest.param(kept(8, 1024), 8, id="it has a place for each"),
        pytest.param(kept(1, 2048, load=60, run=10), 8, id="eight turns take longer than a load"),
        pytest.param(kept(1, 2048, load=60, run=2), 1, id="eight turns are shorter than a load"),
        pytest.param(kept(4, 1024, load=60, run=10), 4, id="two turns are shorter than a load"),
    ],
)
def test_a_larger_model_is_loaded_only_where_that_is_worth_it(has: KeptModel | None, chosen: int) -> None:
    runs = [Run(f"run-{number}", request) for number, request in enumerate(requests(8))]
    assert choose(runs, None, has) == runs[:chosen]


def test_a_run_that_does_not_surely_fit_with_the_others_waits() -> None:
    long, *short = [
        Run("long", requests(1, 20_000)[0]),
        *(Run(f"{n}", request) for n, request in enumerate(requests(3))),
    ]
    assert choose([*short, long], None) == short
    assert choose([long, *short], None) == [long]
