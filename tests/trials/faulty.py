"""Lantern with faults before it: it leaks memory, descriptors and threads, and answers wrongly."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from app import create_app

_kept: list[object] = []
_numbers = itertools.count(1)


class Faulty:
    """WSGI middleware; what it doesn't do itself is Lantern's, settings and hooks too."""

    def __init__(self) -> None:
        self._lantern = create_app()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lantern, name)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        number = next(_numbers)
        _kept.append(bytearray(20_000))
        if number % 200 == 0:
            _kept.append(Path("/dev/null").open())  # noqa: SIM115
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        if environ["PATH_INFO"] == "/predict" and number % 170 == 0:
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        if environ["PATH_INFO"] == "/predict" and number % 130 == 0:
            start_response("200 OK", [("Content-Length", "2")])
            print("what is no line of a log", flush=True)
            return [b"{}"]
        return self._lantern(environ, start_response)


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
