"""The keep-alive worker as it is if every request takes long: threads make all calls."""

from __future__ import annotations

from app.worker import KeepAliveWorker
from app.worker.contract import Environ


class ThreadsWorker(KeepAliveWorker):
    @staticmethod
    def pool_queue(environ: Environ) -> str | None:
        return "all"
