"""Admission: the middleware in front of both the fast path and Flask.

It begins the context of each request, and rejects those that are overdue or not authorized before
any work is done for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map

from ..access.cors import Cors
from ..access.header_names import REQUEST_ID
from ..access.rejection import RequestRejected
from ..worker.contract import REJECTION
from .context import CONTEXT, RequestContext
from .extension import Lantern
from .headers import headers_for
from .prefix import PathPrefix
from .problems import PROBLEM_JSON, problem_document
from .request_head import RequestHead, head_of
from .routes import RouteTable, may_take_body

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

_ADMISSION = "lantern.admission"
"""The environ's key of the caller or the rejection that a hook of the worker found."""


class AdmissionMiddleware:
    """WSGI middleware that creates the `RequestContext` of each request and admits or rejects it.

    A request is admitted if it is in time, if the guard of ``lantern`` authorizes it, and if its
    path is below the prefix of this service.
    """

    def __init__(
        self, application: Application, lantern: Lantern, url_map: Map, table: RouteTable
    ) -> None:
        self._application = application
        self._lantern = lantern
        self._services = lantern.services
        self._table = table
        self._guard = lantern.guard
        self._wait_budget = lantern.wait_budget
        self._rules = RuleMatcher(url_map, table)
        server = lantern.settings.server
        self._prefix = PathPrefix(server.prefix, server.proxies)
        origins = lantern.settings.access.cors_origins
        header = lantern.settings.release.routing_header
        self._cors = Cors(origins, header) if origins else None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        head = head_of(environ, self._prefix)
        if CONTEXT in environ:  # begun by a direct call, and admitted
            return self._application(environ, start_response)
        context = RequestContext.begin(head, environ)
        cors = self._cors
        if cors is not None:
            start_response = cors.marking(environ, start_response)
            if cors.is_preflight(environ):
                return self._answer(context, start_response, 204, cors.preflight_headers())
        guard = self._guard
        if not guard.knows_sockets:
            guard.infer_exposure(environ["SERVER_NAME"])
        # A request that the worker has rejected stays rejected, for the worker's reason.
        if REJECTION not in environ:
            admission = self._admission(environ, head)
            if isinstance(admission, RequestRejected):
                if not head.outside:
                    context.route = self._rules.match(environ) or context.route
                context.caller = admission.caller
                return self._reject(context, start_response, admission)
            context.caller = admission
        return self._application(environ, start_response)

    def admits_directly(self, environ: dict[str, Any]) -> RequestHead | None:
        """Return the head in ``environ``, which has only what that says, and whose path is split;
        None if its requests may be rejected for more than their callers, or are answered for CORS.
        """
        head = head_of(environ, self._prefix)
        if head.outside or self._cors is not None or not self._guard.knows_sockets:
            return None
        try:
            self._wait_budget.check(environ)
        except RequestRejected:
            return None
        return head

    def admit(self, environ: dict[str, Any], head: RequestHead) -> str | None:
        """Return the caller of a request, as for `may_send_body`. Raises `RequestRejected`."""
        admission = self._admission(environ, head)
        if isinstance(admission, RequestRejected):
            environ[_ADMISSION] = admission
            raise admission
        return admission

    def may_send_body(self, environ: dict[str, Any]) -> bool:
        """Return True if a request, of which only the head has arrived, is admitted and has a body.

        So a caller without a key can't make the worker receive a body. The result is kept in the
        environ, because a request must count towards its rate only once.
        """
        admission = self._admission(environ, head_of(environ, self._prefix))
        environ[_ADMISSION] = admission
        return not isinstance(admission, RequestRejected) and self._rules.takes_body(environ)

    def pool_queue(self, environ: dict[str, Any]) -> str | None:
        """Return the name of the model that a request, which has arrived, runs, if it takes long.

        One that is not admitted runs none: it would wait among those that are, and count as one of
        them. The result is kept as that of `may_send_body`.
        """
        for service in self._services:  # usually none does, and then nothing else is looked at
            if service.takes_long:
                break
        else:
            return None
        head = head_of(environ, self._prefix)
        found = self._table.find(environ.get("PATH_INFO", ""))
        if (
            found is None
            or not found.service.takes_long
            or not found.route.predicts
            or environ["REQUEST_METHOD"] not in found.route.methods
        ):
            return None
        if _ADMISSION not in environ:
            environ[_ADMISSION] = self._admission(environ, head)
        return None if isinstance(environ[_ADMISSION], RequestRejected) else found.service.name

    def _admission(
        self, environ: dict[str, Any], head: RequestHead
    ) -> str | RequestRejected | None:
        """Return the caller of a request, None if the route takes no key, or its rejection.

        Only authorized callers may learn that a path is not below the prefix.
        """
        outside = head.outside
        guard = self._guard
        caller = None
        try:
            self._wait_budget.check(environ)
            if _ADMISSION in environ:
                known: str | RequestRejected | None = environ.pop(_ADMISSION)
                return known
            if not guard.is_idle:
                caller = guard.authorize(environ, "" if outside else self._rules.match(environ))
        except RequestRejected as rejection:
            return rejection.with_traceback(None)  # no cycle: it refers to the environ
        if outside:
            outside.caller = caller
            return outside
        return caller

    def _reject(
        self, context: RequestContext, start_response: Any, rejection: RequestRejected
    ) -> Iterable[bytes]:
        if rejection.reason:
            self._lantern.metrics.request_rejected(rejection.reason)
        body, media_type = problem_document(
            rejection.status, str(rejection), context=context, kind=rejection.kind
        )
        headers = [
            ("Content-Type", media_type),
            ("Content-Length", str(len(body))),
            *rejection.headers,
        ]
        return self._answer(context, start_response, rejection.status, headers, body)

    def _answer(
        self,
        context: RequestContext,
        start_response: Any,
        status: int,
        headers: list[tuple[str, str]],
        body: bytes = b"",
    ) -> Iterable[bytes]:
        more = headers_for(context.method, PROBLEM_JSON)
        start_response(
            f"{status} {HTTPStatus(status).phrase}",
            [*headers, *more, (REQUEST_ID, context.request_id)],
        )
        context.end(status, self._lantern.metrics)
        return [] if context.method == "HEAD" or not body else [body]


class RuleMatcher:
    """Finds the rule of a request in the table of routes, or as Flask matches it."""

    def __init__(self, url_map: Map, table: RouteTable) -> None:
        self._map = url_map
        self._table = table

    def match(self, environ: dict[str, Any]) -> str:
        """Return the rule of a request, empty if none matches."""
        found = self._table.find(environ.get("PATH_INFO", ""))
        return self._match_in_flask(environ) if found is None else found.rule

    def takes_body(self, environ: dict[str, Any]) -> bool:
        """Return True if a view may read the body of a request, by its path and method."""
        method = environ["REQUEST_METHOD"]
        if not may_take_body(method):
            return False
        found = self._table.find(environ.get("PATH_INFO", ""))
        if found is not None:
            return method in found.route.methods
        rule = self._match_in_flask(environ)
        # A declared rule is that of a model that is not there; any other is the application's own.
        return rule != "" and not self._table.declares(rule)

    def _match_in_flask(self, environ: dict[str, Any]) -> str:
        subdomain = self._map.default_subdomain or ""
        try:
            adapter = self._map.bind_to_environ(environ, subdomain=subdomain)
            rule, _ = adapter.match(return_rule=True)
        except HTTPException:  # not found, another method, or a redirect
            return ""
        return rule.rule


def init_app(app: Flask, lantern: Lantern, table: RouteTable) -> AdmissionMiddleware:
    """Wrap ``app`` in the middleware, and return that."""
    admission = AdmissionMiddleware(app.wsgi_app, lantern, app.url_map, table)
    app.wsgi_app = admission  # type: ignore[method-assign]
    lantern.may_send_body = admission.may_send_body
    lantern.pool_queue = admission.pool_queue
    return admission
