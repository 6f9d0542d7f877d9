"""Lantern without a feature that no setting turns off.

``WITHOUT=metrics gunicorn benchmarks.stripped:app`` starts it without its metrics.

This is for measuring what the feature costs, and for nothing else. What is taken away is replaced
in the running program, by the names below; one that is gone stops the server, so that nothing is
called free which only goes by another name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import msgspec

METRICS, IDS, VALIDATION = "metrics", "request ids", "validation"


def _nothing(*_: object, **__: object) -> None:
    """Count nothing."""


def _same_id() -> str:
    return "0" * 32


def _unchecked(self: Any, body: bytes) -> Any:
    """Take the values of the features in the order in which they come, whatever they are."""
    values = msgspec.json.decode(body)["features"].values()
    return self._encoder.pack(tuple(values), 1)


TAKEN: dict[str, dict[str, Callable[..., Any]]] = {
    METRICS: {
        "app.telemetry.metrics:Metrics.request_served": _nothing,
        "app.telemetry.metrics:Metrics.predicted": _nothing,
    },
    IDS: {"app.http.context:_new_id": _same_id},
    VALIDATION: {"app.protocols.native.fast_decoder:FastDecoder.row": _unchecked},
}
"""The replacements that take a feature away: ``{"module:name": replacement}``."""


def take_away(feature: str) -> None:
    """Take a feature away from this process. Raises `AttributeError` for a name that is gone."""
    for place, replacement in TAKEN[feature].items():
        module, _, name = place.partition(":")
        *owners, last = name.split(".")
        owner: Any = import_module(module)
        for each in owners:
            owner = getattr(owner, each)
        getattr(owner, last)
        setattr(owner, last, replacement)


def __getattr__(name: str) -> Any:
    """Make the application when Gunicorn asks for it."""
    if name != "app":
        raise AttributeError(name)
    take_away(os.environ["WITHOUT"])
    from app import create_app

    return create_app()
