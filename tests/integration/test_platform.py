"""A start on a platform that says the port in a variable, and gives a process little else."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import ROOT
from tests.integration.conftest import free_port, wait_for

BIN = Path(sys.executable).parent
Start = Callable[..., "Service"]


class Service:
    """A Gunicorn that is told where to listen by its environment and arguments alone."""

    def __init__(self, log: Path, arguments: list[str], environ: dict[str, str]) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("LANTERN_")}
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [BIN / "gunicorn", "wsgi:app", "-w", "1", *arguments],
                cwd=ROOT,
                env=inherited | environ,
                stdout=file,
                stderr=file,
            )

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def address(self) -> str:
        """Wait until it listens, and return where it says it does."""

        def found() -> str | None:
            assert self.process.poll() is None, self.log.read_text()
            match = re.search(r"Listening at: http://(\S+) ", self.log.read_text())
            return match and match[1]

        return str(wait_for(found, 60))

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    services: list[Service] = []

    def begin(*arguments: str, **environ: str) -> Service:
        keys = {"LANTERN_ACCESS__KEYS_FILE": str(tmp_path / "keys.json")}
        services.append(Service(tmp_path / f"log-{len(services)}", list(arguments), keys | environ))
        return services[-1]

    yield begin
    for service in services:
        service.stop()


def test_the_port_of_a_platform_is_open_to_all_who_have_a_key(
    start: Start, tmp_path: Path, sample: dict[str, float]
) -> None:
    port = free_port()
    service = start(PORT=str(port))
    assert service.address() == f"0.0.0.0:{port}"
    url = f"http://127.0.0.1:{port}"
    wait_for(lambda: requests.get(f"{url}/health/ready", timeout=20).ok)
    body = {"features": sample}
    assert requests.post(f"{url}/predict", json=body, timeout=20).status_code == 401
    [said] = [
        line["message"] for line in service.lines() if "API keys are required" in line["message"]
    ]
    # What it says to do is done as it says.
    [command] = re.findall(r"`([^`]* key create [^`]*)`", said)
    environ = os.environ | {"LANTERN_ACCESS__KEYS_FILE": str(tmp_path / "keys.json")}
    made = subprocess.run(
        shlex.split(command.replace("NAME", "shop")),
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    key = {"X-API-Key": made.stdout.strip()}
    answer = requests.post(f"{url}/predict", json=body, headers=key, timeout=20)
    assert answer.status_code == 200, answer.text


def test_a_platform_whose_service_does_without_keys_is_told_so_once(
    start: Start, sample: dict[str, float]
) -> None:
    port = free_port()
    first = start(PORT=str(port))
    first.address()
    wait_for(lambda: "API keys are required" in first.log.read_text())
    [advice] = re.findall(r"LANTERN_[A-Z_]+=[a-z]+", first.log.read_text())
    first.stop()
    variable, _, value = advice.partition("=")
    service = start(PORT=str(port), **{variable: value})
    url = f"http://{service.address()}"
    wait_for(lambda: requests.get(f"{url}/health/ready", timeout=20).ok)
    answer = requests.post(f"{url}/predict", json={"features": sample}, timeout=20)
    assert answer.status_code == 200, answer.text


def test_gunicorns_flags_and_lanterns_variable_win_over_the_port_of_a_platform(
    start: Start,
) -> None:
    mine, other = free_port(), free_port()
    by_flag = start("-b", f"127.0.0.1:{mine}", PORT=str(other))
    assert by_flag.address() == f"127.0.0.1:{mine}"
    by_variable = start(LANTERN_SERVER__PORT=str(other), PORT=str(mine))
    assert by_variable.address() == f"127.0.0.1:{other}"
    for service in (by_flag, by_variable):  # on loopback alone: no keys, and no word of them
        url = f"http://{service.address()}/model/info"
        wait_for(lambda url=url: requests.get(url, timeout=20).ok)
        assert "API keys are required" not in service.log.read_text()


def test_a_port_that_is_none_stops_the_start_with_a_sentence() -> None:
    ran = subprocess.run(
        [BIN / "gunicorn", "wsgi:app"],
        cwd=ROOT,
        env=os.environ | {"PORT": "http"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr == (
        "Lantern can't start. Setting server.port = 'http' (PORT): "
        "must be an integer from 1 to 65535.\n"
    )


def test_make_serves_on_loopback_at_the_port_it_is_given() -> None:
    """`make serve PORT=...` hands PORT on in the environment, too."""
    printed = subprocess.run(
        ["make", "--dry-run", "serve", "PORT=9001"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "serve --port 9001" in " ".join(printed.split())
