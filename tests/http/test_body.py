"""Reading a body from its connection, as some servers do: what goes wrong is said as it is."""

from __future__ import annotations

import io

import pytest
from flask.testing import FlaskClient


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
