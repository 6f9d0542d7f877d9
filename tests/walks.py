"""Walks of the documentation: the commands of a page, run one after the other as a user does."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import requests

from benchmarks.servers import free_port
from tests.conftest import ROOT, without_coverage
from tests.integration.conftest import wait_for

LONG = 120
"""Seconds that nothing here takes unless something is wrong."""


def environment() -> dict[str, str]:
    """Return what the commands see: nothing of the settings of whoever runs the tests."""
    kept = {k: v for k, v in without_coverage().items() if not k.startswith("LANTERN_")}
    return kept | {"PYTHONPATH": str(ROOT), "LANTERN_SERVER__WORKERS": "1"}


@contextmanager
def serving(arguments: list[str], directory: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """Run ``lantern serve`` on a free port while the rest of the walk runs; yield the port."""
    port = str(free_port())
    arguments = [*arguments, "--port", port]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", *arguments],
            cwd=directory,
            env=environ,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: process.poll() is not None or is_up(port))
        assert process.poll() is None, (directory / "log").read_text()
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(LONG)


def is_up(port: str) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/health/ready", timeout=LONG).ok
    except requests.RequestException:
        return False


def run(command: list[str], directory: Path, environ: Mapping[str, str]) -> str:
    ran = subprocess.run(
        command,
        cwd=directory,
        env=environ,
        capture_output=True,
        encoding="utf-8",
        timeout=LONG,
        check=False,
    )
    assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
    return ran.stdout
