"""The text that the plugin tells of each user, token by token."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import demo_api

sys.path.insert(0, str(Path(demo_api.__path__[0]) / "demo/plugin"))
from demo_api_decode import Text


def decode(tokens: list[int]) -> str:
    """A byte a token."""
    return bytes(tokens).decode("utf-8", "replace")


def told(tokens: list[int]) -> list[str]:
    text = Text()
    return [text.added(tokens[: count + 1], decode) for count in range(len(tokens))]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=40))
def test_the_pieces_are_the_answer_without_the_blanks_around_it(answer: str) -> None:
    pieces = told(list(answer.encode()))
    assert "".join(pieces) == answer.strip()
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize(
    ("answer", "pieces"),
    [
        pytest.param("ab", ["a", "b"], id="a token each"),
        pytest.param(" a", ["", "a"], id="no blank before the answer"),
        pytest.param("a b", ["a", "", " b"], id="a blank comes with what follows it"),
        pytest.param("a \n", ["a", "", ""], id="no blank after it"),
        pytest.param("\N{SNOWMAN}", ["", "", "\N{SNOWMAN}"], id="no half character"),
    ],
)
def test_what_each_token_adds(answer: str, pieces: list[str]) -> None:
    assert told(list(answer.encode())) == pieces


def test_a_space_that_the_tokenizer_takes_back_is_not_told() -> None:
    # Transformers' clean_up_tokenization_spaces.
    words = ["what", " ", "?"]
    text = Text()
    pieces = [
        text.added(list(range(count + 1)), lambda tokens: "".join(words[token] for token in tokens).replace(" ?", "?"))
        for count in range(3)
    ]
    assert pieces == ["what", "", "?"]


def test_what_was_told_is_not_taken_back() -> None:
    text, texts = Text(), ["", "the '", "the's"]
    text.added([0], lambda tokens: texts[len(tokens)])
    with pytest.raises(ValueError, match="the's"):
        text.added([0, 1], lambda tokens: texts[len(tokens)])
