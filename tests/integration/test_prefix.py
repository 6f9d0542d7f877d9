"""A path prefix that a proxy leaves on the paths: the same on every class of workers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest
import requests

from app.client import ModelClient
from tests.integration.conftest import Server


@pytest.fixture(scope="module")
def server(start: Callable[..., Server]) -> Server:
    """A service that Gunicorn's variable gives a prefix, and that believes one proxy.

    ``--env`` sets the variable once more, late in the start of a worker.
    """
    variable = {"SCRIPT_NAME": "/lantern"}
    arguments = ("-w", "1", "--env", "SCRIPT_NAME=/lantern")
    return start(*arguments, environ=os.environ | variable, SERVER__PROXIES="1")


def test_all_is_served_under_the_prefix(server: Server, sample: dict[str, float]) -> None:
    with ModelClient(f"{server.url}/lantern/") as client:
        assert client.health_check()["status"] == "healthy"
        assert client.predict(sample)["model_version"] == "1"
        assert client.predict_batch([sample])["total_samples"] == 1
    index = requests.get(f"{server.url}/lantern", timeout=120)
    assert index.json()["docs"] == "/lantern/docs"
    document = requests.get(f"{server.url}/lantern/openapi.json", timeout=120).json()
    assert document["servers"] == [{"url": "/lantern"}]
    outer = {"X-Forwarded-Prefix": "/apps"}
    index = requests.get(f"{server.url}/lantern/", headers=outer, timeout=120)
    assert index.json()["docs"] == "/apps/lantern/docs"


def test_what_is_outside_the_prefix_is_not_there(server: Server, sample: dict[str, float]) -> None:
    for path in ("/", "/health", "/lanternhealth", "//lantern/health", "/lantern/../health", "/a"):
        status, problem = ask(server, path)
        assert (status, problem["type"]) == (404, "urn:lantern:problem:not-found"), path
        assert problem["instance"] == path
    response = requests.post(f"{server.url}/predict", json={"features": sample}, timeout=120)
    assert response.status_code == 404
    assert not [line for line in server.lines() if line["level"] in ("ERROR", "CRITICAL")]


def ask(server: Server, path: str) -> tuple[int, Any]:
    """Ask for a path as it is written; requests would mend it."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=120)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
