"""The limits of the settings are those in force, and each refusal says which was passed."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.descriptors import open_files
from tests.integration.conftest import Server


@pytest.fixture(scope="module", params=["keepalive"])
def worker_class(request: pytest.FixtureRequest) -> str:
    """Gunicorn's own classes answer the same statuses, in HTML of their own."""
    return str(request.param)


@pytest.fixture(scope="module")
def server(start: Callable[..., Server]) -> Server:
    """A worker whose limits are narrow."""
    return start(
        "-w",
        "1",
        LIMITS__MAX_BODY_BYTES="1000",
        LIMITS__MAX_BATCH_SIZE="2",
        LIMITS__MAX_REQUEST_LINE_BYTES="100",
        LIMITS__MAX_HEADER_FIELDS="20",
        LIMITS__MAX_HEADER_FIELD_BYTES="200",
        LIMITS__MAX_CONNECTIONS="8",
    )


@pytest.mark.parametrize(
    ("path", "headers", "status", "said"),
    [
        (
            "/" + "a" * 100,
            {},
            414,
            "line of 114 bytes exceeds the limit of 100 bytes (limits.max_request_line_bytes)",
        ),
        (
            "/",
            {"X-Long": "a" * 200},
            431,
            "field of 210 bytes exceeds the limit of 200 bytes (limits.max_header_field_bytes)",
        ),
        (
            "/",
            {f"X-{number}": "1" for number in range(20)},
            431,
            "exceeds the limit of 20 (limits.max_header_fields)",
        ),
    ],
)
def test_a_head_over_a_limit_is_refused_with_a_problem_document(
    server: Server, path: str, headers: dict[str, str], status: int, said: str
) -> None:
    answer = requests.get(server.url + path, headers=headers, timeout=120)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert said in answer.json()["detail"]


def test_a_body_and_a_batch_over_their_limits_are_refused(
    server: Server, sample: dict[str, float]
) -> None:
    large = requests.post(f"{server.url}/predict", data=b" " * 1001, timeout=120)
    assert large.status_code == 413
    assert large.json()["detail"] == (
        "The body of 1,001 bytes exceeds the limit of 1,000 bytes (limits.max_body_bytes)."
    )
    batch = requests.post(
        f"{server.url}/predict/batch", json={"samples": [sample] * 3}, timeout=120
    )
    assert batch.status_code == 413
    assert batch.json()["detail"] == (
        "The batch of 3 rows exceeds the limit of 2 rows (limits.max_batch_size). Split it into "
        "several requests."
    )


def test_a_worker_has_no_more_connections_than_its_limit(server: Server) -> None:
    """Those beyond wait to be accepted, or idle ones make room for them."""
    with ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=120))
        assert requests.get(f"{server.url}/health/live", timeout=120).status_code == 200
        assert 4 < _connections(server) <= 8
    assert requests.get(f"{server.url}/health/live", timeout=120).status_code == 200


def _connections(server: Server) -> int:
    """Count the connections that the one worker has accepted."""
    (worker,) = server.workers()
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = {row[9] for row in rows if _is_of(row, server.port) and row[3] == "01"}
    targets = open_files(worker).values()
    return len(established & {name.removeprefix("socket:[").removesuffix("]") for name in targets})


def _is_of(row: list[str], port: int) -> bool:
    """Return whether a row of proc_net_tcp(5) is of a socket on the local ``port``."""
    return int(row[1].rpartition(":")[2], 16) == port
