"""Which requests the worker answers in a thread: admitted ones that run a model that takes long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import create_environ, run_wsgi_app

from app.access.keys import PREDICT, create_key
from app.http.extension import Lantern
from app.model import model as models

NAME = "campaign-response"


def lantern_of(app: Flask) -> Lantern:
    lantern: Lantern = app.extensions["lantern"]
    for service in lantern.services:
        service.load()
    return lantern


@pytest.fixture
def all_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "LONG_SECONDS", 0.0)


def takes_long(lantern: Lantern, path: str, method: str = "POST", **fields: str) -> bool:
    return lantern.pool_queue(create_environ(path, method=method, headers=fields)) is not None


@pytest.mark.usefixtures("all_take_long")
@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/predict", True),
        ("POST", "/predict/batch", True),
        ("POST", f"/models/{NAME}/predict", True),
        ("POST", f"/v2/models/{NAME}/infer", True),
        ("POST", f"/v2/models/{NAME}/versions/1/infer", True),
        ("GET", "/predict", False),
        ("GET", f"/v2/models/{NAME}", False),
        ("GET", f"/v2/models/{NAME}/ready", False),
        ("GET", "/health", False),
        ("GET", "/metrics", False),
        ("POST", "/v2/repository/index", False),
        ("POST", "/models/other/predict", False),
        ("POST", "/nope", False),
    ],
)
def test_requests_that_run_a_model_take_long(
    make_app: Callable[..., Flask], method: str, path: str, expected: bool
) -> None:
    assert takes_long(lantern_of(make_app()), path, method) is expected


def test_none_takes_long_if_no_model_does(
    make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "LONG_SECONDS", float("inf"))
    assert not takes_long(lantern_of(make_app()), "/predict")


@pytest.mark.usefixtures("all_take_long")
def test_the_prefix_is_not_part_of_the_path(make_app: Callable[..., Flask]) -> None:
    lantern = lantern_of(make_app(SERVER__PREFIX="/lantern"))
    assert takes_long(lantern, "/lantern/predict")
    assert not takes_long(lantern, "/predict")


@pytest.mark.usefixtures("all_take_long")
def test_one_that_is_not_admitted_does_not_wait_among_those_that_are(
    make_app: Callable[..., Flask], tmp_path: Path, sample: dict[str, Any]
) -> None:
    """And one that is counts once towards its rate."""
    keys = tmp_path / "keys.json"
    _, key = create_key(keys, "tests", [PREDICT])
    app = make_app(ACCESS__AUTH="keys", ACCESS__KEYS_FILE=str(keys), LIMITS__RATE="2/day")
    lantern = lantern_of(app)
    assert not takes_long(lantern, "/predict")
    secret = {"Authorization": f"Bearer {key}"}
    for expected in (200, 200, 429):
        environ = create_environ(
            "/predict", method="POST", headers=secret, json={"features": sample}
        )
        assert (lantern.pool_queue(environ) == NAME) is (expected == 200)
        _, status, _ = run_wsgi_app(app, environ)
        assert status.startswith(f"{expected} ")


@pytest.mark.parametrize(
    ("settings", "cores", "batch_rows"),
    [
        ({}, 1, "auto"),
        ({}, 4, 0),
        ({"MODEL__THREADS": "4"}, 4, "auto"),
        ({"MODEL__BATCH_ROWS": "32"}, 4, 32),
    ],
)
def test_passes_are_shared_where_there_are_no_cores_for_several(
    make_app: Callable[..., Flask], settings: dict[str, str], cores: int, batch_rows: int | str
) -> None:
    lantern: Lantern = make_app(**settings).extensions["lantern"]
    lantern.use_cores(cores)
    assert [service.source.batch_rows for service in lantern.services] == [batch_rows]
