"""The Kubernetes manifest says what the application itself says."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from flask import Flask

from app import __version__
from app.settings import Settings, load_settings
from tests.conftest import ROOT
from tests.deploy.conftest import Instruction, arguments, read_environ, read_image

PROBES = {
    "startupProbe": "/health/live",
    "livenessProbe": "/health/live",
    "readinessProbe": "/health/ready",
}


@pytest.fixture(scope="module")
def dockerfile() -> list[Instruction]:
    return read_image()


@pytest.fixture(scope="module")
def image_environ(dockerfile: list[Instruction]) -> dict[str, str]:
    return read_environ(dockerfile)


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
