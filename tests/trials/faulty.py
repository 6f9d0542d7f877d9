"""Lantern with something before it that leaks, answers wrongly, dies, or refuses what it may."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from app import create_app
from app.http.context import RequestContext
from app.http.prefix import PathPrefix
from app.http.problems import problem_document
from app.http.request_head import head_of

_kept: list[object] = []
_numbers = itertools.count(1)
_MIB = 1 << 20
_LEAKED_A_SECOND = 25 * _MIB
_MAX_AT_ONCE = _LEAKED_A_SECOND // 5


class Faulty:
    """WSGI middleware; what it doesn't do itself is Lantern's, settings and hooks too.

    It leaks by the clock, so that what a soak finds doesn't depend on how many requests it makes.
    """

    def __init__(self) -> None:
        self._lantern = create_app()
        self._leaked = time.monotonic()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lantern, name)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        number = next(_numbers)
        self._leak()
        if number % 25 == 0:
            _kept.append(Path("/dev/null").open())  # noqa: SIM115
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        if environ["PATH_INFO"] == "/predict" and number % 23 == 0:
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        if environ["PATH_INFO"] == "/predict" and number % 19 == 0:
            start_response("200 OK", [("Content-Length", "2")])
            print("what is no line of a log", flush=True)
            return [b"{}"]
        return self._lantern(environ, start_response)

    def _leak(self) -> None:
        now = time.monotonic()
        due = min(int((now - self._leaked) * _LEAKED_A_SECOND), _MAX_AT_ONCE)
        _kept.append(b"\xff" * due)
        self._leaked = now


app = Faulty()


class Fragile(Faulty):
    """Lantern behind what dies of some requests, and fails at others."""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        number = next(_numbers)
        if number % 300 == 0:
            os._exit(1)
        if number % 70 == 0:
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        return self._lantern(environ, start_response)


fragile = Fragile()


_SOON = [("Retry-After", "1")]
_REFUSALS: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("503 Service Unavailable", "overloaded", _SOON),
    ("503 Service Unavailable", "draining", _SOON),
    ("429 Too Many Requests", "rate-limited", _SOON),
    ("408 Request Timeout", "", []),
]


class Busy(Faulty):
    """Lantern behind what has no time for some predictions, and says so as it is documented."""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        number = next(_numbers)
        if environ["PATH_INFO"].endswith(("/predict", "/batch")) and number % 5 == 0:
            status, kind, fields = _REFUSALS[number // 5 % len(_REFUSALS)]
            context = RequestContext.begin(head_of(environ, PathPrefix("", 0)), environ)
            body, media_type = problem_document(int(status[:3]), "a", context=context, kind=kind)
            length = [("Content-Type", media_type), ("Content-Length", str(len(body)))]
            start_response(status, [*length, ("X-Request-ID", context.request_id), *fields])
            return [body]
        return self._lantern(environ, start_response)


busy = Busy()
