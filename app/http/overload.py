"""Overload: how long a request may wait for its turn, and the rejection of one that can't have it.

The worker knows how long requests wait (`app.worker.request_queue`); here stands how long they may.
A rejection costs a small part of a prediction, and says when to come again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import inf
from typing import Any

from ..access.header_names import REQUEST_TIMEOUT, RETRY_AFTER, environ_key
from ..access.rejection import RequestRejected
from ..settings import LimitSettings
from ..worker.contract import OVERDUE, overdue_seconds

_TIMEOUT = environ_key(REQUEST_TIMEOUT)
_MILLISECONDS = re.compile(r"[0-9]{1,9}")


class Overloaded(RequestRejected):
    """A request that waited for its turn for longer than it may, or would; both in seconds."""

    status = 503
    kind = "overloaded"
    reason = "overloaded"
    # The least that the header can say; what waits now is gone by then.
    headers = ((RETRY_AFTER, "1"),)

    def __init__(self, waits: float, may_wait: float) -> None:
        super().__init__(
            f"Server overloaded: estimated wait {waits:.3g} s exceeds the limit of {may_wait:.3g} "
            f"s (limits.queue_budget_ms, or your {REQUEST_TIMEOUT}). Retry later."
        )


class BadBudget(RequestRejected):
    """The header is there and is not a number of milliseconds."""

    kind = "bad-request"

    def __init__(self) -> None:
        super().__init__(f"{REQUEST_TIMEOUT} must be a whole number of milliseconds.")


class WaitBudget:
    """How long requests may wait, in seconds, by their environ.

    Predictions have the limit of the settings, and a caller may be in more of a hurry. Health,
    metrics and all else always have their turn: who looks after a service looks most when it
    is overloaded.
    """

    def __init__(self, limits: LimitSettings) -> None:
        self._most = limits.queue_budget_ms / 1000 or inf

    def __call__(self, environ: Mapping[str, Any]) -> float:
        if environ["REQUEST_METHOD"] != "POST":
            return inf
        asked = caller_budget(environ)
        return self._most if asked is None else min(asked, self._most)

    def check(self, environ: Mapping[str, Any]) -> None:
        """Raise `Overloaded` for a request that the worker found to be too late, and `BadBudget`
        for a header that makes no sense.
        """
        if OVERDUE in environ:
            raise Overloaded(overdue_seconds(environ), self(environ))
        if _TIMEOUT in environ and caller_budget(environ) is None:
            raise BadBudget


def caller_budget(environ: Mapping[str, Any]) -> float | None:
    """Return the seconds that a caller is willing to wait; None where nothing valid is said.

    What is invalid is refused when the request is taken up, not while it is queued.
    """
    text = environ.get(_TIMEOUT)
    return int(text) / 1000 if text is not None and _MILLISECONDS.fullmatch(text) else None
