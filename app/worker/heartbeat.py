"""The heartbeat of a worker, kept in memory instead of a file system."""

from __future__ import annotations

import os
from typing import Any

from gunicorn.workers import base
from gunicorn.workers.workertmp import WorkerTmp


class Heartbeat(WorkerTmp):  # type: ignore[misc]  # gunicorn has no types
    """What Gunicorn's master watches: the modification time of a file, here of one in memory.

    Gunicorn creates that file in a directory, for each worker: if the directory is read-only, full
    or gone, the master itself exits. A directory set with ``worker_tmp_dir`` is still used.
    """

    def __init__(self, cfg: Any) -> None:
        if cfg.worker_tmp_dir:
            super().__init__(cfg)
            return
        fd = os.memfd_create("lantern-heartbeat")
        os.fchown(fd, cfg.uid, cfg.gid)  # a worker that drops root sets the time, too
        self._tmp = os.fdopen(fd, "w+b", 0)


def use_memory_for_heartbeats() -> None:
    """Make Gunicorn's workers of every class use a `Heartbeat`."""
    base.WorkerTmp = Heartbeat
