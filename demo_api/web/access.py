"""Who may ask, under which name, and how often: checked before every request."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Collection
from ipaddress import ip_address

from flask import Flask, Response, g, request
from flask_limiter import ApplicationLimit, Limiter, RequestLimit

from demo_api.config import Settings
from demo_api.errors import CrossSite, KeysNeeded, RateLimited, SetupError, Unauthorized, WrongHost
from demo_api.web.keys import Keys

PUBLIC = {"/", "/livez", "/readyz", "/health", "/openapi.json", "/docs"}
"""Routes that need no key. ``/health`` and ``/readyz`` say less without one."""

PUBLIC_BELOW = ("/static/",)
"""How further routes that need none begin: files that ship in the package."""

UNCOUNTED = {"/livez", "/readyz", "/health", "/metrics"}
"""Routes that the limit of requests does not count, wrong keys excepted: programs ask for them again and again."""

RUN_THE_MODEL = {"/chat", "/chat/stream", "/runs", "/v1/chat/completions", "/v1/completions"}
"""Routes whose POST runs the model; they have a limit of their own beside the one for all."""

_CLOCK_WAS_SET_SECONDS = 1.0
"""By how much more the wall clock must change than time went by, to have been set."""

_SAFE = ("GET", "HEAD", "OPTIONS")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")


def check_exposure(settings: Settings) -> None:
    """Raises SetupError if others could reach the server and nothing keeps them out."""
    if not (is_loopback(settings.host) or settings.keys or settings.keys_file or settings.insecure):
        raise SetupError(
            f"Other machines could reach {settings.host}, and no keys are set.",
            next_step="Set DEMO_API_KEYS or --keys-file, or accept everyone with --insecure.",
        )


def is_loopback(name: str) -> bool:
    """Whether it is ``localhost``, or an address that no other machine can reach."""
    if name.lower() == "localhost":
        return True
    try:
        address = ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    # A socket for both families writes 127.0.0.1 as ::ffff:127.0.0.1, which is loopback for Python 3.13 and later only.
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def is_ours(header: str, names: Collection[str]) -> bool:
    """Whether a request with this header ``Host`` is for us: for loopback, or one of the names, with any port.

    Flask's ``TRUSTED_HOSTS`` is not used: it knows names only, and 127.0.0.0/8 is a network.
    """
    found = _HOST.fullmatch(header)
    return found is not None and (is_loopback(found[1]) or found[1].lower() in names)


def bearer(header: str) -> str:
    """The key in a header ``Authorization``; empty, which is nobody's, where it has none."""
    scheme, _, key = header.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def add_access(app: Flask, settings: Settings) -> None:
    """Refuses requests of clients that may not ask. Each check sees only what the one before it has let through.

    Raises:
        SetupError: the file of keys cannot be used.
    """
    keys = app.extensions["demo_api_keys"] = Keys(settings.keys, settings.keys_file)
    # On loopback a browser is the only way in for others: a page elsewhere whose name is made to mean 127.0.0.1.
    checks_host = is_loopback(settings.host) or bool(settings.hosts)

    @app.before_request
    def check_host() -> None:
        host = request.environ.get("HTTP_HOST")
        if checks_host and host is not None and not is_ours(host, settings.hosts):  # no browser leaves it out
            raise WrongHost(f"This server is not {host[:100]!r}.")

    @app.before_request
    def check_origin() -> None:
        if request.method not in _SAFE and _is_from_elsewhere(settings.cors_origins):
            raise CrossSite("Pages of other sites cannot change anything here.")

    @app.before_request
    def check_client() -> None:
        # `serve` would not have started. Here it is another web server, which has its own address.
        client = request.remote_addr
        if not keys.are_needed and not settings.insecure and client and not is_loopback(client):
            raise KeysNeeded("This server has no keys, so it answers only its own machine.")

    @app.before_request
    def name_key() -> None:
        g.key = keys.name(bearer(request.headers.get("Authorization", ""))) if keys.are_needed else None
        g.knows_all = g.key is not None or not keys.are_needed
        g.key_is_wrong = not g.knows_all and "Authorization" in request.headers

    _add_limits(app, settings)  # who sends wrong keys is limited too, by address

    @app.before_request
    def check_key() -> None:
        if not g.knows_all and not _is_public():
            given = "is not one of this server's" if g.key_is_wrong else "is missing"
            raise Unauthorized(f"The key {given}.")

    @app.after_request
    def ask_for_key(response: Response) -> Response:
        if response.status_code == Unauthorized.status_code:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response


def _is_from_elsewhere(allowed: Collection[str]) -> bool:
    """Whether another site's page sends this, by way of a browser that did not have to ask for leave."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if origin in allowed:
        return False
    if site is not None:
        return site not in ("same-origin", "none")
    # Older browsers, and any browser without TLS, send Origin alone; behind a proxy it need not be the Host's. Before
    # JSON or a key a browser asks for leave (CORS).
    asked = request.is_json or "Authorization" in request.headers
    return origin is not None and not asked and origin.partition("://")[2] != request.host


def _is_public() -> bool:
    # OPTIONS tells methods only, and a browser that asks for leave sends no key with it.
    rule = request.url_rule.rule if request.url_rule else ""
    return request.method == "OPTIONS" or rule in PUBLIC or rule.startswith(PUBLIC_BELOW)


def _wall_clock_offset() -> float:
    return time.time() - time.monotonic()


def _add_limits(app: Flask, settings: Settings) -> None:
    limits = []
    if settings.rate_limit is not None:
        limits.append(_per_minute(settings.rate_limit, "requests"))
    if settings.run_rate_limit is not None:
        limits.append(_per_minute(settings.run_rate_limit, "requests that run the model", lambda: not _runs_model()))
    if not limits:
        return
    offset = _wall_clock_offset()

    @app.before_request
    def forget_what_another_time_counted() -> None:
        nonlocal offset
        before, offset = offset, _wall_clock_offset()
        if abs(offset - before) > _CLOCK_WAS_SET_SECONDS:
            limiter.reset()  # its window is by the wall clock: one set back an hour would refuse everybody for an hour

    limiter = Limiter(
        lambda: f"key {g.key}" if g.key else f"address {request.remote_addr}",
        app=app,
        application_limits=[*limits],
        strategy="moving-window",
        storage_uri="memory://",  # of this process
        # What is not there counts too: every answer but that to OPTIONS tells whether a key is right.
        request_identifier=lambda: request.endpoint or "nothing",
    )

    @limiter.request_filter
    def is_uncounted() -> bool:
        rule = request.url_rule.rule if request.url_rule else ""
        return request.method == "OPTIONS" or (rule in UNCOUNTED and not g.key_is_wrong)


def _per_minute(most: int, what: str, exempt_when: Callable[[], bool] | None = None) -> ApplicationLimit:
    def refuse(limit: RequestLimit) -> None:
        seconds = max(1, math.ceil(limit.window.reset_time - time.time()))
        raise RateLimited(f"More than {most} {what} were sent within a minute.", retry_after=seconds)

    return ApplicationLimit(f"{most} per minute", scope=what, exempt_when=exempt_when, on_breach=refuse)


def _runs_model() -> bool:
    return request.method == "POST" and request.url_rule is not None and request.url_rule.rule in RUN_THE_MODEL
