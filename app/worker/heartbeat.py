"""The heartbeat file of a worker, in memory instead of a file system."""

from __future__ import annotations

import os
from typing import Any

from gunicorn.workers import base
from gunicorn.workers.workertmp import WorkerTmp


class Heartbeat(WorkerTmp):  # type: ignore[misc]  # gunicorn has no types
    """The file whose modification time Gunicorn's master watches, created in memory.

    Gunicorn creates it in a directory, for each worker: if the directory is read-only, full or
    missing, the master itself exits. A directory set with ``worker_tmp_dir`` is still used.
    """

    def __init__(self, cfg: Any) -> None:
        if cfg.worker_tmp_dir:
            super().__init__(cfg)
            return
        fd = os.memfd_create("lantern-heartbeat")
        os.fchown(fd, cfg.uid, cfg.gid)  # a worker that has dropped root must set the time
        self._tmp = os.fdopen(fd, "w+b", 0)


def report_alive_at(heartbeat: WorkerTmp, moment: float) -> None:
    """Notify Gunicorn's master that a worker was alive at ``moment``, by the monotonic clock."""
    os.utime(heartbeat.fileno(), (moment, moment))


def use_memory_for_heartbeats() -> None:
    """Make Gunicorn's workers of every class use a `Heartbeat`."""
    base.WorkerTmp = Heartbeat
