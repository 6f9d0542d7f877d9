"""Admission: the middleware that begins each request, and lets it in or refuses it.

Both ways of a request, the fast path and Flask, lie behind it, so neither can be reached without
it, and neither's work is spent on what is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, request
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
from .routes import RouteTable, takes_body

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

_ADMISSION = "lantern.admission"
"""In the environ of a request whose body the worker asked about: its caller, or its rejection."""


class AdmissionMiddleware:
    """WSGI middleware that makes the `RequestContext` of each request, and admits those for which
    there is time, which are for this service, and which the guard of ``lantern`` lets in.
    """

    def __init__(
        self, application: Application, lantern: Lantern, url_map: Map, table: RouteTable
    ) -> None:
        self._application = application
        self._lantern = lantern
        self._guard = lantern.guard
        self._wait_budget = lantern.wait_budget
        self._table = table
        self._rules = RuleMatcher(url_map, table)
        server = lantern.settings.server
        self._prefix = PathPrefix(server.prefix, server.proxies)
        origins = lantern.settings.access.cors_origins
        header = lantern.settings.release.routing_header
        self._cors = Cors(origins, header) if origins else None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        elsewhere = self._prefix.split(environ)
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        if not path.isascii():  # WSGI has its bytes as latin-1 (PEP 3333)
            path = path.encode("latin-1", "replace").decode(errors="replace")
        context = RequestContext(environ["REQUEST_METHOD"], path, environ)
        environ[CONTEXT] = context
        cors = self._cors
        if cors is not None:
            start_response = cors.marking(environ, start_response)
            if cors.is_preflight(environ):
                return self._answer(context, start_response, 204, cors.preflight_headers())
        guard = self._guard
        if not guard.knows_sockets:
            guard.infer_exposure(environ["SERVER_NAME"])
        # What the worker refused, it has not read; it stays refused for that.
        if REJECTION not in environ:
            admission = self._admission(environ, elsewhere)
            if isinstance(admission, RequestRejected):
                if not elsewhere:
                    context.route = self._rules.match(environ) or context.route
                context.caller = admission.caller
                return self._reject(context, start_response, admission)
            context.caller = admission
        return self._application(environ, start_response)

    def may_send_body(self, environ: dict[str, Any]) -> bool:
        """Return whether a request, whose head alone is here, is let in and takes a body.

        A caller without a key can't make the worker receive one. A request is counted once: what is
        found is kept for when it is served.
        """
        admission = self._admission(environ, self._prefix.split(environ))
        environ[_ADMISSION] = admission
        found = self._table.find(environ.get("PATH_INFO", ""))
        return not isinstance(admission, RequestRejected) and takes_body(
            found, environ["REQUEST_METHOD"]
        )

    def _admission(
        self, environ: dict[str, Any], elsewhere: RequestRejected | None
    ) -> str | RequestRejected | None:
        """Return the caller of a request, None where nobody needs to know, or why it is refused.

        ``elsewhere`` says why it is not for this service; only callers who are let in learn that.
        """
        guard = self._guard
        caller = None
        try:
            self._wait_budget.check(environ)
            if _ADMISSION in environ:
                known: str | RequestRejected | None = environ.pop(_ADMISSION)
                return known
            if not guard.is_idle:
                caller = guard.authorize(environ, "" if elsewhere else self._rules.match(environ))
        except RequestRejected as rejection:
            return rejection.with_traceback(None)  # which would hold the environ that holds it
        if elsewhere:
            elsewhere.caller = caller
            return elsewhere
        return caller

    def _reject(
        self, context: RequestContext, start_response: Any, rejection: RequestRejected
    ) -> Iterable[bytes]:
        if rejection.reason:
            self._lantern.metrics.refused_request(rejection.reason)
        body = problem_document(
            rejection.status,
            str(rejection),
            path=context.path,
            request_id=context.request_id,
            kind=rejection.kind,
        )
        headers = [
            ("Content-Type", PROBLEM_JSON),
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
    """Finds the rule of a request: in the table of routes, or else as Flask matches it."""

    def __init__(self, url_map: Map, table: RouteTable) -> None:
        self._map = url_map
        self._table = table

    def match(self, environ: dict[str, Any]) -> str:
        """Return the rule of a request; empty where there is none."""
        found = self._table.find(environ.get("PATH_INFO", ""))
        if found is not None:
            return found.rule
        subdomain = self._map.default_subdomain or ""
        try:
            adapter = self._map.bind_to_environ(environ, subdomain=subdomain)
            rule, _ = adapter.match(return_rule=True)
        except HTTPException:  # not there, not by this method, or redirected
            return ""
        return rule.rule


def init_app(app: Flask, lantern: Lantern, table: RouteTable) -> None:
    """Wrap ``app``, whatever wraps it already, and set the security headers of its responses."""
    admission = AdmissionMiddleware(app.wsgi_app, lantern, app.url_map, table)
    app.wsgi_app = admission  # type: ignore[method-assign]
    lantern.may_send_body = admission.may_send_body
    app.after_request(_secure)
    app.after_request(_let_go_of_file)


def _secure(response: Response) -> Response:
    for name, value in headers_for(request.method, response.mimetype or ""):
        response.headers.setdefault(name, value)
    return response


def _let_go_of_file(response: Response) -> Response:
    """Read a file whole: clients that don't read their answers would keep as many files open as
    the process may have, and memory is counted.
    """
    if response.direct_passthrough:
        response.direct_passthrough = False
        body = b"".join(response.iter_encoded())
        response.close()
        response.set_data(body)
    return response
