"""The manifests for KServe start the image as it is, and lead to what it answers.

KServe's own kinds have no schema in a package that can be installed beside the libraries here. What
they hold of Kubernetes' own, which is most, is checked against that; the rest is named below.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask

from app import __version__
from tests.conftest import BUNDLE
from tests.deploy.manifests import (
    KSERVE,
    NEWEST,
    OLDEST,
    Document,
    check_against_the_schema,
    documents,
    image,
    mounts,
    seconds_to_end,
    settings_in_force,
    variables,
)
from tests.integration.conftest import Server, wait_for

OF_PREDICTOR = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "timeout", "model"}
"""Fields that KServe adds to those of a pod."""
MOUNTED_AT = "/mnt/models"
SECONDS_TO_END = 30
"""How long a pod may take to end where terminationGracePeriodSeconds doesn't say it."""


@pytest.fixture(scope="module")
def service() -> Document:
    [document] = documents(KSERVE / "inference-service.yaml")
    return document


@pytest.fixture(scope="module")
def runtime() -> Document:
    document, _ = documents(KSERVE / "runtime.yaml")
    return document


@pytest.fixture(scope="module")
def short() -> Document:
    """The service that leaves all but the model to the runtime."""
    _, document = documents(KSERVE / "runtime.yaml")
    return document


@pytest.fixture(scope="module", params=["service", "runtime"])
def pod(request: pytest.FixtureRequest, service: Document, runtime: Document) -> Document:
    """What a pod is made of, of either, without what KServe adds."""
    if request.param == "service":
        predictor = service["spec"]["predictor"]
        return {key: value for key, value in predictor.items() if key not in OF_PREDICTOR}
    return {key: runtime["spec"][key] for key in ("containers", "volumes")}


@pytest.fixture(scope="module")
def container(pod: Document) -> Document:
    [container] = pod["containers"]
    assert isinstance(container, dict)
    return container


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_what_is_kubernetes_own_is_what_its_schema_says(pod: Document, version: str) -> None:
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}
    check_against_the_schema(document, version)


def test_the_kinds_are_kserves(service: Document, runtime: Document, short: Document) -> None:
    assert service["apiVersion"] == short["apiVersion"] == "serving.kserve.io/v1beta1"
    assert service["kind"] == short["kind"] == "InferenceService"
    assert runtime["apiVersion"] == "serving.kserve.io/v1alpha1"
    assert runtime["kind"] == "ServingRuntime"
    of_kserve = {"supportedModelFormats", "protocolVersions"}
    assert set(runtime["spec"]) == of_kserve | {"containers", "volumes"}
    assert runtime["spec"]["protocolVersions"] == ["v2"]


def test_the_short_service_is_of_the_runtime(runtime: Document, short: Document) -> None:
    predictor = short["spec"]["predictor"]
    assert set(predictor) <= OF_PREDICTOR
    [format_] = runtime["spec"]["supportedModelFormats"]
    assert predictor["model"]["modelFormat"]["name"] == format_["name"]
    assert predictor["model"]["runtime"] == runtime["metadata"]["name"]


def test_the_container_is_the_one_that_kserve_leads_requests_to(container: Document) -> None:
    assert container["name"] == "kserve-container"
    [port] = container["ports"]
    assert port["name"] == "http1"
    assert port["containerPort"] == image().port == settings_in_force(container).server.port


def test_the_image_and_its_user_are_the_images(pod: Document, container: Document) -> None:
    assert container["image"] == f"lantern:{__version__}"
    context = pod.get("securityContext", {}) | container["securityContext"]
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == image().user
    assert context["runAsNonRoot"] is True
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_the_settings_are_those_of_a_pod(pod: Document, container: Document) -> None:
    settings = settings_in_force(container)
    assert settings.server.host == "0.0.0.0"
    assert settings.server.workers == int(container["resources"]["limits"]["cpu"])
    assert list(settings.models.values()) == [Path(MOUNTED_AT)]
    keys = Path(settings.access.keys_file)
    _, volume = mounts(pod, container)[str(keys.parent)]
    assert volume["secret"]["secretName"] == "lantern-keys"
    given = seconds_to_end(container) + settings.server.graceful_timeout_seconds
    assert given < pod.get("terminationGracePeriodSeconds", SECONDS_TO_END)


def test_the_probes_ask_what_the_application_answers(app: Flask, container: Document) -> None:
    routes = {rule.rule for rule in app.url_map.iter_rules()}
    asked = {name: container[name]["httpGet"] for name in ("readinessProbe", "livenessProbe")}
    assert {name: request["path"] for name, request in asked.items()} == {
        "readinessProbe": "/health/ready",
        "livenessProbe": "/health/live",
    }
    for request in asked.values():
        assert request["path"] in routes
        assert request["port"] == container["ports"][0]["containerPort"]


def test_a_key_can_be_read_without_a_group_where_there_is_none(
    pod: Document, container: Document
) -> None:
    _, volume = mounts(pod, container)["/lantern/keys"]
    has_group = "fsGroup" in pod.get("securityContext", {})
    assert volume["secret"]["defaultMode"] == (0o440 if has_group else 0o444)


def paths_in_readme() -> list[tuple[str, str, str]]:
    readme = (KSERVE / "README.md").read_text()
    return re.findall(r"^\| `(GET|POST) (\S+)` \| (\w+)", readme, re.MULTILINE)


@pytest.fixture(scope="module")
def server(service: Document, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Lantern with the variables of the InferenceService, the model elsewhere than at /mnt."""
    directory = tmp_path_factory.mktemp("kserve")
    (directory / "1").symlink_to(BUNDLE)
    [container] = service["spec"]["predictor"]["containers"]
    settings = {
        name.removeprefix("LANTERN_"): value.replace(MOUNTED_AT, str(directory))
        for name, value in variables(container).items()
        if name.startswith("LANTERN_")
    }
    started = Server([], settings, directory / "log")
    try:
        started.wait_until_up()
        wait_for(lambda: requests.get(f"{started.url}/health/ready", timeout=120).ok)
        yield started
    finally:
        started.stop()


def test_the_readme_says_which_paths_answer(server: Server, sample: dict[str, float]) -> None:
    rows = paths_in_readme()
    assert {answer for _, _, answer in rows} == {"yes", "no"}
    bodies: dict[str, object] = {
        "predict": {"features": sample},
        "batch": {"samples": [sample]},
        ":predict": {"instances": [list(sample.values())]},
        "infer": {
            "inputs": [
                {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
                for name, value in sample.items()
            ]
        },
    }
    for method, path, answer in rows:
        body = next((b for end, b in bodies.items() if path.endswith(end)), None)
        body = bodies[":predict"] if path.endswith(":predict") else body
        got = requests.request(method, server.url + path, json=body, timeout=120)
        assert got.status_code == {"yes": 200, "no": 404}[answer], path
