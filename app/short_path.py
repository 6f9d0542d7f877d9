"""The short path: predictions answered in front of Flask, whose dispatch costs more than they do.

It takes only the plain case of a prediction. Whatever else comes goes to Flask as if nobody had
looked at it. What fails on the way goes there with its failure: every error is Flask's to word, and
none is found again. Both ways share the request's `Call`, `app.predicting`, the log and the
metrics; ``[server] short_path = false`` takes it away.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from app import predicting
from app.access.headers import PLAIN
from app.extension import Lantern
from app.model.service import ModelService
from app.telemetry.requests import CALL, ID_HEADER, AnswerInParts, Call
from app.wire import JSON

_VERBS: dict[str, predicting.Predict] = {
    "predict": predicting.predict,
    "batch": predicting.predict_batch,
}
_PLAIN_HOST = re.compile(r"[0-9A-Za-z-]{1,63}(\.[0-9A-Za-z-]{1,63}){0,9}(:[0-9]{1,5})?")

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class ShortPath:
    """WSGI middleware that answers plain predictions by ``parts`` and hands on the rest."""

    def __init__(self, application: Application, parts: Lantern) -> None:
        self._application = application
        self._parts = parts
        self._routes: dict[str, tuple[predicting.Predict, ModelService, str]] = {
            "/predict": (predicting.predict, parts.service, "/predict"),
            "/predict/batch": (predicting.predict_batch, parts.service, "/predict/batch"),
        }
        self._unnamed = list(parts.models)
        self._add_routes()

    def _add_routes(self) -> None:
        """Add the routes of the models whose names are known by now."""
        for service in [service for service in self._unnamed if service.name]:
            self._unnamed.remove(service)
            for verb, predict in _VERBS.items():
                route = predict, service, f"/models/<name>/{verb}"
                self._routes[f"/models/{service.name}/{verb}"] = route

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if self._unnamed:
            self._add_routes()
        found = self._routes.get(environ.get("PATH_INFO", ""))
        if (
            found is None
            or environ["REQUEST_METHOD"] != "POST"
            or environ.get("CONTENT_TYPE") != JSON
            or not _is_plain_host(environ.get("HTTP_HOST", ""))
            or "HTTP_CONTENT_ENCODING" in environ
            or "HTTP_TRANSFER_ENCODING" in environ
        ):
            return self._application(environ, start_response)
        stream = environ["wsgi.input"]
        # Such a stream is a body that has arrived; any other may have to be waited for.
        if type(stream) is not io.BytesIO or stream.tell():
            return self._application(environ, start_response)
        body = stream.getvalue()
        size = len(body)
        parts = self._parts
        if (
            environ.get("CONTENT_LENGTH") != str(size)
            or size > parts.settings.limits.max_body_bytes
        ):
            return self._application(environ, start_response)
        predict, service, route = found
        call: Call = environ[CALL]
        call.route = route
        try:
            answer, headers = predict(parts, service, call, lambda: body)
        except Exception as error:
            call.failure = error
        # Not in the handler: Flask's own errors would have this one as their context.
        if call.failure is not None:
            return self._application(environ, start_response)
        headers = [("Content-Type", JSON), *headers, *PLAIN, (ID_HEADER, call.request_id)]
        if isinstance(answer, AnswerInParts):
            start_response("200 OK", headers)
            return answer
        headers.insert(1, ("Content-Length", str(len(answer))))
        start_response("200 OK", headers)
        call.end(200, parts.metrics)
        return [answer]


@lru_cache(maxsize=256)
def _is_plain_host(host: str) -> bool:
    """Tell whether Flask surely takes ``host``; clients send the same again and again."""
    return _PLAIN_HOST.fullmatch(host) is not None
