"""Reading a body from its connection, as some servers do: what goes wrong is said as it is."""

from __future__ import annotations

import io
import socket
import threading

import pytest
from flask.testing import FlaskClient

from app.http import body_timeout


class Failing(io.RawIOBase):
    """A body whose reading fails, as that of a server does."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def read(self, size: int = -1) -> bytes:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (MemoryError(), 503, "out-of-memory"),
        (OSError("cut off"), 400, "bad-request"),
    ],
)
def test_memory_that_others_have_is_no_fault_of_the_body(
    client: FlaskClient, error: Exception, status: int, kind: str
) -> None:
    answer = client.post(
        "/predict",
        content_type="application/json",
        environ_overrides={"wsgi.input": Failing(error), "CONTENT_LENGTH": "10"},
    )
    assert answer.status_code == status
    assert answer.get_json()["type"].endswith(kind)


def test_a_deadline_that_can_not_be_watched_is_want_of_memory(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread for that starts with the first body."""

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    watcher = body_timeout._Watcher()
    monkeypatch.setattr(body_timeout, "_watcher", watcher)
    monkeypatch.setattr(threading.Thread, "start", fail)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        answer = client.post(
            "/predict",
            content_type="application/json",
            environ_overrides={
                "wsgi.input": Failing(OSError()),
                "CONTENT_LENGTH": "10",
                "gunicorn.socket": ours,
            },
        )
    assert answer.status_code == 503
    assert not watcher._deadlines
