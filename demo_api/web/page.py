"""The page at ``/``: plain files, and the headers that keep a browser from doing with them what they are not for."""

from __future__ import annotations

from pathlib import Path

from flask import Flask, Response, send_file, send_from_directory

_WEB = Path(__file__).parent

# Answers are for programs: a browser that is led to one must not take it for a page, nor frame it.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

# connect-src: Compare asks any server that its user names. What the page shows is text, so nobody else can name one.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' http: https:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_page(app: Flask) -> None:
    """``/`` and the files that it needs. They are the same for everybody: no key is needed to read them."""

    @app.get("/")
    def show_page() -> Response:
        response = send_file(_WEB / "index.html")
        response.headers["Content-Security-Policy"] = _PAGE_POLICY
        return _fresh(response)

    @app.get("/static/<path:name>", endpoint="static")
    def give_file(name: str) -> Response:
        return _fresh(send_from_directory(_WEB / "static", name))


def add_security_headers(app: Flask) -> None:
    """From now on every answer has them, unless it brings its own."""

    @app.after_request
    def secure(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response


def _fresh(response: Response) -> Response:
    """After an upgrade no old module may meet a new one: a browser asks every time, and mostly hears 304."""
    response.headers["Cache-Control"] = "no-cache"
    return response
