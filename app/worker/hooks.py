"""Gunicorn's hooks around each request: ``pre_request``, ``post_request`` and the access log."""

from __future__ import annotations

from datetime import timedelta
from time import monotonic
from typing import Any

from gunicorn.config import PostRequest, PreRequest
from gunicorn.glogging import Logger

from .response import Response


class Hooks:
    """Calls the hooks of ``worker``, and its access log."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    @property
    def are_any(self) -> bool:
        """True if there is anything to call; if not, requests need not be timed."""
        cfg = self._worker.cfg
        is_default = (
            cfg.pre_request is PreRequest.default and cfg.post_request is PostRequest.default
        )
        log = self._worker.log
        # A logger of another class may need every request: to count it in StatsD, for instance.
        overrides_access = type(log).access is not Logger.access
        return log.access_log_enabled or overrides_access or not is_default

    def before(self, response: Response) -> None:
        """Call ``pre_request``, before the application. Raises what the hook raises."""
        response.started = monotonic()
        self._worker.cfg.pre_request(self._worker, response.request)

    def after(self, response: Response) -> None:
        """Log the access and call ``post_request``, once a response has ended or was aborted."""
        request = response.request
        taken = timedelta(seconds=monotonic() - response.started)
        try:
            self._worker.log.access(response, request.headers, request.environ, taken)
            self._worker.cfg.post_request(self._worker, request, request.environ, response)
        except Exception:
            self._worker.log.exception("Exception in post_request hook")
