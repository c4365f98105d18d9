"""The page at ``/`` and its files, and the security headers of every answer."""

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
    """Adds ``/`` and the files that it needs. They are the same for everybody, so reading them takes no key."""

    @app.get("/")
    def show_page() -> Response:
        response = send_file(_WEB / "index.html")
        response.headers["Content-Security-Policy"] = _PAGE_POLICY
        return _fresh(response)

    @app.get("/static/<path:name>", endpoint="static")
    def give_file(name: str) -> Response:
        return _fresh(send_from_directory(_WEB / "static", name))


def add_security_headers(app: Flask) -> None:
    """Adds the security headers to every answer that does not bring its own."""

    @app.after_request
    def secure(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response


def _fresh(response: Response) -> Response:
    """Makes a browser ask every time, mostly answered 304: after an upgrade no old module may meet a new one."""
    response.headers["Cache-Control"] = "no-cache"
    return response
