"""What Gunicorn's users hang on each request: ``pre_request``, ``post_request``, the access log."""

from __future__ import annotations

from datetime import timedelta
from time import monotonic
from typing import Any

from gunicorn.config import PostRequest, PreRequest
from gunicorn.glogging import Logger

from .answer import Answer


class Hooks:
    """The hooks of ``worker``."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    @property
    def are_any(self) -> bool:
        """Whether there is anything to call; where there isn't, a request needs no clock."""
        cfg = self._worker.cfg
        is_default = (
            cfg.pre_request is PreRequest.default and cfg.post_request is PostRequest.default
        )
        log = self._worker.log
        # A logger of another class may do with it what it likes: count it in StatsD, for instance.
        takes_all = type(log).access is not Logger.access
        return log.access_log_enabled or takes_all or not is_default

    def before(self, answer: Answer) -> None:
        """Call before the application is; raises what a hook raises."""
        answer.started = monotonic()
        self._worker.cfg.pre_request(self._worker, answer.request)

    def after(self, answer: Answer) -> None:
        """Call when an answer has ended, or was given up."""
        request = answer.request
        taken = timedelta(seconds=monotonic() - answer.started)
        try:
            self._worker.log.access(answer, request.headers, request.environ, taken)
            self._worker.cfg.post_request(self._worker, request, request.environ, answer)
        except Exception:
            self._worker.log.exception("Exception in post_request hook")
