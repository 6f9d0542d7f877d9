"""What an owner's hooks, views and extensions see is what Flask documents, where Lantern replaces
parts of it; and a prediction that takes this way does its work once.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
from flask import Blueprint, Flask, after_this_request, current_app, g, request, session, url_for
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import Map, Rule
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Response as WerkzeugResponse

from app.http import body as bodies
from app.http.application import Application
from app.http.response import Response
from app.http.url_map import UrlMap
from tests.http.test_fast_path import environ_of


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """An application whose hooks see predictions, still without any."""
    return make_app(SERVER__FAST_PATH="false")


@pytest.fixture
def body(sample: dict[str, float]) -> bytes:
    return json.dumps({"features": sample}).encode()


def streams(body: bytes) -> Iterator[dict[str, Any]]:
    """Yield the ways in which servers hand a body over: whole, from a socket, and in chunks."""
    yield {}
    yield {"wsgi.input": io.BufferedReader(io.BytesIO(body))}  # type: ignore[arg-type]
    yield {
        "wsgi.input": io.BufferedReader(io.BytesIO(body)),  # type: ignore[arg-type]
        "wsgi.input_terminated": True,
        "HTTP_TRANSFER_ENCODING": "chunked",
        "CONTENT_LENGTH": "",
    }


def send(app: Flask, environ: dict[str, Any]) -> tuple[str, dict[str, str], bytes]:
    """Call the application as a server does: a body that has arrived comes as `io.BytesIO`."""
    if type(environ["wsgi.input"]) is not io.BufferedReader:
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read())
    started: list[tuple[str, list[tuple[str, str]]]] = []
    parts = app(environ, lambda s, h, e=None: started.append((s, h)))
    sent = b"".join(parts)
    getattr(parts, "close", lambda: None)()
    ((status, headers),) = started
    assert len({name.lower() for name, _ in headers}) == len(headers)
    return status, dict(headers), sent


@pytest.mark.parametrize("way", range(3))
@pytest.mark.parametrize("reads", ["before", "after", "both", "nobody"])
def test_hooks_before_and_after_the_view_may_read_the_body(
    app: Flask, body: bytes, way: int, reads: str
) -> None:
    seen: list[Any] = []

    @app.before_request
    def before() -> None:
        if reads in ("before", "both"):
            seen.append(request.get_json())

    @app.after_request
    def after(response: flask.Response) -> flask.Response:
        if reads in ("after", "both"):
            seen.append(request.get_json())
        return response

    status, _, sent = send(app, environ_of("/predict", body) | list(streams(body))[way])
    assert status == "200 OK"
    assert json.loads(sent)["label"]
    count = {"before": 1, "after": 1, "both": 2, "nobody": 0}[reads]
    assert seen == [json.loads(body)] * count


@pytest.mark.parametrize("way", range(3))
def test_a_hook_reads_no_more_of_a_body_than_a_view(
    make_app: Callable[..., Flask], body: bytes, way: int
) -> None:
    app = make_app(SERVER__FAST_PATH="false", LIMITS__MAX_BODY_BYTES="1000")
    app.before_request(lambda: request.get_data() and None)
    for size, status in ((1000, "200"), (1001, "413")):
        padded = body.ljust(size)
        sent = send(app, environ_of("/predict", padded) | list(streams(padded))[way])
        assert sent[0].startswith(status)
        assert sent[1]["X-Request-ID"]


def test_hooks_see_the_request_as_flask_documents_it(app: Flask, body: bytes) -> None:
    seen: dict[str, Any] = {}

    @app.before_request
    def before() -> None:
        g.began = True
        seen["before"] = (
            *(request.method, request.path, request.endpoint, request.blueprint),
            *(request.view_args, request.host, request.url, str(request.url_rule)),
            *(request.headers["User-Agent"], dict(request.args), request.content_length),
            *(current_app.name, url_for("predict.predict"), url_for("info.index", _external=True)),
        )

    @app.after_request
    def after(response: flask.Response) -> flask.Response:
        seen["after"] = (g.began, response.status_code, response.mimetype, response.get_json())
        response.headers["X-Own"] = "1"
        return response

    @app.teardown_request
    def down(error: BaseException | None) -> None:
        seen["down"] = (g.began, error, request.path)

    environ = environ_of("/models/campaign-response/predict", body, QUERY_STRING="a=b")
    environ |= {"HTTP_HOST": "Example.org:80", "HTTP_USER_AGENT": "x"}
    status, headers, sent = send(app, environ)
    path = "/models/campaign-response/predict"
    assert seen["before"] == (
        *("POST", path, "predict.predict", "predict", {"name": "campaign-response"}),
        *("Example.org", f"http://example.org{path}?a=b", "/models/<name>/predict", "x"),
        *({"a": "b"}, len(body), app.name, "/predict", "http://example.org/"),
    )
    assert seen["after"] == (True, 200, "application/json", json.loads(sent))
    assert seen["down"] == (True, None, path)
    assert status == "200 OK"
    assert headers["X-Own"] == "1"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_hooks_run_once_and_in_the_order_of_flask(
    app: Flask, body: bytes, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    seen: list[str] = []

    def after(name: str) -> Callable[[flask.Response], flask.Response]:
        def hook(response: flask.Response) -> flask.Response:
            seen.append(name)
            return response

        return hook

    def before(name: str) -> Callable[[], None]:
        return lambda: seen.append(name)

    app.before_request(before("before 1"))
    app.before_request(before("before 2"))
    app.before_request(lambda: after_this_request(after("after this")) and None)
    app.after_request(after("after 1"))
    app.after_request(after("after 2"))
    app.teardown_request(lambda error: seen.append("down 1"))
    app.teardown_request(lambda error: seen.append("down 2"))
    app.teardown_appcontext(lambda error: seen.append("down context"))
    flask.request_started.connect(lambda *_, **__: seen.append("started"), app, weak=False)
    flask.request_finished.connect(lambda *_, **__: seen.append("finished"), app, weak=False)
    flask.request_tearing_down.connect(
        lambda *_, **__: seen.append("tearing down"), app, weak=False
    )
    assert send(app, environ_of("/predict", body))[0] == "200 OK"
    assert seen == [
        *("started", "before 1", "before 2", "after this", "after 2", "after 1", "finished"),
        *("down 2", "down 1", "tearing down", "down context"),
    ]
    assert [line["message"] for line in log_lines()] == ["prediction", "request"]


def test_a_response_of_a_hook_takes_the_place_of_a_prediction(
    app: Flask, body: bytes, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    app.before_request(lambda: ({"not": "today"}, 402, {"X-Own": "1"}))
    environ = environ_of("/predict", body, HTTP_X_REQUEST_ID="r-1")
    status, headers, sent = send(app, environ)
    assert (status, json.loads(sent)) == ("402 PAYMENT REQUIRED", {"not": "today"})
    assert (headers["X-Own"], headers["X-Request-ID"]) == ("1", "r-1")
    (line,) = log_lines()
    assert (line["status"], line["path"], line["request_id"]) == (402, "/predict", "r-1")


def test_a_hook_may_change_or_replace_the_response(
    app: Flask, body: bytes, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    @app.after_request
    def after(response: flask.Response) -> flask.Response:
        if request.args:
            return app.make_response(("ä", 201, {"X-Request-ID": "mine", "Cache-Control": "a"}))
        response.status_code = 203
        response.set_data(response.get_data() + b" ")
        response.headers["x-content-type-options"] = "own"
        response.set_cookie("a", "b")
        return response

    status, headers, sent = send(app, environ_of("/predict", body))
    assert status.startswith("203 ")
    assert int(headers["Content-Length"]) == len(sent)
    assert sent.endswith(b"\n ")
    assert headers["x-content-type-options"] == "own"
    assert headers["Set-Cookie"].startswith("a=b")
    status, headers, sent = send(app, environ_of("/predict", body, QUERY_STRING="a=b"))
    assert (status, sent) == ("201 CREATED", "ä".encode())
    assert headers["X-Request-ID"] == log_lines()[-1]["request_id"] != "mine"
    assert [line["status"] for line in log_lines() if line["message"] == "request"] == [203, 201]


@pytest.mark.parametrize("place", ["before_request", "after_request", "teardown_request"])
def test_a_hook_that_fails_is_answered_and_logged_once(
    app: Flask, body: bytes, place: str, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    getattr(app, place)(broken)
    if place == "teardown_request":  # which Flask does not catch
        with pytest.raises(ZeroDivisionError):
            send(app, environ_of("/predict", body))
        return
    status, headers, _ = send(app, environ_of("/predict", body))
    assert status.startswith("500 ")
    assert headers["X-Request-ID"]
    assert [line["status"] for line in log_lines() if line["message"] == "request"] == [500]


def test_an_owner_s_blueprint_error_handler_and_view_work(app: Flask, body: bytes) -> None:
    class Own(Exception):
        pass

    seen: list[Any] = []
    blueprint = Blueprint("own", __name__, url_prefix="/own")
    blueprint.before_request(lambda: seen.append(request.blueprints))
    blueprint.teardown_request(seen.append)
    app.register_error_handler(Own, lambda error: ("own", 418))

    @blueprint.post("/<int:number>")
    def view(number: int) -> Any:
        if number:
            raise Own
        return {"got": request.get_json()["features"]["age"], "at": url_for(".view", number=2)}

    app.register_blueprint(blueprint)
    sent = send(app, environ_of("/own/0", body))[2]
    assert json.loads(sent) == {"got": json.loads(body)["features"]["age"], "at": "/own/2"}
    assert send(app, environ_of("/own/1", body))[0].startswith("418")
    assert seen == [["own"], None, ["own"], None]
    assert send(app, environ_of("/predict", body))[0] == "200 OK"
    assert len(seen) == 4


def test_what_is_called_on_close_is_called_once_the_body_is_sent(app: Flask, body: bytes) -> None:
    closed: list[int] = []

    @app.after_request
    def after(response: flask.Response) -> flask.Response:
        response.call_on_close(lambda: closed.append(1))
        return response

    environ = environ_of("/predict", body)
    parts = app(environ | {"wsgi.input": io.BytesIO(body)}, lambda *_: None)
    assert closed == []
    assert json.loads(b"".join(parts))["label"]
    parts.close()  # type: ignore[attr-defined]
    assert closed == [1]


def test_without_a_secret_key_a_session_is_empty_and_says_what_is_missing(
    app: Flask, body: bytes
) -> None:
    app.before_request(lambda: None if session.get("a") is None else "never")
    status, headers, _ = send(app, environ_of("/predict", body))
    assert status == "200 OK"
    assert not {"Vary", "Set-Cookie"} & set(headers)
    failures: list[str] = []

    def write() -> None:
        try:
            session["a"] = 1
        except RuntimeError as error:
            failures.append(str(error))

    app.before_request_funcs[None].append(write)
    assert send(app, environ_of("/predict", body))[0] == "200 OK"
    assert "secret key" in failures[0]


def test_a_session_is_kept_in_a_cookie_if_there_is_a_secret_key(app: Flask, body: bytes) -> None:
    app.secret_key = "not a secret"
    counts: list[int] = []

    @app.before_request
    def count() -> None:
        if request.args:
            session["count"] = session.get("count", 0) + 1
            counts.append(session["count"])

    def visit(**more: str) -> dict[str, str]:
        return send(app, environ_of("/predict", body, **more))[1]

    assert not {"Vary", "Set-Cookie"} & set(visit())
    for _ in range(2):
        headers = visit(QUERY_STRING="a")
        assert headers["Vary"] == "Cookie"
    cookie = headers["Set-Cookie"].partition(";")[0]
    visit(QUERY_STRING="a", HTTP_COOKIE=cookie)
    visit(QUERY_STRING="a", HTTP_COOKIE="session=forged")
    assert counts == [1, 1, 2, 1]
    assert not {"Vary", "Set-Cookie"} & set(visit(HTTP_COOKIE=cookie))


def test_hosts_that_are_not_trusted_are_refused(app: Flask, body: bytes) -> None:
    app.config["TRUSTED_HOSTS"] = [".example.org"]
    for host, status in [("a.example.org", "200"), ("example.com", "400"), ("a b", "400")]:
        for _ in range(2):
            assert send(app, environ_of("/predict", body, HTTP_HOST=host))[0].startswith(status)


def test_a_prediction_is_made_once_from_a_body_that_is_read_once(
    app: Flask, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks: list[int] = []
    reads: list[int] = []
    runs: list[int] = []
    app.before_request(lambda: hooks.append(1))
    read, runtime = bodies.arrived_body, app.extensions["lantern"].default_service.rollout
    runtime = runtime.stable.runtime
    run = runtime.run
    monkeypatch.setattr(bodies, "arrived_body", lambda *a: reads.append(1) or read(*a))
    monkeypatch.setattr(runtime, "run", lambda inputs: runs.append(1) or run(inputs))
    # Neither marshmallow nor Flask's JSON has a part in a good one.
    monkeypatch.setattr("marshmallow.Schema.load", None)
    monkeypatch.setattr("marshmallow.Schema.dump", None)
    monkeypatch.setattr(type(app.json), "loads", None)
    monkeypatch.setattr(type(app.json), "dumps", None)
    assert send(app, environ_of("/predict", body))[0] == "200 OK"
    assert (hooks, reads, runs) == ([1], [1], [1])


PATHS = [
    *("/", "/a", "/a/", "//a", "/b", "/b/", "/c/1", "/c/x", "/d", "/d/", "/e", "/f", "/g", ""),
    *("/\xc3\xa9", "/a?b", "/h/", "/h"),
]
HOSTS = ["x", "X:80", "x:81", "é.org", "b\xfccher.de", "a b", "", "[::1]:80", "1.2.3.4:5", "a" * 70]


def rules() -> list[Rule]:
    return [
        *(Rule("/", endpoint="root"), Rule("/a", endpoint="a", methods=["POST"])),
        *(Rule("/b/", endpoint="b"), Rule("/c/<int:n>", endpoint="c")),
        *(
            Rule("/c/<n>", endpoint="c2", methods=["GET"]),
            Rule("/d", endpoint="d", methods=["GET"]),
        ),
        *(Rule("/d", endpoint="d2", methods=["PUT"]), Rule("/e", endpoint="e", redirect_to="/a")),
        *(Rule("/f", endpoint="f", defaults={"k": 1}), Rule("/g", endpoint="g", websocket=True)),
        Rule("/h/", endpoint="h", strict_slashes=False),
    ]


def outcome(url_map: Map, environ: dict[str, Any]) -> object:
    """Return what a map makes of a request: a match, or an error."""
    try:
        adapter = url_map.bind_to_environ(environ, subdomain="")
        rule, values = adapter.match(return_rule=True)
    except HTTPException as error:
        return type(error), getattr(error, "new_url", None), getattr(error, "valid_methods", None)
    state = {k: v for k, v in vars(adapter).items() if k != "map"}
    return rule.endpoint, values, state, adapter.build("a", force_external=True, method="POST")


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT", "OPTIONS", "post", "BREW"])
def test_the_url_map_matches_as_werkzeug_does(method: str) -> None:
    known, ours = Map(rules()), UrlMap(rules())
    for path in PATHS:
        for host in HOSTS:
            more = {"PATH_INFO": path, "REQUEST_METHOD": method, "HTTP_HOST": host}
            environ = EnvironBuilder().get_environ() | more
            expected = outcome(known, environ)
            for _ in range(3):
                assert outcome(ours, environ) == expected
    for more in (
        {"HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "Upgrade"},
        {"wsgi.url_scheme": "https", "HTTP_HOST": "x:443"},
        {"SCRIPT_NAME": "/p"},
        {"QUERY_STRING": "a=\xe9"},
    ):
        for path in ("/d", "/g", "/b"):
            environ = EnvironBuilder().get_environ() | {"PATH_INFO": path} | more
            assert outcome(ours, environ) == outcome(known, environ)


def test_the_url_map_remembers_only_its_own_rules_and_forgets_them_for_new_ones() -> None:
    url_map = UrlMap(rules())

    def match(path: str, method: str = "GET") -> tuple[str, dict[str, Any]]:
        environ = EnvironBuilder(path, method=method).get_environ()
        rule, values = url_map.bind_to_environ(environ, subdomain="").match(return_rule=True)
        return rule.endpoint, values

    for number in range(300):
        assert match(f"/c/{number}") == ("c", {"n": number})
        with contextlib.suppress(MethodNotAllowed):
            match("/d", f"M{number}")
    assert url_map.matches == {}
    _, values = match("/d")
    values["n"] = 1  # as url_value_preprocessor may
    assert match("/d") == ("d", {})
    assert match("/d", "PUT") == ("d2", {})
    assert len(url_map.matches) == 2
    url_map.add(Rule("/own", endpoint="own"))
    assert url_map.matches == {}
    assert match("/own") == ("own", {})


RESPONSES: dict[str, Callable[[type[WerkzeugResponse]], WerkzeugResponse]] = {
    "bytes": lambda c: c(b"abc"),
    "text": lambda c: c("ä", mimetype="text/plain"),
    "strings": lambda c: c(["ä", b"b"], headers={"Content-Length": "3"}),
    "nothing": lambda c: c(),
    "stream": lambda c: c(iter([b"a", b"b"])),
    "no content": lambda c: c(b"", 204),
    "not modified": lambda c: c(b"abc", 304, headers={"ETag": "x", "Content-Language": "de"}),
    "informational": lambda c: c(b"", 103),
    "redirect": lambda c: c(b"", 302, headers={"Location": "/ä"}),
    "location": lambda c: c(b"a", 201, headers={"content-location": "/ö"}),
    "own status": lambda c: c(b"abc", "299 Fine"),
    "cookies": lambda c: c(b"a", headers=[("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")]),
    "no length": lambda c: _without_length(c(b"abc")),
}


def _without_length(response: WerkzeugResponse) -> WerkzeugResponse:
    del response.headers["Content-Length"]
    return response


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("name", RESPONSES)
def test_a_response_is_sent_as_that_of_flask(name: str, method: str) -> None:
    sent = []
    for kind in (flask.Response, Response):
        environ = EnvironBuilder(method=method).get_environ()
        parts, status, headers = RESPONSES[name](kind).get_wsgi_response(environ)
        sent.append((list(parts), status, headers))
    assert sent[0] == sent[1]


def test_a_coroutine_is_known_however_it_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Application(__name__)
    monkeypatch.setattr(app, "async_to_sync", lambda func: (func, "run"))

    async def view() -> None:
        pass

    def plain() -> None:
        pass

    class Views:
        async def view(self) -> None:
            pass

        def plain(self) -> None:
            pass

    @functools.wraps(view)
    def wrapped() -> None:
        pass

    for func in (view, functools.partial(view), Views().view):
        assert app.ensure_sync(func) == (func, "run")
    for func in (plain, functools.partial(plain), Views().plain, wrapped, len, lambda: None):
        assert app.ensure_sync(func) is func


@pytest.fixture
def large(make_app: Callable[..., Flask]) -> Flask:
    """An application whose answer to `many` is encoded while it is sent."""
    return make_app(SERVER__FAST_PATH="false", LIMITS__MAX_BATCH_SIZE="40000")


def many(sample: dict[str, float]) -> dict[str, Any]:
    return environ_of("/predict/batch", json.dumps({"samples": [sample] * 40_000}).encode())


def served(app: Flask) -> dict[str, float]:
    """Return how many requests for the batch have ended, by status."""
    totals = app.extensions["lantern"].metrics.registry.totals()["lantern_http_requests_total"]
    return {labels[2]: value for labels, (value,) in totals.items() if "batch" in labels[1]}


def test_a_stream_ends_its_request_once_it_is_sent(large: Flask, sample: dict[str, float]) -> None:
    status, _, sent = send(large, many(sample))
    assert status == "200 OK"
    assert len(json.loads(sent)["predictions"]) == 40_000
    assert served(large) == {"200": 1}


@pytest.mark.parametrize("replaces", ["raises", "sets data", "reads it", "another response"])
def test_a_request_ends_whatever_a_hook_makes_of_a_stream(
    large: Flask, sample: dict[str, float], replaces: str
) -> None:
    @large.after_request
    def replace(response: flask.Response) -> flask.Response:
        if replaces == "raises":
            raise HTTPException("no", WerkzeugResponse("no", 503))
        if replaces == "reads it":
            response.get_data()
        if replaces == "sets data":
            response.set_data(b"{}")
        return flask.Response("{}") if replaces == "another response" else response

    status, _, _ = send(large, many(sample))
    assert served(large) == {status[:3]: 1}


def test_a_request_ends_if_the_server_refuses_a_header_of_a_hook(app: Flask, body: bytes) -> None:
    def refuse(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        raise ValueError("invalid header")

    environ = environ_of("/predict", body)
    with pytest.raises(ValueError, match="invalid header"):
        app(environ, refuse)
    totals = app.extensions["lantern"].metrics.registry.totals()["lantern_http_requests_total"]
    assert {labels[2]: value for labels, (value,) in totals.items()} == {"500": 1}
