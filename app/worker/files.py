"""The number of connections that the limit of open files allows."""

from __future__ import annotations

import resource

_RESERVED = 64
"""Descriptors for listeners, pipes, libraries, a model that is being loaded, metrics and logs."""


def connections_that_fit(wanted: int, others: int = 0) -> int:
    """Return ``wanted``, or what the limit of open files allows beside ``others``.

    A worker with connections up to the limit could not open any file, such as its model's release.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(wanted, limit - _RESERVED - others))
