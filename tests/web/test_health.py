"""``/health`` is made once for all who ask at the same time."""

from __future__ import annotations

from flask import Flask
from support.waiting import at_once, pause

from demo_api.web.health import Recent


def test_health_is_made_again_only_when_it_is_old() -> None:
    made: list[int] = []

    def make() -> dict[str, int]:
        made.append(1)
        return {"number": len(made)}

    recent, app, texts = Recent(make), Flask(__name__), list[bytes]()

    def ask() -> None:
        with app.app_context():
            texts.append(recent.json())

    at_once([ask] * 20)
    assert set(texts) == {b'{"number":1}\n'}
    pause(0.15)
    ask()
    assert texts[-1] == b'{"number":2}\n'


def test_what_cannot_be_made_is_tried_again() -> None:
    answers = iter([ZeroDivisionError("no"), {"number": 1}])

    def make() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    recent = Recent(make)
    with Flask(__name__).app_context():
        try:
            recent.json()
        except ZeroDivisionError:
            assert recent.json() == b'{"number":1}\n'
