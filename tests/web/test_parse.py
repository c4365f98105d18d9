from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo_api.errors import BadRequest
from demo_api.web.parse import parse_request

ACCEPTED = {
    "only a prompt": {},
    "most tokens": {"max_tokens": 2048},
    "fewest tokens": {"max_tokens": 1},
    "an integer temperature": {"temperature": 0},
    "the highest temperature": {"temperature": 2.0},
    "all of top_p": {"top_p": 1},
    "a seed": {"seed": 2**32 - 2},
    "an explicit null seed": {"seed": None},
    "the longest prompt": {"prompt": "x" * 32_768},
    "a prompt of one space and a letter": {"prompt": " a"},
}

REJECTED = {
    "no prompt": ({"prompt": ...}, "prompt"),
    "an empty prompt": ({"prompt": ""}, "prompt"),
    "a blank prompt": ({"prompt": " \n\t "}, "prompt"),
    "a prompt that is too long": ({"prompt": "x" * 32_769}, "prompt"),
    "a prompt that is a number": ({"prompt": 7}, "prompt"),
    "a prompt that is null": ({"prompt": None}, "prompt"),
    "a prompt that is a list": ({"prompt": ["a"]}, "prompt"),
    "no tokens": ({"max_tokens": 0}, "max_tokens"),
    "too many tokens": ({"max_tokens": 2049}, "max_tokens"),
    "true as tokens": ({"max_tokens": True}, "max_tokens"),
    "text as tokens": ({"max_tokens": "5"}, "max_tokens"),
    "half a token": ({"max_tokens": 1.5}, "max_tokens"),
    "a negative temperature": ({"temperature": -0.1}, "temperature"),
    "a temperature that is too high": ({"temperature": 2.01}, "temperature"),
    "true as temperature": ({"temperature": True}, "temperature"),
    "NaN as temperature": ({"temperature": float("nan")}, "temperature"),
    "infinity as temperature": ({"temperature": float("inf")}, "temperature"),
    "a top_p of 0": ({"top_p": 0}, "top_p"),
    "a top_p over 1": ({"top_p": 1.001}, "top_p"),
    "NaN as top_p": ({"top_p": float("nan")}, "top_p"),
    "a negative seed": ({"seed": -1}, "seed"),
    "a seed that means none": ({"seed": 2**32 - 1}, "seed"),
    "a fractional seed": ({"seed": 0.5}, "seed"),
    "an unknown field": ({"max_token": 5}, "max_token"),
}


@pytest.mark.parametrize("fields", ACCEPTED.values(), ids=ACCEPTED)
def test_accepts(fields: dict[str, object]) -> None:
    request = parse_request(json.dumps({"prompt": "Hello"} | fields))
    for name, value in fields.items():
        assert getattr(request, name) == value


@pytest.mark.parametrize(("fields", "named"), REJECTED.values(), ids=REJECTED)
def test_rejects_and_names_the_field(fields: dict[str, object], named: str) -> None:
    body = {name: value for name, value in ({"prompt": "Hello"} | fields).items() if value is not ...}
    with pytest.raises(BadRequest) as caught:
        parse_request(json.dumps(body))
    assert caught.value.fields["field"] == named
    assert f"'{named}'" in str(caught.value)
    assert caught.value.next_step


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b'{"prompt": "\xff"}', b"{}}"])
def test_rejects_what_is_no_json_object(body: bytes) -> None:
    with pytest.raises(BadRequest, match="The body is not"):
        parse_request(body)


def test_rejects_nesting_that_would_exhaust_a_stack() -> None:
    with pytest.raises(BadRequest):
        parse_request('{"prompt": ' + "[" * 100_000)


@given(st.text(min_size=1, max_size=300).filter(str.strip))
def test_any_prompt_comes_through_as_it_is(prompt: str) -> None:
    assert parse_request(json.dumps({"prompt": prompt})).prompt == prompt


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_accepted_or_refused_but_never_breaks(body: object) -> None:
    try:
        request = parse_request(json.dumps(body))
    except BadRequest:
        return
    else:
        assert isinstance(body, dict)
        assert request.prompt == body["prompt"]


def test_a_lone_surrogate_is_refused_with_the_field_named() -> None:
    with pytest.raises(BadRequest) as caught:
        parse_request('{"prompt": "\\ud800"}')
    assert caught.value.status_code == 400
