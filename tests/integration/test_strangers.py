"""Who may not ask can't send a body either: the head alone is answered, the body not awaited."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from app.access.keys import METRICS, PREDICT, create_key
from tests.integration.conftest import Server, wait_for
from tests.worker.wire import Answer, Connection, request

CHUNKED = "Transfer-Encoding: chunked"
LENGTH = "Content-Length: 4000000"
JSON = "Content-Type: application/json"


@pytest.fixture(scope="module")
def worker_class() -> str:
    return "keepalive"  # Gunicorn's own call the application before they read the body


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def server(start: Callable[..., Server], keys: Path) -> Server:
    settings = {"ACCESS__AUTH": "keys", "ACCESS__KEYS_FILE": str(keys)}
    return start("-w", "1", LIMITS__RATE="5/day", **settings)


def asking(server: Server) -> Connection:
    return Connection(("127.0.0.1", server.port))


def answer_to_head(server: Server, *arguments: str, method: str = "POST") -> Answer:
    """Send a head alone, and return the answer after which the server closes the connection."""
    with asking(server) as connection:
        connection.send(request(*arguments, method=method))
        (answer,) = connection.answers()
    assert answer["Connection"] == "close"
    return answer


def new_key(keys: Path, scope: str) -> str:
    _, key = create_key(keys, f"{scope}-{secrets.token_hex(4)}", [scope])
    return f"Authorization: Bearer {key}"


@pytest.mark.parametrize("framing", [LENGTH, CHUNKED])
@pytest.mark.parametrize("fields", [(), ("Expect: 100-continue",)])
def test_without_a_key_a_body_is_refused_before_it_is_sent(
    framing: str, fields: tuple[str, ...], start: Callable[..., Server], keys: Path, server: Server
) -> None:
    for path in ("/predict", "/predict/batch", "/models/a/predict", "/nope", "/models"):
        answer = answer_to_head(server, path, framing, JSON, *fields)
        assert answer.status in (401, 429), path
    # Health is for everybody, and has no use for a body.
    for method, status in (("GET", 200), ("POST", 405)):
        answer = answer_to_head(server, "/health/live", framing, *fields, method=method)
        assert answer.status == status


def test_a_key_for_something_else_a_wrong_method_and_an_unknown_path_are_told_at_once(
    server: Server, keys: Path
) -> None:
    other, key = new_key(keys, METRICS), new_key(keys, PREDICT)
    for status, credentials, path, method in (
        (403, other, "/predict", "POST"),
        (405, key, "/predict", "PUT"),
        (404, key, "/nope", "POST"),
        (404, key, "/models/nope/predict", "POST"),
        (200, key, "/models", "GET"),
    ):
        for framing in (LENGTH,) if status == 403 else (CHUNKED,):
            answer = answer_to_head(server, path, framing, JSON, credentials, method=method)
            assert answer.status == status, path


def test_a_request_is_counted_once_however_its_body_comes(
    server: Server, keys: Path, sample: dict[str, float]
) -> None:
    key = new_key(keys, PREDICT)
    body = json.dumps({"features": sample}).encode()
    lines = len(server.lines("request"))
    with asking(server) as connection:
        for number in range(5):
            head = request("/predict", JSON, key, f"Content-Length: {len(body)}", method="POST") + (
                body if number == 4 else b""
            )
            connection.send(head)
            if number < 4:
                assert_waits(connection)
                connection.send(body)
            answer = connection.answer()
            assert answer is not None
            assert answer.status == 200, number
    refused = answer_to_head(server, "/predict", JSON, key, LENGTH)
    assert refused.status == 429
    assert refused["Retry-After"]
    wait_for(lambda: len(server.lines("request")) >= lines + 6)
    assert len(server.lines("request")) == lines + 6
    assert server.lines("request")[-1]["caller"].startswith("predict-")


def assert_waits(connection: Connection) -> None:
    connection.socket.settimeout(0.1)
    with pytest.raises(TimeoutError):
        connection.socket.recv(1, socket.MSG_PEEK)
    connection.socket.settimeout(30)


def test_whoever_may_ask_is_asked_for_the_body(
    server: Server, keys: Path, sample: dict[str, float]
) -> None:
    key = new_key(keys, PREDICT)
    body = json.dumps({"samples": [sample] * 2000}).encode()
    with asking(server) as connection:
        length = f"Content-Length: {len(body)}"
        expect = "Expect: 100-continue"
        connection.send(request("/predict/batch", JSON, key, length, expect, method="POST"))
        interim = connection.answer()
        assert interim is not None
        assert interim.status == 100
        answer = connection.send(body).answer()
        assert answer is not None
        assert answer.status == 200
        assert len(answer.json()["predictions"]) == 2000


def test_a_wait_that_makes_no_sense_is_told_before_the_body(server: Server, keys: Path) -> None:
    key = new_key(keys, PREDICT)
    answer = answer_to_head(server, "/predict", JSON, key, LENGTH, "X-Request-Timeout-Ms: soon")
    assert answer.status == 400
    assert "X-Request-Timeout-Ms" in answer.json()["detail"]


def test_it_is_asked_of_the_path_behind_a_prefix(
    start: Callable[..., Server], sample: dict[str, float]
) -> None:
    server = start("-w", "1", SERVER__PREFIX="/lantern")
    body = json.dumps({"features": sample}).encode()
    with asking(server) as connection:
        length = f"Content-Length: {len(body)}"
        connection.send(
            request("/lantern/predict", JSON, length, "Expect: 100-continue", method="POST")
        )
        interim = connection.answer()
        assert interim is not None
        assert interim.status == 100
        answer = connection.send(body).answer()
        assert answer is not None
        assert answer.status == 200
    assert answer_to_head(server, "/predict", JSON, LENGTH).status == 404
