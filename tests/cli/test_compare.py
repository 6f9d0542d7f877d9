"""A candidate and the stable version side by side, from the metrics of a service that runs."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.serving import make_server

from app.cli.compare import NothingToCompare, compare
from app.registry.release import Release, write_release
from tests import task_models
from tests.test_lifecycle_api import SAMPLE

Make = Callable[..., Flask]


@contextmanager
def running(app: Flask) -> Iterator[str]:
    """Serve an application on loopback, and give its address."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Give a port on which nothing listens, and on which nothing else can begin to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def make(make_app: Make, versions: Path) -> Callable[[Release], Flask]:
    def begin(release: Release) -> Flask:
        write_release(versions, release)
        return make_app(MODEL__PATH=str(versions))

    return begin


def test_a_shadow_is_compared_by_the_command(make: Callable[[Release], Flask]) -> None:
    app = make(Release("1", "2", "shadow"))
    client = app.test_client()
    for _ in range(4):
        client.post("/predict", json={"features": SAMPLE})
    client.post("/predict/batch", json={"samples": [SAMPLE] * 6})
    assert app.extensions["lantern"].shadow.wait(60)
    runner = app.test_cli_runner()
    with running(app) as url:
        table = runner.invoke(args=["model", "compare", "--url", f"{url}/metrics"])
        told = runner.invoke(args=["model", "compare", "--url", f"{url}/metrics", "--json"])
    assert table.exit_code == told.exit_code == 0, table.output
    document = json.loads(told.output)
    assert (document["stable"]["version"], document["stable"]["rows"]) == ("1", 10)
    assert (document["candidate"]["version"], document["candidate"]["rows"]) == ("2", 0)
    assert document["stable"]["mean_seconds"] > 0
    assert document["candidate"]["mean_seconds"] > 0
    assert sum(document["shadowed"].values()) == 10
    assert 0 < document["mean_difference"] < 1
    lines = table.output.splitlines()
    assert lines[0].split() == ["example", "1", "stable", "2", "candidate"]
    assert lines[1].split() == ["rows", "10", "0"]
    assert any(line.startswith("mean difference of answers") for line in lines)


def test_both_sides_of_a_canary_are_told(make: Callable[[Release], Flask]) -> None:
    app = make(Release("1", "2", "canary", 0.5))
    client = app.test_client()
    answered = [client.post("/predict", json={"features": SAMPLE}).get_json() for _ in range(40)]
    text = app.extensions["lantern"].metrics.exposition().decode()
    sides = compare(text, "example")
    for side in (sides.stable, sides.candidate):
        own = [answer["label"] for answer in answered if answer["model_version"] == side.version]
        assert side.rows == len(own) > 0
        assert side.classes == {label: own.count(label) for label in set(own)}
    assert sides.shadowed == {}
    assert sides.mean_difference is None


@pytest.mark.parametrize("kind", ["regression", "multilabel", "embedding"])
def test_a_canary_without_classes_is_compared_by_its_rows(
    make_app: Make, tmp_path: Path, kind: str
) -> None:
    directory = tmp_path / "any"
    for version in ("1", "2"):
        getattr(task_models, kind)(directory / version)
    write_release(directory, Release("1", "2", "canary", 0.5))
    app = make_app(MODEL__PATH=str(directory))
    client = app.test_client()
    for _ in range(40):
        sent = client.post("/predict", json={"features": {"rooms": 3, "area": 80}})
        assert sent.status_code == 200
    with running(app) as url:
        arguments = ["model", "compare", "--url", f"{url}/metrics"]
        table = app.test_cli_runner().invoke(args=arguments)
    assert table.exit_code == 0, table.output
    shares = [line for line in table.output.splitlines() if line.startswith("share of")]
    assert [line.split()[2] for line in shares] == (["large"] if kind == "multilabel" else [])
    sides = compare(app.extensions["lantern"].metrics.exposition().decode(), "any")
    assert sides.stable.rows + sides.candidate.rows == 40


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "No version of example is being served there"),
        ("<html>", "are not metrics in Prometheus"),
        (
            'lantern_model_info{model="example",version="1",role="stable"} 1\n',
            "Version 1 of example is served alone there",
        ),
        (
            'lantern_model_info{model="other",version="1",role="stable"} 1\n',
            "No version of example is being served there",
        ),
    ],
)
def test_where_there_is_nothing_to_compare_it_says_so(text: str, said: str) -> None:
    with pytest.raises(NothingToCompare, match=said):
        compare(text, "example")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/metrics", "file:///etc/passwd", "x"])
def test_an_address_that_can_not_be_read_is_refused(
    make: Callable[[Release], Flask], url: str
) -> None:
    runner = make(Release("1")).test_cli_runner()
    result = runner.invoke(args=["model", "compare", "--url", url])
    assert result.exit_code == 1
    assert url in result.output
    assert "Traceback" not in result.output


def test_where_no_service_runs_the_option_for_another_place_is_named(
    make_app: Make, versions: Path, closed_port: int
) -> None:
    write_release(versions, Release("1"))
    app = make_app(MODEL__PATH=str(versions), SERVER__PORT=str(closed_port))
    result = app.test_cli_runner().invoke(args=["model", "compare"])
    assert result.exit_code == 1
    assert f"http://127.0.0.1:{closed_port}/metrics can't be read" in result.output
    assert "--url names another place" in result.output


@pytest.mark.parametrize("labels", ['model="example"', 'model="example",role="stable"'])
def test_metrics_of_something_else_are_refused(labels: str) -> None:
    with pytest.raises(NothingToCompare, match="not Lantern's metrics"):
        compare(f"lantern_model_info{{{labels}}} 1\n", "example")


def test_a_password_in_the_address_is_not_repeated(make: Callable[[Release], Flask]) -> None:
    runner = make(Release("1")).test_cli_runner()
    result = runner.invoke(args=["model", "compare", "--url", "http://me:secret@127.0.0.1:1/"])
    assert result.exit_code == 1
    assert "secret" not in result.output
