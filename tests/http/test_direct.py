"""Direct calls give what WSGI gives, for all they answer, and leave the rest to it as it was."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from flask import Flask

from app.access.keys import PREDICT, create_key
from app.http.direct import DirectCalls
from app.http.extension import Lantern
from app.http.fast_path import FastPath
from app.worker.contract import DirectCall
from tests.http.test_fast_path import Sent, environ_of, send

HEAD = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE", "CONTENT_LENGTH")
PREDICTION = "/predict"


def lantern_of(app: Flask) -> Lantern:
    lantern: Lantern = app.extensions["lantern"]
    lantern.guard.set_sockets([("127.0.0.1", 8000)])
    for service in lantern.services:
        service.load()
    return lantern


def calls_of(app: Flask) -> DirectCalls:
    calls: DirectCalls = lantern_of(app).direct_calls
    return calls


def head_in(environ: dict[str, Any]) -> dict[str, Any]:
    """Return what the head alone says: the address and the rest belong to a connection."""
    return {key: value for key, value in environ.items() if key in HEAD or key.startswith("HTTP_")}


class Asked:
    """An application that is asked as the worker asks it, for requests with the same head."""

    def __init__(self, app: Flask, environ: dict[str, Any]) -> None:
        self.app = app
        self.environ = environ
        found = calls_of(app).find(head_in(environ))
        self.direct: DirectCall | None = None if found is None or found.takes_long else found
        self.environs_made = 0

    def directly(self) -> bytes | None:
        """Return what the direct call returns."""
        assert self.direct is not None
        body = self.environ["wsgi.input"].getvalue()
        made: dict[str, Any] = dict(self.environ)

        def make_environ() -> dict[str, Any]:
            self.environs_made += 1
            return made

        answer = self.direct(body, make_environ)
        self.left = made
        return answer

    def by_wsgi(self) -> Sent:
        """Return what WSGI answers to what the direct call left."""
        return send(self.app, self.left)


def fast_path_of(asked: Asked) -> FastPath:
    fast_path: FastPath = asked.direct._fast_path  # type: ignore[union-attr]
    return fast_path


def request_for(path: str, document: Any, **more: Any) -> dict[str, Any]:
    return environ_of(path, json.dumps(document).encode(), **more)


def split(answer: bytes) -> tuple[list[tuple[str, str]], Any]:
    fields, _, body = answer.partition(b"\r\n\r\n")
    lines = [line.partition(": ") for line in fields.decode().split("\r\n")]
    return [(name, value) for name, _, value in lines], json.loads(body)


@pytest.mark.parametrize("path", ["/predict", "/models/campaign-response/predict"])
@pytest.mark.parametrize("age", [44, 4_000])
def test_a_prediction_is_that_of_wsgi(
    make_app: Callable[..., Flask], sample: dict[str, float], path: str, age: int
) -> None:
    app = make_app()
    environ = request_for(path, {"features": sample | {"age": age}}, HTTP_X_REQUEST_ID="r-1")
    asked = Asked(app, environ)
    answer = asked.directly()
    assert answer is not None
    assert asked.environs_made == 0
    fields, document = split(answer)
    expected = send(app, environ)
    assert fields == [
        (name, str(len(answer.partition(b"\r\n\r\n")[2])) if name == "Content-Length" else value)
        for name, value in expected.headers
    ]
    assert dict(fields)["X-Request-ID"] == "r-1"
    assert ("X-Feature-Warnings" in dict(fields)) is (age == 4_000)
    document.pop("timestamp")
    assert document.keys() >= {"prediction", "label", "probabilities", "model_version"}
    assert b'"prediction":%d' % document["prediction"] in expected.body


def test_a_row_by_the_open_inference_protocol_is_answered_directly(
    make_app: Callable[..., Flask], sample: dict[str, float]
) -> None:
    inputs = [
        {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
        for name, value in sample.items()
    ]
    app = make_app()
    environ = request_for("/v2/models/campaign-response/infer", {"id": "a", "inputs": inputs})
    answer = Asked(app, environ).directly()
    assert answer is not None
    assert split(answer)[1] == json.loads(send(app, environ).body)


@pytest.mark.parametrize(
    "document", [{"features": {}}, {"feature": {}}, [], {"features": {"age": "x"}}]
)
def test_a_bad_request_is_tried_once_and_flask_says_why(
    make_app: Callable[..., Flask], document: Any
) -> None:
    app = make_app()
    environ = request_for(PREDICTION, document)
    asked = Asked(app, environ)
    assert asked.directly() is None
    assert asked.environs_made == 1
    assert asked.left["lantern.context"].is_tried
    answer, expected = asked.by_wsgi(), send(app, environ)
    assert answer == expected
    assert answer.status.startswith(("400", "422"))


def test_an_answer_that_is_streamed_is_made_once_and_sent_by_wsgi(
    make_app: Callable[..., Flask], sample: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(LIMITS__MAX_BATCH_SIZE="20000")
    environ = request_for("/predict/batch", {"samples": [sample] * 20_000})
    asked = Asked(app, environ)
    assert asked.directly() is None
    monkeypatch.setattr(fast_path_of(asked), "answer", None)  # it isn't asked again
    answer = asked.by_wsgi()
    assert answer.status.startswith("200")
    assert answer.body.count(b'"label"') == 20_000


@pytest.mark.parametrize(("method", "path"), [("GET", "/health"), ("PUT", PREDICTION)])
def test_what_is_no_post_is_not_looked_at(
    make_app: Callable[..., Flask], method: str, path: str
) -> None:
    environ = request_for(path, {}) | {"REQUEST_METHOD": method}
    assert calls_of(make_app()).find(head_in(environ)) is None


@pytest.mark.parametrize(
    "odd",
    [
        {"REQUEST_METHOD": "GET"},
        {"PATH_INFO": "/health"},
        {"PATH_INFO": "/nope"},
        {"HTTP_CONTENT_ENCODING": "gzip"},
        {"HTTP_TRANSFER_ENCODING": "chunked"},
        {"HTTP_X_REQUEST_TIMEOUT_MS": "soon"},
        {"CONTENT_LENGTH": "99999999999"},
    ],
    ids=str,
)
def test_other_requests_are_left_to_wsgi(
    make_app: Callable[..., Flask], sample: dict[str, float], odd: dict[str, str]
) -> None:
    assert Asked(make_app(), request_for(PREDICTION, {"features": sample}) | odd).direct is None


def test_a_body_of_another_type_is_left_to_flask(
    make_app: Callable[..., Flask], sample: dict[str, float]
) -> None:
    environ = request_for(PREDICTION, {"features": sample}, CONTENT_TYPE="text/csv")
    asked = Asked(make_app(), environ)
    assert asked.directly() is None
    assert asked.by_wsgi().status.startswith("415")


def test_middleware_of_the_owner_sees_every_request(
    make_app: Callable[..., Flask], sample: dict[str, float]
) -> None:
    app = make_app()
    inner = app.wsgi_app
    app.wsgi_app = partial(inner)  # type: ignore[method-assign]
    assert Asked(app, request_for(PREDICTION, {"features": sample})).direct is None


def test_what_wraps_the_whole_application_sees_every_request(
    make_app: Callable[..., Flask],
) -> None:
    app = make_app()
    assert calls_of(app).are_for(app)
    assert not calls_of(app).are_for(partial(app))


def test_without_the_fast_path_nothing_is_direct(make_app: Callable[..., Flask]) -> None:
    assert lantern_of(make_app(SERVER__FAST_PATH="false")).direct_calls is None


def test_cross_origin_answers_are_marked_and_so_not_direct(
    make_app: Callable[..., Flask], sample: dict[str, float]
) -> None:
    app = make_app(ACCESS__CORS_ORIGINS='["https://a.example"]')
    assert Asked(app, request_for(PREDICTION, {"features": sample})).direct is None


def test_a_key_is_asked_for(
    make_app: Callable[..., Flask], sample: dict[str, float], tmp_path: Any
) -> None:
    keys = tmp_path / "keys.json"
    _, text = create_key(keys, "client", [PREDICT])
    app = make_app(ACCESS__AUTH="keys", ACCESS__KEYS_FILE=str(keys))
    environ = request_for(PREDICTION, {"features": sample})
    answer = Asked(app, environ | {"HTTP_X_API_KEY": text}).directly()
    assert answer is not None
    for wrong in ({}, {"HTTP_X_API_KEY": "unknown"}):
        asked = Asked(app, environ | wrong)
        assert asked.directly() is None
        assert asked.by_wsgi().status.startswith("401")


def test_anybody_may_send_a_body_where_nobody_needs_a_key(
    make_app: Callable[..., Flask], sample: dict[str, float], tmp_path: Any
) -> None:
    environ = request_for(PREDICTION, {"features": sample})
    keys = {"ACCESS__AUTH": "keys", "ACCESS__KEYS_FILE": str(tmp_path / "keys.json")}
    for settings, expected in (({}, True), (keys, False), ({"LIMITS__RATE": "3/hour"}, False)):
        direct = Asked(make_app(**settings), environ).direct
        assert direct is not None
        assert direct.may_send_body is expected


def test_a_request_counts_towards_its_rate_once(
    make_app: Callable[..., Flask], sample: dict[str, float]
) -> None:
    app = make_app(LIMITS__RATE="3/hour")
    environ = request_for(PREDICTION, {"features": sample})
    assert Asked(app, environ).directly() is not None
    asked = Asked(app, request_for(PREDICTION, {"features": {}}))
    assert asked.directly() is None
    assert asked.by_wsgi().status.startswith("400")
    assert Asked(app, environ).directly() is not None
    asked = Asked(app, environ)
    assert asked.directly() is None
    assert asked.by_wsgi().status.startswith("429")


def test_what_a_model_makes_of_a_header_is_refused_by_the_worker(
    make_app: Callable[..., Flask], sample: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    environ = request_for(PREDICTION, {"features": sample})
    asked = Asked(app, environ)
    odd = (b"{}", [("Content-Type", "a/b\r\nX-Other: 1")])
    monkeypatch.setattr(fast_path_of(asked), "answer", lambda plain, context, body: odd)
    assert asked.directly() is None


def test_a_prefix_is_split_from_the_path(
    make_app: Callable[..., Flask], sample: dict[str, float]
) -> None:
    app = make_app(SERVER__PREFIX="/lantern")
    environ = request_for("/lantern/predict", {"features": sample})
    assert Asked(app, environ).directly() is not None
    assert Asked(app, request_for(PREDICTION, {"features": sample})).direct is None


def test_each_request_has_an_id_of_its_own(
    make_app: Callable[..., Flask], sample: dict[str, float]
) -> None:
    asked = Asked(make_app(), request_for(PREDICTION, {"features": sample}))
    first, second = (asked.directly() for _ in range(2))
    assert first is not None
    assert second is not None
    ids = [dict(split(each)[0])["X-Request-ID"] for each in (first, second)]
    assert ids[0] != ids[1]


def test_the_environ_is_that_of_the_connection_once_it_is_asked_for(
    make_app: Callable[..., Flask],
) -> None:
    asked = Asked(make_app(), request_for(PREDICTION, {"features": {}}, REMOTE_ADDR="192.0.2.1"))
    asked.directly()
    assert asked.left["lantern.context"].environ["REMOTE_ADDR"] == "192.0.2.1"
    assert isinstance(asked.left["wsgi.input"], io.BytesIO)
