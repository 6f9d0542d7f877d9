"""The image says what the application itself says; `make image-test` builds and runs it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask

from app import __version__
from app.settings import Settings
from tests.conftest import ROOT
from tests.deploy.conftest import (
    Instruction,
    arguments,
    build_wheel,
    install,
    make_serving_environment,
    read_image,
    settings_in_image,
)
from tests.integration.conftest import free_port, wait_for
from tests.test_readme import README

TEXT = (ROOT / "Dockerfile").read_text()
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text()


def copied(instructions: list[Instruction]) -> list[str]:
    """Return what of the repository is copied."""
    copies = [line.split() for line in arguments(instructions, "COPY")]
    return [source for words in copies if "--from" not in words[0] for source in words[:-1]]


@pytest.fixture(scope="module")
def sources(stages: dict[str, list[Instruction]]) -> list[str]:
    """What is copied of the repository into any stage, for each kind of torch."""
    found = [source for stage in stages.values() for source in copied(stage)]
    return [source.replace("${TORCH}", kind) for source in found for kind in ("cpu", "cuda")]


@pytest.fixture(scope="module")
def healthcheck(dockerfile: list[Instruction]) -> list[str]:
    [line] = arguments(dockerfile, "HEALTHCHECK")
    command: list[str] = json.loads(line.partition("CMD ")[2])
    return command


@pytest.fixture
def settings() -> Settings:
    """The settings in force in a container."""
    return settings_in_image({})


def test_the_image_has_settings_that_load(settings: Settings) -> None:
    assert settings.server.host == "0.0.0.0"


def test_torch_is_left_out_only_where_asked(stages: dict[str, list[Instruction]]) -> None:
    *_, default = stages
    assert default == "torch"
    for target in ("onnx", "torch"):
        assert arguments(stages[target], "COPY") == [
            f"--from={target}-libraries /opt/lantern /opt/lantern",
            "--from=package /opt/lantern /opt/lantern",
            "--from=directory /lantern /lantern",
        ]
        assert read_image(target)[:-3] == read_image("service")


def test_libraries_are_installed_where_their_python_is(
    stages: dict[str, list[Instruction]], image_environ: dict[str, str]
) -> None:
    """An environment links to the Python that made it: the same base image for all stages."""
    bases = {stage[0].arguments.split()[0] for stage in stages.values()} - stages.keys()
    assert bases == {"python:3.11-slim"}
    assert image_environ["PATH"] == "/opt/lantern/bin:$PATH"


def test_only_files_with_known_hashes_are_installed(stages: dict[str, list[Instruction]]) -> None:
    """The wheel that was built here has none, and is installed without asking anybody."""
    assert "PIP_REQUIRE_HASHES=1" in arguments(stages["installer"], "ENV")[0]
    bases = {name: stage[0].arguments.split()[0] for name, stage in stages.items()}
    for name, stage in stages.items():
        commands = " && ".join(arguments(stage, "RUN")).split(" && ")
        for command in commands:
            if not re.search(r"\bpip\b.* install\b", command):
                continue
            assert "installer" in (bases[name], bases.get(bases[name]))
            if "dist/*.whl" in command:
                assert "--no-index --no-deps" in command
            else:
                assert "PIP_REQUIRE_HASHES" not in command
                assert " -r " in command


def test_a_change_of_lantern_or_a_model_installs_no_library(
    stages: dict[str, list[Instruction]],
) -> None:
    for name in ("onnx-libraries", "torch-libraries"):
        assert all(source.startswith("locks/") for source in copied(stages[name]))


def test_what_tells_pip_where_packages_are_stays_out_of_the_image(
    stages: dict[str, list[Instruction]],
) -> None:
    """It may hold a password; what a stage is told, stays in that stage."""
    for name in ("service", "onnx", "torch", "directory"):
        assert "PIP_" not in str(stages[name])


def test_the_image_is_this_version(dockerfile: list[Instruction]) -> None:
    [labels] = arguments(dockerfile, "LABEL")
    assert f'org.opencontainers.image.version="{__version__}"' in labels
    for page in (TEXT, README, DEPLOYMENT):
        assert set(re.findall(r"lantern:([\d.]+)", page)) == {__version__}


def test_the_user_is_named_by_number_and_is_not_root(dockerfile: list[Instruction]) -> None:
    [user] = arguments(dockerfile, "USER")
    uid, gid = map(int, user.split(":"))
    assert uid == gid > 0
    [line] = [line for line in arguments(dockerfile, "RUN") if "useradd" in line]
    assert f"--uid {uid} " in line


def test_gunicorn_is_the_first_process(dockerfile: list[Instruction]) -> None:
    """A shell before it would swallow the signal to stop."""
    [command] = arguments(dockerfile, "CMD")
    assert json.loads(command) == ["lantern", "serve"]
    assert not arguments(dockerfile, "ENTRYPOINT")


def test_the_image_copies_only_what_is_there_and_not_ignored(sources: list[str]) -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    for source in sources:
        assert (ROOT / source).exists(), source
        parts = [source, *map(str, Path(source).parents)]
        assert not any(fnmatch(part, pattern) for part in parts for pattern in ignored), source


def copy_all(sources: list[str], place: Path) -> None:
    """Copy files and directories of the repository to where they are in it."""
    for source in sources:
        if (ROOT / source).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / source, place / source, ignore=ignored)
        else:
            (place / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, place / source)


def test_the_image_serves_from_what_it_copies(
    tmp_path: Path, stages: dict[str, list[Instruction]], image_environ: dict[str, str]
) -> None:
    """Build and start it, with its variables, where nothing lies but what it copies."""
    build, place, home = (tmp_path / name for name in ("build", "lantern", "home"))
    home.mkdir()
    copy_all(copied(stages["package"]), build)
    copy_all(copied(stages["directory"]), place)
    python = make_serving_environment(tmp_path / "venv")
    install(build_wheel(build, tmp_path / "dist"), python)
    [line] = arguments(stages["service"], "CMD")
    program, *rest = json.loads(line)
    port = free_port()
    environ = {
        **image_environ,
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANTERN_SERVER__HOST": "127.0.0.1",
        "LANTERN_SERVER__PORT": str(port),
        "LANTERN_SERVER__WORKERS": "1",
        "LANTERN_SERVER__DRAIN_SECONDS": "0",
    }
    process = subprocess.Popen([python.with_name(program), *rest], cwd=place, env=environ)

    def ready() -> bool:
        assert process.poll() is None
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{port}/health/ready", timeout=120).ok
        return False

    try:
        wait_for(ready)
    finally:
        process.terminate()
        assert process.wait(120) == 0
    assert not list(home.iterdir())  # where ONNX Runtime keeps what it means to report


def test_nothing_in_the_image_reports_to_its_makers(image_environ: dict[str, str]) -> None:
    assert image_environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_the_image_exposes_the_port_that_is_listened_on(
    dockerfile: list[Instruction], settings: Settings
) -> None:
    assert arguments(dockerfile, "EXPOSE") == [str(settings.server.port)]


class _Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, HTTPServer)
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Any]:
    """A server that answers with its ``status`` and notes in ``asked`` for what."""
    with HTTPServer(("127.0.0.1", 0), _Health) as server:
        server.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def check_health(healthcheck: list[str], port: int, **variables: str) -> bool:
    environ = {"LANTERN_SERVER__PORT": str(port), "http_proxy": "http://127.0.0.1:9", **variables}
    command = [sys.executable, *healthcheck[1:]]
    run = subprocess.run(command, env=environ, capture_output=True, timeout=120, check=False)
    return run.returncode == 0


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_containers_health_is_its_readiness(
    app: Flask, healthcheck: list[str], service: Any, status: int, healthy: bool
) -> None:
    service.status = status
    assert healthcheck[0] == "python"
    assert check_health(healthcheck, service.server_port) is healthy
    assert service.asked == ["/health/ready"]
    assert {"/health/ready"} <= {rule.rule for rule in app.url_map.iter_rules()}


def test_the_containers_health_is_asked_for_under_the_prefix(
    healthcheck: list[str], service: Any
) -> None:
    service.status = 200
    for variables in (
        {"SCRIPT_NAME": "/a"},
        {"LANTERN_SERVER__PREFIX": "/a/", "SCRIPT_NAME": "/b"},
    ):
        assert check_health(healthcheck, service.server_port, **variables)
    assert service.asked == ["/a/health/ready"] * 2


def test_the_containers_health_is_asked_where_a_platform_says(
    healthcheck: list[str], service: Any
) -> None:
    service.status = 200
    port = service.server_port
    assert check_health(healthcheck, port, LANTERN_SERVER__PORT="", PORT=str(port))
    assert check_health(healthcheck, port, PORT="9")


def test_a_container_that_does_not_listen_is_unhealthy(healthcheck: list[str]) -> None:
    assert not check_health(healthcheck, free_port())


@pytest.mark.parametrize("page", [TEXT, DEPLOYMENT], ids=["Dockerfile", "deployment.md"])
def test_the_docker_commands_fit_the_image(
    page: str, settings: Settings, image_environ: dict[str, str], python: Path
) -> None:
    [seconds] = re.findall(r"--stop-timeout (\d+)", page)
    assert settings.server.graceful_timeout_seconds < int(seconds)
    keys = Path(image_environ["LANTERN_ACCESS__KEYS_FILE"]).parent
    mounted = set(re.findall(r"\$PWD/\w+:(/[\w/]+)", page))
    assert mounted == {"/lantern/models", str(keys)}
    [words] = re.findall(r"lantern:[\w.-]+ lantern (.+)", page)
    ran = subprocess.run([python.with_name("lantern"), *words.split(), "--help"], check=False)
    assert ran.returncode == 0
