"""What the head of a request says is looked at once, where a worker remembers heads."""

from __future__ import annotations

from typing import Any

from app.http.prefix import PathPrefix
from app.http.request_head import head_of
from app.worker.contract import MEMORY

NO_PREFIX = PathPrefix("", 0)


def test_a_head_that_is_remembered_is_looked_at_once() -> None:
    memory: dict[str, Any] = {}
    first, second = (
        {"REQUEST_METHOD": "POST", "PATH_INFO": "/predict", MEMORY: memory} for _ in range(2)
    )
    assert head_of(first, NO_PREFIX) is head_of(second, NO_PREFIX)


def test_without_a_memory_each_request_has_its_own() -> None:
    first, second = ({"REQUEST_METHOD": "POST", "PATH_INFO": "/predict"} for _ in range(2))
    assert head_of(first, NO_PREFIX) is not head_of(second, NO_PREFIX)
    assert head_of(first, NO_PREFIX) is head_of(first, NO_PREFIX)


def test_a_path_is_split_for_each_request() -> None:
    memory: dict[str, Any] = {}
    for _ in range(2):
        environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/lantern/predict", MEMORY: memory}
        assert head_of(environ, PathPrefix("/lantern", 0)).path == "/lantern/predict"
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/lantern", "/predict")


def test_a_rejection_is_not_shared_by_requests() -> None:
    memory: dict[str, Any] = {}
    found = [
        head_of(
            {"REQUEST_METHOD": "GET", "PATH_INFO": "/x", MEMORY: memory}, PathPrefix("/lantern", 0)
        ).outside
        for _ in range(2)
    ]
    assert None not in found
    assert found[0] is not found[1]
