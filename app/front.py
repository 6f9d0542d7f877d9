"""What stands in front of everything that is served: it begins a request, lets it in or refuses it.

Both ways of a request, the short path and Flask, lie behind it, so neither can be reached without
it, and neither's work is spent on what is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map

from app.access.cors import Cors
from app.access.headers import headers_for
from app.extension import Lantern
from app.http.prefix import PathPrefix
from app.model.service import ModelService
from app.problems import PROBLEM_JSON, problem_document
from app.refusals import Refused
from app.telemetry.requests import CALL, ID_HEADER, Call
from app.worker.environ import REFUSAL

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

_ADMISSION = "lantern.admission"
"""In the environ of a request whose body the worker asked about: its caller, or its refusal."""


class Front:
    """WSGI middleware that makes the `Call` of each request, and lets in those for which there is
    time, which are for this service and which the guard of ``parts`` lets in.
    """

    def __init__(self, application: Application, parts: Lantern, rules: Rules) -> None:
        self._application = application
        self._parts = parts
        self._guard = parts.guard
        self._wait_budget = parts.wait_budget
        self._rules = rules
        server = parts.settings.server
        self._prefix = PathPrefix(server.prefix, server.proxies)
        origins = parts.settings.access.cors_origins
        header = parts.settings.release.routing_header
        self._cors = Cors(origins, header) if origins else None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        elsewhere = self._prefix.split(environ)
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        if not path.isascii():  # WSGI has its bytes as latin-1 (PEP 3333)
            path = path.encode("latin-1", "replace").decode(errors="replace")
        call = Call(environ["REQUEST_METHOD"], path, environ)
        environ[CALL] = call
        cors = self._cors
        if cors is not None:
            start_response = cors.marking(environ, start_response)
            if cors.is_preflight(environ):
                return self._answer(call, start_response, 204, cors.preflight_headers())
        guard = self._guard
        if not guard.is_told:
            guard.meet(environ["SERVER_NAME"])
        # What the worker refused, it has not read; it stays refused for that.
        if REFUSAL not in environ:
            admission = self._admission(environ, elsewhere)
            if isinstance(admission, Refused):
                if not elsewhere:
                    call.route = self._rules.match(environ) or call.route
                call.caller = admission.caller
                return self._refuse(call, start_response, admission)
            call.caller = admission
        return self._application(environ, start_response)

    def may_send_body(self, environ: dict[str, Any]) -> bool:
        """Return whether a request, whose head alone is here, is let in and takes a body.

        A caller without a key can't make the worker receive one. A request is counted once: what is
        found is kept for when it is served.
        """
        admission = self._admission(environ, self._prefix.split(environ))
        environ[_ADMISSION] = admission
        return not isinstance(admission, Refused) and self._rules.takes_body(environ)

    def _admission(
        self, environ: dict[str, Any], elsewhere: Refused | None
    ) -> str | Refused | None:
        """Return the caller of a request, None where nobody needs to know, or why it is refused.

        ``elsewhere`` says why it is not for this service; only callers who are let in learn that.
        """
        guard = self._guard
        caller = None
        try:
            self._wait_budget.check(environ)
            if _ADMISSION in environ:
                known: str | Refused | None = environ.pop(_ADMISSION)
                return known
            if not guard.is_idle:
                caller = guard.admit(environ, "" if elsewhere else self._rules.match(environ))
        except Refused as refusal:
            return refusal.with_traceback(None)  # which would hold the environ that holds it
        if elsewhere:
            elsewhere.caller = caller
            return elsewhere
        return caller

    def _refuse(self, call: Call, start_response: Any, refusal: Refused) -> Iterable[bytes]:
        if refusal.reason:
            self._parts.metrics.refused_request(refusal.reason)
        body = problem_document(
            refusal.status,
            str(refusal),
            path=call.path,
            request_id=call.request_id,
            kind=refusal.kind,
        )
        headers = [
            ("Content-Type", PROBLEM_JSON),
            ("Content-Length", str(len(body))),
            *refusal.headers,
        ]
        return self._answer(call, start_response, refusal.status, headers, body)

    def _answer(
        self,
        call: Call,
        start_response: Any,
        status: int,
        headers: list[tuple[str, str]],
        body: bytes = b"",
    ) -> Iterable[bytes]:
        more = headers_for(call.method, PROBLEM_JSON)
        start_response(
            f"{status} {HTTPStatus(status).phrase}",
            [*headers, *more, (ID_HEADER, call.request_id)],
        )
        call.end(status, self._parts.metrics)
        return [] if call.method == "HEAD" or not body else [body]


_WITHOUT_BODY = {"GET", "HEAD", "OPTIONS"}


class Rules:
    """The rules of the application's routes, matched as Flask matches them.

    Paths of rules without a variable, and those of the models that are here, are looked up; only
    others go through werkzeug's matcher.
    """

    def __init__(self, url_map: Map, services: Iterable[ModelService]) -> None:
        self._map = url_map
        self._methods = {rule.rule: rule.methods or set() for rule in url_map.iter_rules()}
        self._fixed: dict[str, str] = {}
        self._taking: set[tuple[str, str]] = set()
        self._add((rule.rule, rule.rule) for rule in url_map.iter_rules() if not rule.arguments)
        self._unnamed = list(services)
        self._add_named()

    def _add(self, paths: Iterable[tuple[str, str]]) -> None:
        for path, rule in paths:
            self._fixed[path] = rule
            self._taking |= {(method, path) for method in self._methods[rule] - _WITHOUT_BODY}

    def _add_named(self) -> None:
        """Add the paths of the models whose names are known by now."""
        for service in [service for service in self._unnamed if service.name]:
            self._unnamed.remove(service)
            self._add(
                (f"/models/{service.name}/{verb}", f"/models/<name>/{verb}")
                for verb in ("predict", "batch", "info")
            )

    def takes_body(self, environ: dict[str, Any]) -> bool:
        """Return whether there is something for a request of this method that reads a body."""
        if self._unnamed:
            self._add_named()
        return (environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")) in self._taking

    def match(self, environ: dict[str, Any]) -> str:
        """Give the rule of a request; empty where there is none."""
        fixed = self._fixed.get(environ.get("PATH_INFO", ""))
        if fixed is not None:
            return fixed
        subdomain = self._map.default_subdomain or ""
        try:
            adapter = self._map.bind_to_environ(environ, subdomain=subdomain)
            rule, _ = adapter.match(return_rule=True)
        except HTTPException:  # not there, not by this method, or redirected
            return ""
        return rule.rule


def init_app(app: Flask, parts: Lantern) -> None:
    """Put the front before ``app``, whatever is there by now, and its headers on its answers."""
    rules = Rules(app.url_map, parts.models)
    front = Front(app.wsgi_app, parts, rules)
    app.wsgi_app = front  # type: ignore[method-assign]
    parts.may_send_body = front.may_send_body
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
