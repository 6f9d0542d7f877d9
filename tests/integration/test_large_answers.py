"""A large answer over the wire: whole for every client, and others are served while it is made."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import requests

from tests.conftest import MANY
from tests.integration.conftest import Server, wait_for

SAMPLE = {"age": 40, "income": None, "visits": 3}
ROWS = 3000
"""Some 15 MB of answer, in six parts or more: more than all buffers on the way take."""
BODY = json.dumps({"samples": [SAMPLE] * ROWS}).encode()


@pytest.fixture(scope="module")
def server(start: Callable[..., Server], many_classes: Path) -> Server:
    return start("-w", "1", MODEL__PATH=str(many_classes), SERVER__THREADS="2")


@contextmanager
def asking(server: Server, version: str = "1.1") -> Iterator[socket.socket]:
    """Send the batch on a connection that takes little before it is read from."""
    with closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", server.port))
        head = (
            f"POST /predict/batch HTTP/{version}\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(BODY)}\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(head.encode() + BODY)
        yield connection


def read_all(connection: socket.socket) -> bytes:
    received = bytearray()
    while data := connection.recv(1 << 20):
        received += data
    return bytes(received)


def test_every_client_gets_the_whole_answer(server: Server) -> None:
    with requests.Session() as session:
        for _ in range(2):  # on one connection, if the server keeps it
            answer = session.post(
                f"{server.url}/predict/batch",
                BODY,
                headers={"Content-Type": "application/json"},
                timeout=60,
            )
            assert answer.headers["Transfer-Encoding"] == "chunked"
            document = answer.json()
            assert document["total_samples"] == len(document["predictions"]) == ROWS
            assert all(len(row["probabilities"]) == MANY for row in document["predictions"])


def test_a_client_of_http_1_0_gets_it_up_to_the_end_of_the_connection(server: Server) -> None:
    with asking(server, "1.0") as connection:
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert b"200" in head.split(b"\r\n")[0]
    assert b"chunked" not in head.lower()
    assert json.loads(body)["total_samples"] == ROWS


def test_others_are_served_while_a_large_answer_is_not_done(
    server: Server, worker_class: str
) -> None:
    def ended() -> int:
        lines = server.lines("request")
        return sum(line["path"] == "/predict/batch" for line in lines)

    before = ended()
    with asking(server) as connection:
        begun = connection.recv(1)
        assert begun == b"H"
        if worker_class != "sync":  # which serves one at a time, as long as that takes
            for _ in range(5):
                assert requests.get(f"{server.url}/health/live", timeout=30).ok
            # No part is made that the client has no room for, so it can't be done by now.
            assert ended() == before
        answer = begun + read_all(connection)
    assert answer.endswith(b"0\r\n\r\n")
    wait_for(lambda: ended() == before + 1)


def test_a_client_that_leaves_amid_an_answer_is_logged_so(server: Server) -> None:
    with asking(server) as connection:
        connection.recv(1)
    wait_for(
        lambda: [line for line in server.lines("request") if line.get("complete") is False], 60
    )
    assert requests.get(f"{server.url}/health/live", timeout=30).ok


def test_what_unread_answers_are_made_from_counts_as_held(
    start: Callable[..., Server], worker_class: str, many_classes: Path
) -> None:
    """Each keeps 2.4 MB for its parts, and one or two of these: of four, some are given up."""
    if worker_class != "keepalive":
        pytest.skip("Gunicorn's own classes hold no more answers than they have threads")
    server = start("-w", "1", MODEL__PATH=str(many_classes), LIMITS__MAX_HELD_BYTES=str(10 << 20))
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(asking(server)).recv(1)
        wait_for(lambda: [x for x in server.lines("request") if x.get("complete") is False], 60)
        assert requests.get(f"{server.url}/health/live", timeout=30).ok
