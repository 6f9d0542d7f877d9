"""Schemathesis, all of its checks, against the document and the service of a real Gunicorn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.integration.conftest import Server


def test_the_service_keeps_what_its_document_promises(server: Server, tmp_path: Path) -> None:
    """Statuses, types, schemas, headers, and refusals of what is invalid."""
    ran = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{server.url}/openapi.json",
            "--checks=all",
            "--mode=all",
            "--max-examples=60",
            "--generation-deterministic",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
    assert "12 selected / 12 total" in ran.stdout
    assert "No issues found" in ran.stdout
