"""The watcher: periodically checks, in every worker, whether a model's release has changed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from .service import ModelService

log = logging.getLogger("lantern.model")


class Watcher:
    """Refreshes ``services`` every ``seconds``, on a thread that ends with the process."""

    def __init__(self, services: Sequence[ModelService], seconds: float) -> None:
        self._services = services
        self._seconds = seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lantern-release", daemon=True)

    def start(self) -> None:
        """Start watching; call it after the fork, because threads don't survive one."""
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """Stop, and wait for a load that is in progress; return True if it ended in time."""
        self._stopped.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _watch(self) -> None:
        while not self._stopped.wait(self._seconds):
            for service in self._services:
                try:
                    service.refresh()
                except Exception:  # the next check may succeed
                    log.exception("checking the release failed")
