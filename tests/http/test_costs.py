"""A body that is going to be refused costs work and memory in proportion, and leaves nothing.

Counts of work, not times: what is made, called and collected for bodies of every shape of which the
fuzz run measures the time.
"""

from __future__ import annotations

import gc
import io
import json
import logging
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from flask import Flask

from app import create_app
from app.model.errors import MAX_FAULTS, Fault
from app.protocols.native.schemas import RequestBody
from app.settings import load_settings
from tests.http.test_fast_path import environ_of
from trials.expected import INFER
from trials.fuzz.costs import SHAPES, VALID, Shape

SIZE = 400_000
shapes = pytest.mark.parametrize("shape", [VALID, *SHAPES], ids=lambda shape: shape.name)


def call(app: Flask, path: str, body: bytes) -> tuple[int, bytes]:
    """Send a body as the keep-alive worker does."""
    environ = environ_of(path, b"")
    environ |= {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
    statuses: list[str] = []
    answer = app(environ, lambda status, headers, exc_info=None: statuses.append(status))
    sent = b"".join(answer)
    getattr(answer, "close", lambda: None)()
    return int(statuses[-1][:3]), sent


@pytest.fixture(scope="module")
def services() -> Iterator[dict[str, Flask]]:
    """The application with default settings, by each way, quiet, and warm."""
    made = {
        way: create_app(load_settings({"LANTERN_SERVER__FAST_PATH": setting}))
        for way, setting in (("fast path", "true"), ("Flask", "false"))
    }
    logger = logging.getLogger("lantern")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    for service in made.values():
        for shape in (VALID, *SHAPES):
            call(service, shape.path, shape.body(20_000))
    gc.collect()
    gc.freeze()  # what was there before need not be looked through again and again
    yield made
    gc.unfreeze()
    logger.setLevel(level)


@pytest.fixture(params=["fast path", "Flask"])
def service(request: pytest.FixtureRequest, services: dict[str, Flask]) -> Flask:
    return services[request.param]


@pytest.fixture
def without_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@shapes
def test_nothing_of_a_body_is_left_though_no_garbage_is_collected(
    service: Flask, shape: Shape, without_collection: None
) -> None:
    body = shape.body(SIZE)
    status, _ = call(service, shape.path, body)
    assert status in {200, 400, 413, 422}
    references, blocks = sys.getrefcount(body), sys.getallocatedblocks()
    assert call(service, shape.path, body)[0] == status
    assert sys.getrefcount(body) == references
    # Neither the document nor its errors: a request leaves a few blocks, such as a log line's.
    assert sys.getallocatedblocks() - blocks < 500
    assert gc.collect() < 50  # what Werkzeug's matcher leaves in circles


@shapes
def test_a_body_takes_memory_calls_and_collections_in_proportion(
    service: Flask, shape: Shape
) -> None:
    body = shape.body(SIZE)
    collections: list[int] = []
    calls = [0]

    def collected(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            collections.append(info["generation"])

    def called(frame: Any, event: str, argument: Any) -> None:
        calls[0] += event in ("call", "c_call")

    gc.collect()
    gc.callbacks.append(collected)
    tracemalloc.start()
    try:
        call(service, shape.path, body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.callbacks.remove(collected)
    # An object of many names is the dearest; a document of small arrays would take 40 times.
    assert peak < 16 * len(body) + 1_000_000
    assert len(collections) < 30
    sys.setprofile(called)
    try:
        call(service, shape.path, body)
    finally:
        sys.setprofile(None)
    assert calls[0] < 50_000  # few for a row, which is 128 bytes, and for nothing smaller


@shapes
def test_no_more_faults_are_made_than_are_told(
    service: Flask, shape: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    init = Fault.__init__

    def counting(self: Fault, *arguments: Any, **named: Any) -> None:
        made.append(arguments)
        init(self, *arguments, **named)

    monkeypatch.setattr(Fault, "__init__", counting)
    _, sent = call(service, shape.path, shape.body(SIZE))
    # Found, moved to its row, moved into the body.
    assert len(made) <= 3 * MAX_FAULTS
    assert len(json.loads(sent).get("errors", ())) <= MAX_FAULTS


@pytest.mark.parametrize(
    "shape", [each for each in SHAPES if each.path != INFER], ids=lambda shape: shape.name
)
def test_a_body_is_read_once(service: Flask, shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the fast path and again by Flask; and never into a document of Python's."""
    loads: list[bytes] = []
    parsed: list[Any] = []
    load, parse = RequestBody.load, orjson.loads

    def loading(self: RequestBody, body: bytes) -> Any:
        loads.append(body)
        return load(self, body)

    def parsing(body: bytes) -> None:
        parsed.append(parse(body))

    monkeypatch.setattr(RequestBody, "load", loading)
    monkeypatch.setattr(orjson, "loads", parsing)
    monkeypatch.setattr(json, "loads", None)
    call(service, shape.path, shape.body(20_000))
    assert len(loads) == 1
    assert parsed == []


def test_values_that_the_network_overflows_on_are_run_once(
    make_app: Callable[..., Flask], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from tests.model.test_network import overflowing_checkpoint

    torch.save(overflowing_checkpoint(), tmp_path / "model.pt")
    app = make_app(MODEL__PATH=str(tmp_path), MODEL__FEATURE_NAMES="a,b,c,d")
    sample = dict.fromkeys("abcd", 3e38)
    assert call(app, "/predict", json.dumps({"features": sample}).encode())[0] == 422
    runtime = app.extensions["lantern"].default_service.rollout.stable.runtime
    runs: list[int] = []
    run = runtime.run

    def running(inputs: Any) -> Any:
        runs.append(len(inputs["features"]))
        return run(inputs)

    monkeypatch.setattr(runtime, "run", running)
    status, sent = call(app, "/predict/batch", json.dumps({"samples": [sample] * 500}).encode())
    assert status == 422
    assert len(json.loads(sent)["errors"]) == MAX_FAULTS
    assert runs == [500]


def test_an_unexpected_failure_on_the_short_path_is_answered_and_logged_with_its_place(
    app: Flask,
    sample: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
    log_lines: Callable[[], list[dict[str, Any]]],
) -> None:
    body = json.dumps({"features": sample}).encode()
    assert call(app, "/predict", body)[0] == 200
    times: list[int] = []

    def broken(*_: Any) -> None:
        times.append(1)
        raise ZeroDivisionError("broken on purpose")

    monkeypatch.setattr("app.http.handlers.choose", broken)
    assert call(app, "/predict", body)[0] == 500
    assert len(times) == 1
    (error,) = [line for line in log_lines() if line["level"] == "ERROR"]
    assert "in broken" in error["exc_info"]


def test_threads_that_refuse_at_once_refuse_each_their_own(app: Flask) -> None:
    """As under gthread: nothing about a refusal is the process's."""
    wanted = {shape: call(app, shape.path, shape.body(100_000)) for shape in SHAPES}
    wrong: list[str] = []

    def refuse(first: int) -> None:
        for shape in SHAPES[first:] + SHAPES[:first]:
            status, sent = call(app, shape.path, shape.body(100_000))
            detail = json.loads(sent).get("detail")
            if (status, detail) != (wanted[shape][0], json.loads(wanted[shape][1]).get("detail")):
                wrong.append(shape.name)

    threads = [threading.Thread(target=refuse, args=(first * 9,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert gc.isenabled()
