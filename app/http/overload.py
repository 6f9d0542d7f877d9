"""Load shedding: how long a request may wait in the queue, and the rejection of one that can't.

The worker measures how long requests wait (`app.worker.request_queue`); this module decides how
long they may. A rejection costs a small part of a prediction, and says when to retry.
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
    """A request whose wait in the queue exceeds its budget; both in seconds."""

    status = 503
    kind = "overloaded"
    reason = "overloaded"
    # The shortest that the header allows; by then the current queue has been served.
    headers = ((RETRY_AFTER, "1"),)

    def __init__(self, waits: float, may_wait: float) -> None:
        super().__init__(
            f"Server overloaded: estimated wait {waits:.3g} s exceeds the limit of {may_wait:.3g} "
            f"s (limits.queue_budget_ms, or your {REQUEST_TIMEOUT}). Retry later."
        )


class BadBudget(RequestRejected):
    """The header X-Request-Timeout-Ms is not a number of milliseconds."""

    kind = "bad-request"

    def __init__(self) -> None:
        super().__init__(f"{REQUEST_TIMEOUT} must be a whole number of milliseconds.")


class WaitBudget:
    """Returns how many seconds a request may wait in the queue, from its environ.

    Predictions may wait for ``limits.queue_budget_ms``, or less if the caller says so. Health,
    metrics and everything else may wait forever: operators look most at a service that is
    overloaded.
    """

    def __init__(self, limits: LimitSettings) -> None:
        self._most = limits.queue_budget_ms / 1000 or inf

    def __call__(self, environ: Mapping[str, Any]) -> float:
        if environ["REQUEST_METHOD"] != "POST":
            return inf
        asked = caller_budget(environ)
        return self._most if asked is None else min(asked, self._most)

    def check(self, environ: Mapping[str, Any]) -> None:
        """Raise `Overloaded` for a request that the worker marked as overdue, and `BadBudget` for a
        malformed header.
        """
        if OVERDUE in environ:
            raise Overloaded(overdue_seconds(environ), self(environ))
        if _TIMEOUT in environ and caller_budget(environ) is None:
            raise BadBudget


def caller_budget(environ: Mapping[str, Any]) -> float | None:
    """Return how many seconds the caller is willing to wait; None if it doesn't say, or malformed.

    A malformed header is rejected when the request is served, not while it is queued.
    """
    text = environ.get(_TIMEOUT)
    return int(text) / 1000 if text is not None and _MILLISECONDS.fullmatch(text) else None
