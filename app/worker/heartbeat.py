"""The sign of life of a worker, which no file system has to be there for."""

from __future__ import annotations

import os
from typing import Any

from gunicorn.workers import base
from gunicorn.workers.workertmp import WorkerTmp


class Heartbeat(WorkerTmp):  # type: ignore[misc]  # gunicorn has no types
    """What Gunicorn's master looks at: the time of a file, here of one in memory.

    Gunicorn makes the file in a directory, again for each worker: where that can't be written to,
    is full or was removed, the master itself ends. One that the user chose is used all the same.
    """

    def __init__(self, cfg: Any) -> None:
        if cfg.worker_tmp_dir:
            super().__init__(cfg)
            return
        fd = os.memfd_create("lantern-heartbeat")
        os.fchown(fd, cfg.uid, cfg.gid)  # a worker that gives up root sets the time, too
        self._tmp = os.fdopen(fd, "w+b", 0)


def use_memory_for_heartbeats() -> None:
    """Make Gunicorn's workers of every class use a `Heartbeat`."""
    base.WorkerTmp = Heartbeat
