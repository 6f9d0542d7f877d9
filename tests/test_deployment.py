"""The container and the Kubernetes manifest say what the application itself says."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
import yaml
from flask import Flask

from app import __version__
from app.settings import Settings, load_settings
from tests.conftest import ROOT
from tests.integration.conftest import free_port, wait_for

PROBES = {
    "startupProbe": "/health/live",
    "livenessProbe": "/health/live",
    "readinessProbe": "/health/ready",
}


class Instruction(NamedTuple):
    name: str
    arguments: str


@pytest.fixture(scope="module")
def dockerfile() -> list[Instruction]:
    """The instructions of the Dockerfile, each on one line."""
    lines = [
        line
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines()]


def arguments(dockerfile: list[Instruction], name: str) -> list[str]:
    return [instruction.arguments for instruction in dockerfile if instruction.name == name]


@pytest.fixture(scope="module")
def image_environ(dockerfile: list[Instruction]) -> dict[str, str]:
    """The variables that the image sets."""
    words = [word for line in arguments(dockerfile, "ENV") for word in shlex.split(line)]
    return dict(word.split("=", 1) for word in words)


@pytest.fixture(scope="module")
def sources(dockerfile: list[Instruction]) -> list[str]:
    """What is copied into the image."""
    return [source for line in arguments(dockerfile, "COPY") for source in line.split()[:-1]]


@pytest.fixture(scope="module")
def healthcheck(dockerfile: list[Instruction]) -> list[str]:
    [line] = arguments(dockerfile, "HEALTHCHECK")
    command: list[str] = json.loads(line.partition("CMD ")[2])
    return command


@pytest.fixture(scope="module")
def documents() -> dict[str, Any]:
    text = (ROOT / "deploy" / "kubernetes" / "deployment.yaml").read_text()
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


@pytest.fixture(scope="module")
def deployment(documents: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = documents["Deployment"]["spec"]
    return spec


@pytest.fixture(scope="module")
def pod(deployment: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = deployment["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    [container] = pod["containers"]
    assert isinstance(container, dict)
    return container


@pytest.fixture(scope="module")
def pod_environ(container: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"]}


@pytest.fixture
def settings(
    monkeypatch: pytest.MonkeyPatch, image_environ: dict[str, str], pod_environ: dict[str, str]
) -> Settings:
    """The settings in force in a pod; loading them refuses a variable that is no setting."""
    monkeypatch.chdir(ROOT)
    return load_settings(image_environ | pod_environ)


def routes(app: Flask) -> set[str]:
    return {rule.rule for rule in app.url_map.iter_rules()}


# The image


def test_the_image_has_settings_that_load(
    monkeypatch: pytest.MonkeyPatch, image_environ: dict[str, str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert load_settings(image_environ).server.host == "0.0.0.0"


def test_the_image_copies_only_what_is_there_and_not_ignored(sources: list[str]) -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not any(fnmatch(source, pattern) for pattern in ignored), source


def test_the_image_serves_from_what_it_copies(
    tmp_path: Path, dockerfile: list[Instruction], sources: list[str], image_environ: dict[str, str]
) -> None:
    """Start its command, with its variables, where nothing lies but what it copies."""
    place, home = tmp_path / "lantern", tmp_path / "home"
    place.mkdir()
    home.mkdir()
    for source in sources:
        if (ROOT / source).is_dir():
            shutil.copytree(
                ROOT / source, place / source, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / source, place)
    [line] = arguments(dockerfile, "CMD")
    program, *rest = json.loads(line)
    assert program == "gunicorn"
    port = free_port()
    environ = {
        "PATH": os.environ["PATH"],
        **image_environ,
        "HOME": str(home),
        "LANTERN_SERVER__HOST": "127.0.0.1",
        "LANTERN_SERVER__PORT": str(port),
        "LANTERN_SERVER__WORKERS": "1",
    }
    process = subprocess.Popen([sys.executable, "-m", program, *rest], cwd=place, env=environ)

    def ready() -> bool:
        assert process.poll() is None
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{port}/health/ready", timeout=5).ok
        return False

    try:
        wait_for(ready, 60)
    finally:
        process.terminate()
        assert process.wait(20) == 0
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


def check_health(healthcheck: list[str], port: int) -> bool:
    environ = {
        "LANTERN_SERVER__PORT": str(port),
        "http_proxy": "http://127.0.0.1:9",
    }
    command = [sys.executable, *healthcheck[1:]]
    run = subprocess.run(command, env=environ, capture_output=True, timeout=20, check=False)
    return run.returncode == 0


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_containers_health_is_its_readiness(
    app: Flask, healthcheck: list[str], service: Any, status: int, healthy: bool
) -> None:
    service.status = status
    assert healthcheck[0] == "python"
    assert check_health(healthcheck, service.server_port) is healthy
    assert service.asked == ["/health/ready"]
    assert set(service.asked) <= routes(app)


def test_a_container_that_does_not_listen_is_unhealthy(healthcheck: list[str]) -> None:
    assert not check_health(healthcheck, free_port())


# Kubernetes


def test_the_same_user_that_is_not_root_is_named_by_number_in_both(
    dockerfile: list[Instruction], pod: dict[str, Any]
) -> None:
    [user] = arguments(dockerfile, "USER")
    context = pod["securityContext"]
    assert user == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    [line] = [line for line in arguments(dockerfile, "RUN") if "useradd" in line]
    assert f"--uid {context['runAsUser']} " in line


def test_the_image_is_this_version(container: dict[str, Any]) -> None:
    assert container["image"] == f"lantern:{__version__}"
    assert f"docker build -t {container['image']} ." in (ROOT / "Dockerfile").read_text()


def test_three_replicas_are_found_by_their_labels(
    documents: dict[str, Any], deployment: dict[str, Any]
) -> None:
    assert deployment["replicas"] == 3
    labels = deployment["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "lantern"
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    assert documents["Service"]["spec"]["selector"].items() <= labels.items()


def test_the_service_leads_to_the_port_that_is_listened_on(
    documents: dict[str, Any], container: dict[str, Any], settings: Settings
) -> None:
    [target] = documents["Service"]["spec"]["ports"]
    [port] = container["ports"]
    assert (target["port"], target["targetPort"]) == (80, port["name"])
    assert port["containerPort"] == settings.server.port


@pytest.mark.parametrize("probe", PROBES)
def test_each_probe_asks_a_path_that_the_application_answers(
    app: Flask, container: dict[str, Any], probe: str
) -> None:
    request = container[probe]["httpGet"]
    assert request["path"] == PROBES[probe]
    assert request["path"] in routes(app)
    assert request["port"] == container["ports"][0]["name"]


def test_a_start_may_take_longer_than_a_worker_is_given_to_load(
    container: dict[str, Any], settings: Settings
) -> None:
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > settings.server.timeout_seconds


def test_prometheus_is_led_to_the_metrics(
    app: Flask, deployment: dict[str, Any], settings: Settings
) -> None:
    annotations = deployment["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true"
    assert annotations["prometheus.io/port"] == str(settings.server.port)
    assert annotations["prometheus.io/path"] in routes(app)


def test_a_pod_has_one_worker_for_each_core_of_its_limit(
    container: dict[str, Any], settings: Settings
) -> None:
    assert settings.server.workers == int(container["resources"]["limits"]["cpu"])
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}


def test_a_pod_is_given_the_time_that_its_workers_take_to_finish(
    pod: dict[str, Any], container: dict[str, Any], settings: Settings
) -> None:
    program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    needed = int(seconds) + settings.server.graceful_timeout_seconds
    assert needed < pod["terminationGracePeriodSeconds"]


def test_the_docker_command_gives_the_time_that_workers_take_to_finish(settings: Settings) -> None:
    [seconds] = re.findall(r"--stop-timeout (\d+)", (ROOT / "Dockerfile").read_text())
    assert settings.server.graceful_timeout_seconds < int(seconds)


def test_a_pod_may_do_no_more_than_it_must(pod: dict[str, Any], container: dict[str, Any]) -> None:
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    writable = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    [volume] = pod["volumes"]
    assert "emptyDir" in volume
    assert writable == {volume["name"]: "/tmp"}


def test_a_service_named_like_the_settings_adds_no_variables(
    documents: dict[str, Any], pod: dict[str, Any]
) -> None:
    assert documents["Service"]["metadata"]["name"] == "lantern"
    assert pod["enableServiceLinks"] is False
