"""How many connections the limit of open files allows, with some left for files."""

from __future__ import annotations

import resource

_RESERVED = 64
"""For listeners, pipes, libraries, a model that is loaded, metrics, logs."""


def connections_that_fit(wanted: int, others: int = 0) -> int:
    """Return ``wanted``, or what this process's limit leaves, with ``others`` set aside too.

    A worker with connections up to the limit could open no file: not even its model's release.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(wanted, limit - _RESERVED - others))
