"""The manifests for Kubernetes are valid, and say what the application and the image say."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pytest
import requests
import yaml
from flask import Flask

from app import __version__
from app.settings import FILE_VARIABLE, Settings
from tests.conftest import ROOT
from tests.deploy.manifests import (
    KUBERNETES,
    NEWEST,
    OLDEST,
    Document,
    build,
    build_with,
    check_against_the_schema,
    documents,
    image,
    mebibytes,
    mounts,
    seconds_to_end,
    settings_in_force,
    variables,
)
from tests.integration.conftest import Server, wait_for

Release = Callable[..., "subprocess.CompletedProcess[str]"]

README = KUBERNETES / "README.md"
TAGS = {"cpu": __version__, "gpu": f"{__version__}-cuda"}
"""The overlays, and the tag of the image of each."""
COMPONENTS = sorted(path.name for path in (KUBERNETES / "components").iterdir())
JOB = KUBERNETES / "jobs" / "release.yaml"
MONITORING = KUBERNETES / "components" / "monitoring"
OF_PROMETHEUS = "monitoring.coreos.com/v1"
PROBES = {
    "startupProbe": "/health/live",
    "livenessProbe": "/health/live",
    "readinessProbe": "/health/ready",
}


@pytest.fixture(scope="module", params=TAGS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def built(overlay: str) -> dict[str, Document]:
    """What the overlay gives, by kind; there is one of each."""
    found = build(KUBERNETES / "overlays" / overlay)
    by_kind = {document["kind"]: document for document in found}
    assert len(by_kind) == len(found)
    return by_kind


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    """What an overlay gives with the limits of all pods counted in Redis."""
    return build_with("overlays/cpu", ["shared-limits"], tmp_path_factory.mktemp("limited"))


@pytest.fixture(scope="module")
def deployment(built: dict[str, Document]) -> Document:
    spec: Document = built["Deployment"]["spec"]
    return spec


@pytest.fixture(scope="module")
def pod(deployment: Document) -> Document:
    spec: Document = deployment["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def container(pod: Document) -> Document:
    [container] = pod["containers"]
    assert isinstance(container, dict)
    return container


@pytest.fixture(scope="module")
def settings(
    built: dict[str, Document], container: Document, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """The settings in force in a pod of the overlay."""
    [text] = built["ConfigMap"]["data"].values()
    file = tmp_path_factory.mktemp("settings") / "lantern.toml"
    file.write_text(text)
    return settings_in_force(container, file)


@pytest.fixture(scope="module")
def job() -> Document:
    [document] = documents(JOB)
    return document


@pytest.fixture(scope="module")
def releasing(job: Document) -> Document:
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


@pytest.fixture(scope="module")
def metrics(app: Flask, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the metrics that the application has, used or not yet, and its workers too."""
    server = Server(["-w", "1"], {}, tmp_path_factory.mktemp("metrics") / "log")

    def of_workers() -> str:
        text = requests.get(f"{server.url}/metrics", timeout=120).text
        return text if "lantern_http_requests_in_flight" in text else ""

    try:
        server.wait_until_up()
        text = wait_for(of_workers)
    finally:
        server.stop()
    text += app.test_client().get("/metrics").get_data(as_text=True)
    return set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))


def routes(app: Flask) -> set[str]:
    return {rule.rule for rule in app.url_map.iter_rules()}


# Schemas


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_kind_of_kubernetes_own_is_what_its_schema_says(
    built: dict[str, Document], limited: list[Document], job: Document, version: str
) -> None:
    own = [d for d in [*built.values(), *limited, job] if d["apiVersion"] != OF_PROMETHEUS]
    assert len(own) > 10
    for document in own:
        check_against_the_schema(document, version)


def test_the_kinds_of_the_prometheus_operator_are_what_its_schema_says(
    built: dict[str, Document],
) -> None:
    """Read by the schema's models and written again: a field they don't know would be lost."""
    # Takes seconds, which every process that collects this module would spend.
    from cloudcoil.models.prometheus_operator import v1 as prometheus

    for kind in ("ServiceMonitor", "PrometheusRule"):
        read = getattr(prometheus, kind).model_validate(built[kind])
        assert read.model_dump(by_alias=True, exclude_unset=True, mode="json") == built[kind]


def test_each_overlay_has_all_that_a_service_needs(built: dict[str, Document]) -> None:
    assert set(built) == {
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "PrometheusRule",
        "Service",
        "ServiceMonitor",
    }


@pytest.mark.parametrize("component", COMPONENTS)
def test_each_component_goes_with_the_base_alone(component: str, tmp_path: Path) -> None:
    for document in build_with("base", [component], tmp_path):
        if document["apiVersion"] != OF_PROMETHEUS:
            check_against_the_schema(document, NEWEST)


@pytest.mark.parametrize("overlay", TAGS)
def test_the_kustomization_of_the_readme_names_the_users_own_image(
    overlay: str, tmp_path: Path
) -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)
    checkout = os.path.relpath(ROOT, tmp_path)
    text = text.replace("- lantern/", f"- {checkout}/").replace(
        "overlays/cpu", f"overlays/{overlay}"
    )
    (tmp_path / "kustomization.yaml").write_text(text)
    built = build(tmp_path)
    [deployment] = [document for document in built if document["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"registry.example.org/lantern:{TAGS[overlay]}"
    assert {document["metadata"]["namespace"] for document in built} == {"models"}


# The image and its user


def test_the_image_is_this_version(overlay: str, container: Document, releasing: Document) -> None:
    assert container["image"] == f"lantern:{TAGS[overlay]}"
    assert releasing["image"] == f"lantern:{__version__}"


def test_the_user_is_the_images_by_number_and_not_root(pod: Document, job: Document) -> None:
    for spec in (pod, job["spec"]["template"]["spec"]):
        context = spec["securityContext"]
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == image().user
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        # Keys that only a group may read, and a volume that the job may write to.
        assert context["fsGroup"] == context["runAsGroup"]


def test_a_pod_may_do_no_more_than_it_must(
    pod: Document, container: Document, job: Document, releasing: Document
) -> None:
    for spec, one in ((pod, container), (job["spec"]["template"]["spec"], releasing)):
        assert one["securityContext"]["readOnlyRootFilesystem"] is True
        assert one["securityContext"]["allowPrivilegeEscalation"] is False
        assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False  # variables named like settings


def test_a_pod_writes_to_memory_alone(pod: Document, container: Document) -> None:
    at = mounts(pod, container)
    written = {path for path, (mount, _) in at.items() if not mount.get("readOnly")}
    assert written == {"/tmp"}
    assert image().environ["HOME"] == "/tmp"
    volume = at["/tmp"][1]["emptyDir"]
    assert volume["medium"] == "Memory"
    # It counts as the container's own, which needs most of it for something else.
    assert (
        mebibytes(volume["sizeLimit"]) <= mebibytes(container["resources"]["limits"]["memory"]) / 8
    )


# Settings


def test_the_settings_of_the_configmap_are_the_ones_that_are_read(
    built: dict[str, Document], pod: Document, container: Document
) -> None:
    path = PurePosixPath(variables(container)[FILE_VARIABLE])
    _, volume = mounts(pod, container)[str(path.parent)]
    assert volume["configMap"]["name"] == built["ConfigMap"]["metadata"]["name"]
    assert list(built["ConfigMap"]["data"]) == [path.name]


def test_changed_settings_are_a_new_rollout(built: dict[str, Document]) -> None:
    assert re.fullmatch(r"lantern-settings-[a-z0-9]{10}", built["ConfigMap"]["metadata"]["name"])


def test_a_pod_listens_on_all_interfaces_and_asks_for_keys(
    built: dict[str, Document], pod: Document, container: Document, settings: Settings
) -> None:
    assert settings.server.host == "0.0.0.0"
    assert settings.access.auth == "auto"
    file = PurePosixPath(settings.access.keys_file)
    mount, volume = mounts(pod, container)[str(file.parent)]
    assert volume["secret"]["secretName"] == "lantern-keys"
    assert volume["secret"]["optional"] is True
    assert "subPath" not in mount  # such a file never changes


def test_there_is_one_worker_for_each_core_or_each_gpu(
    overlay: str, container: Document, settings: Settings
) -> None:
    limits = container["resources"]["limits"]
    if overlay == "cpu":
        assert settings.server.workers == int(limits["cpu"])
        assert settings.worker_class == "keepalive"
    else:
        assert settings.server.workers == int(limits["nvidia.com/gpu"])
        assert settings.worker_class == "keepalive"
        assert settings.model.device == "cuda"
        assert settings.model.batch_rows != "auto"
        assert settings.model.batch_rows > settings.server.pool_threads > 1


def test_what_is_asked_for_is_what_is_allowed(container: Document) -> None:
    """The arithmetic of docs/capacity.md relies on it."""
    resources = container["resources"]
    for resource in ("cpu", "memory"):
        assert resources["requests"][resource] == resources["limits"][resource]
    for kind in ("requests", "limits"):
        assert "ephemeral-storage" in resources[kind]


def test_the_model_is_looked_for_on_the_volume(
    built: dict[str, Document], pod: Document, container: Document, settings: Settings
) -> None:
    path = PurePosixPath(image().directory) / settings.values["model.path"]
    mount, volume = mounts(pod, container)[str(path.parent)]
    assert (
        volume["persistentVolumeClaim"]["claimName"]
        == (built["PersistentVolumeClaim"]["metadata"]["name"])
    )
    assert mount["readOnly"] is True
    assert built["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]


# The life of a pod


@pytest.mark.parametrize("probe", PROBES)
def test_each_probe_asks_a_path_that_the_application_answers(
    app: Flask, container: Document, probe: str
) -> None:
    request = container[probe]["httpGet"]
    assert request["path"] == PROBES[probe]
    assert request["path"] in routes(app)
    assert request["port"] == container["ports"][0]["name"]


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe"])
def test_gunicorn_mends_a_worker_before_the_kubelet_ends_the_pod(
    container: Document, settings: Settings, probe: str
) -> None:
    seconds = container[probe]["periodSeconds"] * container[probe]["failureThreshold"]
    assert seconds > settings.server.timeout_seconds


def test_a_pod_is_given_the_time_that_its_workers_take_to_finish(
    pod: Document, container: Document, settings: Settings
) -> None:
    server = settings.server
    assert server.drain_seconds < server.graceful_timeout_seconds  # which it is a part of
    needed = seconds_to_end(container) + server.graceful_timeout_seconds
    assert needed < pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("overlay", ["cpu"], indirect=True)
def test_the_readme_tells_the_times_of_a_pod_that_goes(
    pod: Document, container: Document, settings: Settings
) -> None:
    server, wait = settings.server, seconds_to_end(container)
    readme = " ".join(README.read_text().split())
    for told in (
        f"`preStop` waits {wait} seconds",
        f"`graceful_timeout_seconds` ({server.graceful_timeout_seconds})",
        f"first `drain_seconds` ({server.drain_seconds:g})",
        f"{wait + server.graceful_timeout_seconds} seconds of the "
        f"{pod['terminationGracePeriodSeconds']} that",
    ):
        assert told in readme


def test_a_pod_that_goes_serves_until_the_probe_has_been_told(
    container: Document, settings: Settings
) -> None:
    probe = container["readinessProbe"]
    noticed = probe["periodSeconds"] * probe["failureThreshold"]
    assert seconds_to_end(container) + settings.server.drain_seconds > noticed


# What leads to the pods


def test_the_service_and_the_policy_lead_to_the_port_that_is_listened_on(
    built: dict[str, Document], container: Document, settings: Settings
) -> None:
    [port] = container["ports"]
    [target] = built["Service"]["spec"]["ports"]
    [rule] = built["NetworkPolicy"]["spec"]["ingress"]
    assert port["containerPort"] == settings.server.port == image().port
    assert (target["port"], target["targetPort"]) == (80, port["name"])
    assert [allowed["port"] for allowed in rule["ports"]] == [port["name"]]


def test_everything_that_speaks_of_the_pods_finds_them(
    built: dict[str, Document], deployment: Document, pod: Document
) -> None:
    labels = deployment["template"]["metadata"]["labels"].items()
    selectors = [
        deployment["selector"]["matchLabels"],
        built["Service"]["spec"]["selector"],
        built["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        built["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(one["labelSelector"]["matchLabels"] for one in pod["topologySpreadConstraints"]),
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels
    assert built["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"] == {
        key: built["Deployment"][key] for key in ("apiVersion", "kind")
    } | {"name": built["Deployment"]["metadata"]["name"]}


def test_pods_are_spread_over_zones_and_machines(pod: Document) -> None:
    spread = [one["topologyKey"] for one in pod["topologySpreadConstraints"]]
    assert spread == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]


def test_the_number_of_pods_is_the_autoscalers_alone(
    built: dict[str, Document], deployment: Document
) -> None:
    assert "replicas" not in deployment
    scaler = built["HorizontalPodAutoscaler"]["spec"]
    assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"]


def test_nothing_goes_out(built: dict[str, Document]) -> None:
    policy = built["NetworkPolicy"]["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert policy["egress"] == []


def test_limits_for_all_pods_are_counted_in_the_redis_that_may_be_reached(
    limited: list[Document], settings: Settings, tmp_path: Path
) -> None:
    [deployment] = [d for d in limited if d["kind"] == "Deployment"]
    [policy] = [d for d in limited if d["metadata"]["name"] == "lantern-redis"]
    [config] = [d for d in limited if d["kind"] == "ConfigMap"]
    file = tmp_path / "lantern.toml"
    file.write_text(*config["data"].values())
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    limits = settings_in_force(container, file).limits
    assert limits.rate
    address = urlsplit(limits.rate_storage)
    assert address.scheme == "redis"
    name_server, redis = policy["spec"]["egress"]
    assert {(p["port"], p["protocol"]) for p in name_server["ports"]} == {(53, "UDP"), (53, "TCP")}
    assert [(p["port"], p["protocol"]) for p in redis["ports"]] == [(address.port, "TCP")]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()


# Metrics


def test_prometheus_is_led_to_the_metrics_with_a_key(
    app: Flask, built: dict[str, Document]
) -> None:
    [endpoint] = built["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["path"] in routes(app)
    assert endpoint["port"] in [port["name"] for port in built["Service"]["spec"]["ports"]]
    assert endpoint["authorization"]["type"] == "Bearer"
    assert endpoint["authorization"]["credentials"] == {"name": "lantern-metrics-key", "key": "key"}
    selector = built["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert selector.items() <= built["Service"]["metadata"]["labels"].items()


def test_pods_are_added_by_requests_in_flight_and_on_cpus_by_their_load(
    overlay: str, built: dict[str, Document]
) -> None:
    found = built["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert [metric["type"] for metric in found] == {"cpu": ["Resource", "Pods"], "gpu": ["Pods"]}[
        overlay
    ]
    assert found[-1]["pods"]["metric"]["name"] == "lantern_http_requests_in_flight"


def test_the_adapter_gives_the_autoscaler_the_metric_it_asks_for(
    built: dict[str, Document], metrics: set[str]
) -> None:
    [document] = documents(MONITORING / "adapter-rules.yaml")
    [rule] = document["rules"]["custom"]
    name = built["HorizontalPodAutoscaler"]["spec"]["metrics"][-1]["pods"]["metric"]["name"]
    assert rule["seriesQuery"].partition("{")[0] == name
    assert name in metrics
    assert rule["resources"]["overrides"] == {
        label: {"resource": label} for label in ("namespace", "pod")
    }


def test_alerts_are_those_that_a_prometheus_has_judged(built: dict[str, Document]) -> None:
    """See `tests.deploy.test_compose`."""
    [judged] = documents(ROOT / "deploy" / "prometheus" / "alerts.yml")
    assert built["PrometheusRule"]["spec"] == judged
    # What they take for the job is what the ServiceMonitor makes it.
    label = built["ServiceMonitor"]["spec"]["jobLabel"]
    assert built["Service"]["metadata"]["labels"][label] == "lantern"
    assert 'job="lantern"' in str(judged)


# Releases


@pytest.fixture
def release(releasing: Document, python: Path) -> Release:
    """Run the job's own command, with ``volume`` where its volume is mounted."""

    def run(volume: Path, **others: str) -> subprocess.CompletedProcess[str]:
        names = variables(releasing) | others
        names["LANTERN_MODEL__PATH"] = f"{volume}/{names['NAME']}"
        path = f"{python.parent}:{os.environ['PATH']}"
        return subprocess.run(
            releasing["command"],
            cwd=ROOT,
            env={"PATH": path, "HOSTNAME": "lantern-release-x", **names},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_the_job_writes_to_the_volume_that_the_pods_read(
    built: dict[str, Document], job: Document, releasing: Document, settings: Settings
) -> None:
    environ = variables(releasing)
    at = mounts(job["spec"]["template"]["spec"], releasing)
    path = PurePosixPath(environ["LANTERN_MODEL__PATH"])
    mount, volume = at[str(path.parent)]
    claim = built["PersistentVolumeClaim"]["metadata"]["name"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim
    assert not mount.get("readOnly")
    assert path.name == PurePosixPath(settings.values["model.path"]).name
    assert (ROOT / "models" / environ["NAME"] / environ["VERSION"]).is_dir()


def test_a_pod_with_an_empty_volume_serves_once_the_job_has_run(
    releasing: Document, release: Release, tmp_path: Path
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    name = variables(releasing)["NAME"]
    server = Server(
        ["-w", "1"],
        {"MODEL__PATH": f"{volume}/{name}", "RELEASE__POLL_SECONDS": "0.1"},
        tmp_path / "log",
    )
    try:
        server.wait_until_up()
        assert requests.get(f"{server.url}/health/ready", timeout=120).status_code == 503
        done = release(volume)
        assert done.returncode == 0, done.stderr
        wait_for(lambda: requests.get(f"{server.url}/health/ready", timeout=120).ok)
    finally:
        server.stop()
    assert sorted(entry.name for entry in (volume / name).iterdir()) == [
        ".lock",
        "1",
        "history.jsonl",
        "release.toml",
    ]


def test_the_job_may_run_again_and_says_when_it_can_do_nothing(
    release: Release, tmp_path: Path
) -> None:
    assert release(tmp_path).returncode == 0
    again = release(tmp_path)
    assert (again.returncode, again.stderr) == (0, "Error: Version 1 is already stable.\n")
    missing = release(tmp_path, VERSION="2")
    assert missing.returncode == 1
    assert "models/campaign-response/2" in missing.stderr
    [version] = [path for path in tmp_path.glob("*/*") if path.is_dir()]
    assert version.name == "1"


# Names in the README beside


def test_the_readme_names_what_there_is() -> None:
    readme = README.read_text()
    for path in re.findall(r"(?<![\w/])(?:overlays|components|jobs|base)/[\w./-]+\b", readme):
        assert (KUBERNETES / path).exists(), path
    for path in re.findall(r"deploy/[\w./-]+\b", readme):
        assert (ROOT / path).exists(), path
    assert "lantern-keys" in readme
    assert "lantern-metrics-key" in readme
    assert yaml.safe_load((KUBERNETES / "base" / "kustomization.yaml").read_text())["images"] == [
        {"name": "lantern", "newTag": __version__}
    ]
