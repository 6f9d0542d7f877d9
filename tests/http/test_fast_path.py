"""The fast path and Flask give the same answers, lines and counts; only the way differs."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from app import create_app
from app.settings import load_settings
from app.worker.contract import MEMORY
from tests.conftest import _Lines

LIMITS = {"LANTERN_LIMITS__MAX_BODY_BYTES": "3000", "LANTERN_LIMITS__MAX_BATCH_SIZE": "5"}
_OWN = re.compile(rb'"(timestamp|request_id|loaded_at)":"[^"]*"')
_TIMED = re.compile(rb"(?m)^lantern_\w*seconds\w*(?<!_count)[ {].*\n")


class Sent(NamedTuple):
    """An answer as it goes out, without what no two answers share."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


def send(app: Flask, environ: dict[str, Any]) -> Sent:
    """Call the application as a server does."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started.append((status, headers))

    # Each gets a stream of its own: a body can be read once.
    body = environ["wsgi.input"].getvalue()
    parts = app(environ | {"wsgi.input": io.BytesIO(body)}, start_response)
    sent = b"".join(parts)
    getattr(parts, "close", lambda: None)()
    (status, headers) = started[-1]
    given = environ.get("HTTP_X_REQUEST_ID")
    kept = [(n, "new" if n == "X-Request-ID" and v != given else v) for n, v in headers]
    return Sent(status, kept, _OWN.sub(rb"\1", sent))


@pytest.fixture(scope="module")
def ways() -> tuple[Flask, Flask]:
    """The same application with the fast path and without."""
    short, flask = (
        create_app(load_settings({**LIMITS, "LANTERN_SERVER__FAST_PATH": setting}))
        for setting in ("true", "false")
    )
    return short, flask


@pytest.fixture(scope="module")
def lines() -> Iterator[_Lines]:
    handler = _Lines()
    loggers = [logging.getLogger(f"lantern.{n}") for n in ("request", "prediction", "errors")]
    for logger in loggers:
        logger.addHandler(handler)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)


def environ_of(path: str, body: bytes, **more: Any) -> dict[str, Any]:
    environ = EnvironBuilder(path, method="POST", data=body).get_environ()
    return environ | {"CONTENT_TYPE": "application/json"} | more


NAMED = "/models/campaign-response"
NAMES = (
    *("age", "income", "tenure_days", "num_purchases"),
    *("avg_transaction_value", "days_since_last_purchase"),
)
numbers = st.one_of(
    st.integers(-1000, 10**6), st.floats(0, 1e6), st.sampled_from([0, -0.0, 1e38, 44])
)
strange = st.one_of(
    st.none(), st.booleans(), st.text(max_size=3), st.just([]), st.sampled_from([1e39, 10**400])
)
plain_samples = st.fixed_dictionaries(dict.fromkeys(NAMES, numbers))
samples = st.one_of(
    plain_samples,
    st.fixed_dictionaries(dict.fromkeys(NAMES, st.one_of(numbers, strange))),
    st.dictionaries(st.sampled_from([*NAMES, "agee", "é/~"]), numbers),
    strange,
)
documents = st.one_of(
    st.builds(lambda s: {"features": s}, samples),
    st.builds(lambda s: {"samples": s}, st.lists(plain_samples, max_size=6)),
    st.builds(lambda s: {"samples": s}, st.lists(samples, max_size=6)),
    st.builds(lambda s: {"features": s, "more": 1}, samples),
    st.builds(lambda s: {"sample": s}, samples),
    strange,
)


def cut(body: bytes, at: int, byte: int) -> bytes:
    at %= len(body) + 1
    return body[:at] + bytes([byte]) + body[at + 1 :]


bodies = st.one_of(
    st.builds(lambda d: json.dumps(d).encode(), documents),
    st.builds(lambda d: json.dumps(d, indent=1, ensure_ascii=False).encode(), documents),
    st.builds(
        cut, documents.map(lambda d: json.dumps(d).encode()), st.integers(0), st.integers(0, 255)
    ),
    st.binary(max_size=20),
    st.just(b" " * 3001),
)


def tensors(sample: dict[str, float]) -> dict[str, Any]:
    inputs = [
        {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
        for name, value in sample.items()
    ]
    return {"id": "same", "inputs": inputs}


good = st.one_of(
    st.builds(lambda s: ("/v2" + NAMED + "/infer", tensors(s)), plain_samples),
    st.builds(lambda s: ("/v2" + NAMED + "/versions/1/infer", tensors(s)), plain_samples),
    st.builds(lambda s: ("/predict", {"features": s}), plain_samples),
    st.builds(lambda s: (NAMED + "/predict", {"features": s}), plain_samples),
    st.builds(lambda s: (NAMED + "/batch", {"samples": [s]}), plain_samples),
    st.builds(lambda s: ("/models/churn/predict", {"features": s}), plain_samples),
    st.builds(lambda s: ("/predict/batch", {"samples": s}), st.lists(plain_samples, max_size=5)),
).map(lambda case: (case[0], json.dumps(case[1]).encode()))
padded = good.map(lambda case: (case[0], case[1] + b" " * 3001))
cases = st.one_of(
    good, good, padded, st.tuples(st.sampled_from(["/predict", "/predict/batch"]), bodies)
)
hosts = st.one_of(
    st.sampled_from(["", "a b", "[::1", "[::1]:80", "x:y", "a..b", "a.", ".", "a" * 64, "a_b:80"]),
    st.text("aA0.-_:[]é@/?#%\x7f ", max_size=12),
    st.from_regex(r"\A[a-z0-9-]{1,3}(\.[a-z0-9-]{1,3}){0,12}(:[0-9]{1,7})?\Z"),
)
ids = st.sampled_from(["r-1", "", "a b", "x" * 128, "x" * 129, "\xe9"])


@st.composite
def environs(draw: st.DrawFn) -> dict[str, Any]:
    """Any request for a prediction, most of them plain in all but one thing."""
    environ = environ_of(*draw(cases))
    odd = draw(
        st.one_of(
            st.just({}),
            st.fixed_dictionaries({"HTTP_X_REQUEST_ID": ids}),
            st.fixed_dictionaries(
                {"REQUEST_METHOD": st.sampled_from(["GET", "HEAD", "PUT", "OPTIONS", "BREW"])}
            ),
            st.fixed_dictionaries(
                {
                    "PATH_INFO": st.sampled_from(
                        [
                            "/predict/",
                            "//predict",
                            "/Predict",
                            "/predict/batch/",
                            "/",
                            "/predict\xe9",
                        ]
                    )
                }
            ),
            st.fixed_dictionaries(
                {
                    "CONTENT_TYPE": st.sampled_from(
                        [
                            *("application/json; charset=utf-8", "APPLICATION/JSON", "text/plain"),
                            *(
                                "application/x+json",
                                "",
                                "application/json;",
                                "application/json, a/b",
                            ),
                        ]
                    )
                }
            ),
            st.fixed_dictionaries(
                {"CONTENT_LENGTH": st.sampled_from(["", "0", "1", "x", "-1", "+5", "99999", "007"])}
            ),
            st.fixed_dictionaries(
                {"HTTP_CONTENT_ENCODING": st.sampled_from(["identity", "gzip", ""])}
            ),
            st.just({"HTTP_TRANSFER_ENCODING": "chunked"}),
            st.just(
                {
                    "HTTP_TRANSFER_ENCODING": "chunked",
                    "CONTENT_LENGTH": "",
                    "wsgi.input_terminated": True,
                }
            ),
            st.fixed_dictionaries({"QUERY_STRING": st.sampled_from(["a=b", "%ff", "&&"])}),
            st.just({"SCRIPT_NAME": "/prefix"}),
            st.fixed_dictionaries({"HTTP_HOST": hosts}),
            st.just({"HTTP_EXPECT": "100-continue"}),
            st.fixed_dictionaries(
                {
                    "HTTP_UPGRADE": st.sampled_from(["websocket", "WebSocket", "h2c"]),
                    "HTTP_CONNECTION": st.sampled_from(["Upgrade", "keep-alive, Upgrade"]),
                }
            ),
            st.fixed_dictionaries({"HTTP_X_MODEL_VERSION": st.sampled_from(["1", "9", ""])}),
            st.just({"HTTP_X_ROUTING_KEY": "someone"}),
        )
    )
    return environ | odd


@settings(
    max_examples=1000,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(environs())
def test_any_request_gets_the_same_answer_and_leaves_the_same_lines(
    ways: tuple[Flask, Flask], lines: _Lines, environ: dict[str, Any]
) -> None:
    answers, logged = [], []
    short, flask = ways
    remembered = environ | {MEMORY: {}}
    for app, sent in ((short, environ), (short, remembered), (short, remembered), (flask, environ)):
        lines.lines.clear()
        answers.append(send(app, sent))
        logged.append(
            [
                {k: v for k, v in line.items() if k not in ("time", "milliseconds", "request_id")}
                for line in lines.lines
            ]
        )
        assert len({line.get("request_id") for line in lines.lines}) == 1
    assert not answers[0].status.startswith("500")
    for answer, line in zip(answers, logged, strict=True):
        assert answer == answers[0]
        assert line == logged[0]


def test_of_requests_with_the_same_head_each_is_answered_by_its_own_body(
    ways: tuple[Flask, Flask], sample: dict[str, float]
) -> None:
    memory: dict[str, Any] = {}
    younger, older = ({**sample, "age": age} for age in (20, 70))
    answers = []
    for document in (
        {"features": younger},
        {"features": older},
        {"features": {**younger, "age": "ab"}},
        {"features": younger},
    ):
        body = json.dumps(document).encode().ljust(400)
        answers.append(send(ways[0], environ_of("/predict", body, **{MEMORY: memory})))
    assert [answer.status[:3] for answer in answers] == ["200", "200", "422", "200"]
    assert answers[0] == answers[3]
    assert answers[0].body != answers[1].body
    # A body that is not as long as its head says is left to Flask.
    environ = environ_of("/predict", body, **{MEMORY: memory})
    environ["wsgi.input"] = io.BytesIO(body[:200])
    assert send(ways[0], environ).status[:3] == "400"


def test_both_ways_count_the_same(sample: dict[str, float]) -> None:
    expositions = []
    for setting in ("true", "false"):
        app = create_app(load_settings({"LANTERN_SERVER__FAST_PATH": setting}))
        client = app.test_client()
        for _ in range(3):
            client.post("/predict", json={"features": sample})
        client.post("/predict", json={"features": {**sample, "age": 200}})
        client.post("/predict", json={"features": {**sample, "age": "x"}})
        client.post("/predict/batch", json={"samples": [sample, sample]})
        client.get("/predict")
        exposition = app.extensions["lantern"].metrics.exposition()
        expositions.append(_TIMED.sub(b"", exposition))
    assert (
        b'lantern_http_requests_total{method="POST",route="/predict",status="200"} 4.0'
        in (expositions[0])
    )
    assert (
        b'lantern_predicted_rows_total{model="campaign-response",version="1"} 6.0' in expositions[0]
    )
    strip = re.compile(rb"(?m)^\w+_created.*\n")  # the time at which a metric was made
    assert strip.sub(b"", expositions[0]) == strip.sub(b"", expositions[1])


@pytest.mark.parametrize(("setting", "seen"), [("true", 1), ("false", 3)])
def test_only_what_succeeds_passes_flask_by_and_a_setting_decides(
    make_app: Callable[..., Flask], sample: dict[str, float], setting: str, seen: int
) -> None:
    app = make_app(SERVER__FAST_PATH=setting)
    paths = []
    app.before_request(lambda: paths.append(1))
    client = app.test_client()
    assert client.post("/predict", json={"features": sample}).status_code == 200
    assert client.post("/predict/batch", json={"samples": [sample]}).status_code == 200
    assert client.post("/predict", json={"features": {}}).status_code == 400
    assert len(paths) == seen


def test_a_body_that_may_still_be_on_its_way_is_left_to_flask(
    make_app: Callable[..., Flask], sample: dict[str, float]
) -> None:
    app = make_app()
    paths = []
    app.before_request(lambda: paths.append(1))
    environ = environ_of("/predict", json.dumps({"features": sample}).encode())
    environ["wsgi.input"] = io.BufferedReader(environ["wsgi.input"])
    status: list[str] = []
    parts = app(environ, lambda s, h, e=None: status.append(s))
    assert json.loads(b"".join(parts))["label"]
    assert status == ["200 OK"]
    assert paths
