"""What is said of a text that is to end before a stop sequence, against a search in the whole text."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo_api.direct.stop_sequences import StopSequences

# Two letters and a character of two UTF-16 units: sequences overlap, repeat and contain each other all the time.
LETTERS = st.sampled_from("ab😀")
PIECES = st.lists(st.text(LETTERS, max_size=4), max_size=12)
SEQUENCES = st.lists(st.text(LETTERS, min_size=1, max_size=5), max_size=4)


def cut(text: str, sequences: Sequence[str]) -> tuple[str, bool]:
    """The text before the sequence that ends first, and whether there is one: found letter by letter."""
    for end in range(1, len(text) + 1):
        if ending := [each for each in sequences if text[:end].endswith(each)]:
            return text[: end - max(map(len, ending))], True
    return text, False


@given(PIECES, SEQUENCES)
def test_a_text_in_pieces_is_cut_where_the_whole_text_is(pieces: list[str], sequences: list[str]) -> None:
    stops = StopSequences(sequences)
    said = [stops.add(piece) for piece in pieces]
    said.append(stops.rest())
    assert ("".join(said), stops.found) == cut("".join(pieces), sequences)
    assert stops.said == "".join(said)


@given(PIECES, SEQUENCES)
def test_only_what_may_become_a_stop_sequence_is_held_back(pieces: list[str], sequences: list[str]) -> None:
    stops = StopSequences(sequences)
    for number, piece in enumerate(pieces, 1):
        stops.add(piece)
        if stops.found:
            return
        held = "".join(pieces[:number])[len(stops.said) :]
        assert not held or any(each.startswith(held) and each != held for each in sequences)


# The pieces, the stop sequences, and what is said at each piece and when no more comes.
CUT = {
    "within a piece": (["one two three"], ["two"], ["one ", ""]),
    "across pieces": (["one t", "w", "o three"], ["two"], ["one ", "", "", ""]),
    "what looked like the beginning": (["one t", "en"], ["two"], ["one ", "ten", ""]),
    "the beginning at the end of the text": (["one t"], ["two"], ["one ", "t"]),
    "at once": (["two"], ["two"], ["", ""]),
    "the one that is complete first": (["abcd"], ["abcd", "bc"], ["a", ""]),
    "the longer of those that end together": (["abc"], ["c", "bc"], ["a", ""]),
    "text after it": (["one.", "two"], ["."], ["one", "", ""]),
    "nothing to stop at": (["one", " two"], [], ["one", " two", ""]),
}


@pytest.mark.parametrize(("pieces", "sequences", "said"), CUT.values(), ids=CUT)
def test_what_is_said_of_each_piece(pieces: list[str], sequences: list[str], said: list[str]) -> None:
    stops = StopSequences(sequences)
    assert [*map(stops.add, pieces), stops.rest()] == said
