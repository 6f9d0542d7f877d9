"""Direct calls: plain predictions whose head has come before, answered without WSGI.

The environ and the start of a response cost as much as all else around the network. A worker that
remembers heads asks once for each what answers it (`app.worker.contract.DirectCall`); what is
admitted, predicted, logged and counted is what the fast path does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask

from ..access.header_names import REQUEST_ID
from ..access.rejection import RequestRejected
from ..worker.contract import DirectCall
from .admission import AdmissionMiddleware
from .context import CONTEXT, RequestContext
from .extension import Lantern
from .fast_path import FastPath, Plain
from .handlers import Answer
from .headers import PLAIN
from .request_head import RequestHead

Environ = dict[str, Any]

_MORE = "".join(f"{name}: {value}\r\n" for name, value in PLAIN)


class DirectCalls:
    """Finds what answers requests of ``app`` directly."""

    def __init__(
        self, app: Flask, lantern: Lantern, admission: AdmissionMiddleware, fast_path: FastPath
    ) -> None:
        self._app = app
        self._admission = admission
        self._prediction = lantern, admission, fast_path

    def are_for(self, application: object) -> bool:
        """Return True if a server that serves ``application`` may use them: if it is the very one,
        and in nothing that must see its requests.
        """
        return application is self._app

    def find(self, environ: Environ) -> DirectCall | None:
        """Return what answers requests with the head in ``environ``, or None: if they may need more
        than that, or if the owner has wrapped ``wsgi_app`` in middleware that must see them.
        """
        if environ["REQUEST_METHOD"] != "POST":
            return None
        environ = environ.copy()  # its path is split
        head = self._admission.admits_directly(environ)
        if head is None or self._app.wsgi_app is not self._admission:
            return None
        return _DirectPrediction(*self._prediction, head, environ)


class _DirectPrediction:
    """Answers plain predictions with the ``head`` of ``environ``, which has only what it says."""

    __slots__ = ("_admission", "_environ", "_fast_path", "_guard", "_head", "_metrics", "_plain")

    def __init__(
        self,
        lantern: Lantern,
        admission: AdmissionMiddleware,
        fast_path: FastPath,
        head: RequestHead,
        environ: Environ,
    ) -> None:
        self._metrics = lantern.metrics
        self._guard = lantern.guard
        self._admission = admission
        self._fast_path = fast_path
        self._head = head
        self._environ = environ
        self._plain: Plain | None = None

    @property
    def takes_long(self) -> bool:
        """True if the model takes long, or if these are no plain predictions as far as is known."""
        plain = self._plain
        if plain is None:
            # Looked for again while there is none: the model of a path may be known later.
            plain = self._plain = self._fast_path.find(self._environ)
        return plain is None or plain.found.service.takes_long

    @property
    def may_send_body(self) -> bool:
        """True if callers need no key, and have no rate."""
        return self._guard.is_idle and not self.takes_long

    def __call__(self, body: bytes, make_environ: Callable[[], Environ]) -> bytes | None:
        plain = self._plain
        if plain is None or len(body) != plain.size:
            return None
        context = RequestContext.of(self._head, self._environ)
        if not self._guard.is_idle:  # which may need the address of the caller
            try:
                context.caller = self._admission.admit(make_environ(), self._head)
            except RequestRejected:
                return None
        answer = self._fast_path.answer(plain, context, body)
        if answer is not None:
            written = _written(answer, context.request_id)
            if written is not None:
                context.end(200, self._metrics)
                return written
        environ = context.environ = make_environ()
        context.answer = answer
        environ[CONTEXT] = context
        return None


def _written(answer: Answer, request_id: str) -> bytes | None:
    """Return the fields and the body of a response; None if WSGI has to send or to refuse it."""
    body, ((_, content_type), *more) = answer
    if type(body) is not bytes or not content_type.isprintable():
        return None
    fields = f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    for name, value in more:
        fields += f"{name}: {value}\r\n"
    return f"{fields}{_MORE}{REQUEST_ID}: {request_id}\r\n\r\n".encode("ascii") + body
