"""Schemathesis, all of its checks, against the document and the service of a real Gunicorn."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from app.access.keys import ADMIN, create_key
from tests import step_models
from tests.handler_bundles import with_handler
from tests.integration.conftest import Server
from trials.fuzz.generated import HOOKS, PATIENCE

# Not those of data that are valid by their schema and refused, which it can't help making: which
# versions are loaded, and that a tensor has as many values as its shape says, no schema tells.
WARNINGS = """
warnings = [
    "missing_auth", "missing_deserializer", "unused_openapi_auth", "unsupported_regex",
    "method_not_allowed", "unresolvable_reference",
]
"""
CAREFUL = """
class Handler:
    def predict(self, request):
        return {"bytes": len(request.body)}
"""
"""A handler that answers whatever it is sent."""


def run_schemathesis(
    server: Server, directory: Path, examples: int, *, more: str = "", drawn: bool = True
) -> None:
    """Run all checks, with ``more`` for their configuration; without bodies that are drawn, only
    on those that the document itself leads to.
    """
    phases = "examples,coverage,fuzzing,stateful" if drawn else "examples,coverage,stateful"
    (directory / "schemathesis.toml").write_text(WARNINGS + more)
    ran = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{server.url}/openapi.json",
            "--checks=all",
            "--mode=all",
            PATIENCE,
            f"--phases={phases}",
            f"--max-examples={examples}",
            "--generation-deterministic",
        ],
        cwd=directory,
        env={**os.environ, **HOOKS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
    paths = requests.get(f"{server.url}/openapi.json", timeout=60).json()["paths"]
    operations = sum(map(len, paths.values()))
    assert operations > 30
    assert f"{operations} selected / {operations} total" in ran.stdout
    assert "No issues found" in ran.stdout


def test_the_service_keeps_what_its_document_promises(
    server: Server, worker_class: str, tmp_path: Path
) -> None:
    """Statuses, types, schemas, headers, and refusals of what is invalid."""
    if worker_class == "keepalive":
        run_schemathesis(server, tmp_path, examples=60)
    else:  # with the same application, in which drawing finds nothing more
        run_schemathesis(server, tmp_path, examples=15, drawn=False)


@pytest.mark.parametrize("worker_class", ["keepalive"], indirect=True)  # the models don't know it
@pytest.mark.parametrize("name", ["photos", "topics", "measured"])
def test_it_keeps_what_it_promises_of_images_texts_and_handlers(
    start: Callable[..., Server], tmp_path: Path, name: str
) -> None:
    path = tmp_path / name / "1"
    if name == "measured":
        with_handler(path, CAREFUL)
    else:
        (step_models.images if name == "photos" else step_models.texts)(path)
    server = start("-w", "1", MODEL__PATH=str(path.parent), MODEL__ALLOW_CODE="true")
    run_schemathesis(server, tmp_path, examples=10)
    assert 500 not in {line["status"] for line in server.lines("request")}


@pytest.mark.parametrize("worker_class", ["keepalive"], indirect=True)  # keys don't know it
def test_it_keeps_what_it_promises_of_keys(start: Callable[..., Server], tmp_path: Path) -> None:
    """The same with keys and a rate; without a key, or with a wrong one, nothing is answered."""
    keys = tmp_path / "keys.json"
    _, key = create_key(keys, "schemathesis", [ADMIN])
    server = start(
        *("-w", "2"),
        ACCESS__AUTH="keys",
        ACCESS__KEYS_FILE=str(keys),
        ACCESS__OPEN_DOCS="true",
        LIMITS__RATE="900000/second",
    )
    keys_to_send = (
        f'[auth.openapi.bearer]\nbearer = "{key}"\n[auth.openapi.header]\napi_key = "{key}"\n'
    )
    run_schemathesis(server, tmp_path, examples=10, more=keys_to_send)
    statuses = {line["status"] for line in server.lines("request")}
    assert {200, 401} <= statuses
    assert 500 not in statuses
