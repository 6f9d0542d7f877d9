"""Compose, Prometheus and Grafana say what the application itself says, and the alerts fire.

Rules and queries are judged by a real Prometheus, which is skipped where there is none.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from compose_spec import PyCompose
from flask import Flask

from app import __version__
from app.settings import Settings
from app.telemetry.metrics import Metrics
from app.telemetry.registry import Histogram
from tests.conftest import ROOT
from tests.deploy.conftest import read_stages, settings_in_image
from tests.integration.conftest import Server, free_port, wait_for

PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
COMPOSE = (ROOT / "compose.yaml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
CONFIG = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
RULES = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((GRAFANA / "dashboards" / "lantern.json").read_text())
ALERTS = [rule["alert"] for rule in RULES]
OF_PROMETHEUS = {"namespace", "job", "instance", "le"}
"""Labels that Prometheus adds, or that a histogram has beside its own."""

needs_prometheus = pytest.mark.skipif(
    not shutil.which("prometheus") or not shutil.which("promtool"),
    reason="Debian's package prometheus is not installed",
)


def dashboard_queries() -> list[str]:
    """Return what the dashboard asks, its annotations included, with its variables filled in."""
    targets = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    notes = [note["expr"] for note in DASHBOARD["annotations"]["list"]]
    filled = [re.sub(r"\$(instance|model)\b", ".*", query) for query in targets + notes]
    return [query.replace("$__rate_interval", "1m") for query in filled]


QUERIES = dashboard_queries()


# Compose


def test_compose_accepts_the_file() -> None:
    PyCompose.from_yaml(COMPOSE).validate()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_and_may_do_no_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+(-onnx)?", service["image"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    for port in service["ports"]:
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("name", SERVICES)
def test_whatever_a_service_mounts_is_there_or_a_volume(name: str) -> None:
    volumes = yaml.safe_load(COMPOSE)["volumes"]
    for mount in SERVICES[name]["volumes"]:
        source, _, options = mount.partition(":")
        if source.startswith("./"):
            assert (ROOT / source).is_dir()
            assert options.endswith(":ro")
        else:
            assert source in volumes


@pytest.fixture
def settings() -> Settings:
    """The settings in force in compose's container."""
    return settings_in_image(SERVICES["lantern"]["environment"])


def test_lantern_is_this_version_without_torch() -> None:
    lantern = SERVICES["lantern"]
    assert lantern["image"] == f"lantern:{__version__}-{lantern['build']['target']}"
    assert lantern["build"]["target"] in read_stages()


def test_lantern_is_published_where_it_listens_and_given_time_to_finish(settings: Settings) -> None:
    lantern = SERVICES["lantern"]
    assert lantern["ports"] == [f"127.0.0.1:8000:{settings.server.port}"]
    seconds = int(lantern["stop_grace_period"].removesuffix("s"))
    assert settings.server.graceful_timeout_seconds < seconds


def test_whoever_gets_to_the_published_port_needs_no_key(settings: Settings) -> None:
    """And Prometheus, which is given none."""
    assert settings.access.auth == "none"
    assert "authorization" not in CONFIG["scrape_configs"][0]


def test_prometheus_scrapes_lantern_by_its_name(app: Flask, settings: Settings) -> None:
    [job] = CONFIG["scrape_configs"]
    assert job["job_name"] == "lantern"
    assert job["static_configs"] == [{"targets": [f"lantern:{settings.server.port}"]}]
    assert job.get("metrics_path", "/metrics") in {rule.rule for rule in app.url_map.iter_rules()}
    assert "--config.file=/etc/prometheus/prometheus.yml" in SERVICES["prometheus"]["command"]
    assert "./deploy/prometheus:/etc/prometheus:ro" in SERVICES["prometheus"]["volumes"]
    assert CONFIG["rule_files"] == ["alerts.yml"]


def test_grafana_is_given_the_data_and_the_dashboard() -> None:
    grafana = SERVICES["grafana"]
    provisioning = GRAFANA / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == CONFIG["global"]["scrape_interval"]
    [provider] = yaml.safe_load((provisioning / "dashboards" / "lantern.yml").read_text())[
        "providers"
    ]
    path = provider["options"]["path"]
    assert f"./deploy/grafana/dashboards:{path}:ro" in grafana["volumes"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{path}/lantern.json"
    asked = re.findall(
        r'"uid": "(\w+)"', json.dumps(DASHBOARD["panels"] + DASHBOARD["templating"]["list"])
    )
    assert set(asked) == {source["uid"]}


def test_panels_stand_beside_each_other_and_have_names_of_their_own() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    for key in ("id", "title"):
        assert len({panel[key] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


# Metrics

QUIET = ("lantern_http_requests_rejected_total", "lantern_log_lines_dropped_total", "ALERTS")
"""What has no series until something is wrong."""


def known_metrics() -> dict[str, set[str]]:
    """Return the labels of every series that the application's metrics can have, by its name."""
    known = {}
    for name, family in Metrics().registry.families.items():
        suffixes = ("_bucket", "_sum", "_count") if isinstance(family, Histogram) else ("",)
        known |= {name + suffix: set(family.labelnames) for suffix in suffixes}
    return known


@pytest.mark.parametrize("query", [rule["expr"] for rule in RULES] + QUERIES)
def test_rules_and_dashboard_ask_for_metrics_and_labels_that_there_are(query: str) -> None:
    known = known_metrics()
    used = set(re.findall(r"\blantern_\w+", query))
    assert used <= known.keys()
    labels = OF_PROMETHEUS.union(*(known[name] for name in used)) | {"alertstate", "alertname"}
    grouped = re.findall(r"\b(?:by|on|group_left) \(([^)]*)\)", query)
    matched = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", query)
    asked = {word for group in grouped for word in re.findall(r"\w+", group)} | set(matched)
    assert asked <= labels


def test_every_alert_says_how_bad_it_is_and_what_to_look_at() -> None:
    assert len(set(ALERTS)) == len(ALERTS)
    for rule in RULES:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description"}


# Prometheus judges


A = 'job="lantern", instance="a:8000"'
MODEL = 'model="m", version="1"'
PREDICT = 'route="/predict"'
SECONDS = f"lantern_http_request_duration_seconds_bucket{{{A}, {PREDICT}, le="
INFO = f'lantern_model_info{{{A}, {MODEL}, role="stable"}}'
OUTSIDE = f'lantern_features_out_of_range_total{{{A}, {MODEL}, feature="age"}}'
STATUS = f"lantern_http_requests_total{{{A}, {PREDICT}, status="
PROBES = f'lantern_http_requests_total{{{A}, route="/health/ready", status="503"}}'
SCRAPES = f'lantern_http_requests_total{{{A}, route="/metrics", status="200"}}'
HEALTHY = {
    f"up{{{A}}}": "1x60",
    INFO: "1x60",
    f'lantern_release_rejected{{{A}, model="m"}}': "0x60",
    f'lantern_release_changes_total{{{A}, model="m"}}': "2x30 4x30",
    f'{STATUS}"200"}}': "0+6000x60",
    f'{STATUS}"503"}}': "0+600x60",
    PROBES: "0+6000x60",
    SCRAPES: "0+4x30 0+4x30",
    f'{SECONDS}"0.25"}}': "0+5990x60",
    f'{SECONDS}"0.5"}}': "0+6000x60",
    f'{SECONDS}"+Inf"}}': "0+6000x60",
    f'lantern_http_requests_rejected_total{{{A}, reason="overloaded"}}': "0+30x60",
    f"lantern_log_lines_dropped_total{{{A}}}": "3x60",
    f"lantern_predicted_rows_total{{{A}, {MODEL}}}": "0+6000x60",
    OUTSIDE: "0+500x60",
}
"""Series of an hour in which all is as it should be, or nearly."""

TROUBLES: list[tuple[str, dict[str, str]]] = [
    ("LanternDown", {f"up{{{A}}}": "1x30 0x30"}),
    ("LanternNotWatched", {f"up{{{A}}}": "1x30 stale"}),
    ("LanternModelUnavailable", {INFO: "1x30 0x30"}),
    ("LanternModelUnavailable", {INFO: "1x30 stale"}),
    ("LanternReleaseRejected", {f'lantern_release_rejected{{{A}, model="m"}}': "0x30 1x30"}),
    ("LanternErrors", {f'{STATUS}"500"}}': "0+120x60"}),
    ("LanternSlow", {f'{SECONDS}"0.25"}}': "0+5900x60"}),
    (
        "LanternRefusing",
        {f'lantern_http_requests_rejected_total{{{A}, reason="overloaded"}}': "0+600x60"},
    ),
    ("LanternRestarts", {SCRAPES: "0+4x40 0+4x5 0+4x5 0+4x20"}),
    ("LanternWorkersRestart", {f'lantern_release_changes_total{{{A}, model="m"}}': "0+4x60"}),
    ("LanternLogLinesDropped", {f"lantern_log_lines_dropped_total{{{A}}}": "3x52 4x8"}),
    ("LanternFeaturesOutOfRange", {OUTSIDE: "0+700x60"}),
]


def firing_is(expected: list[str], series: dict[str, str], directory: Path) -> None:
    """Have promtool check which alerts fire at the end of the hour that ``series`` describe."""
    test = {
        "rule_files": [str(PROMETHEUS / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": k, "values": v} for k, v in series.items()],
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": "58m",
                        "exp_samples": [
                            {"labels": f'{{alertname="{name}"}}', "value": 1} for name in expected
                        ],
                    }
                ],
            }
        ],
    }
    file = directory / "test.yml"
    file.write_text(yaml.safe_dump(test))
    ran = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_prometheus
def test_no_alert_fires_where_all_is_well(tmp_path: Path) -> None:
    firing_is([], HEALTHY, tmp_path)


@needs_prometheus
@pytest.mark.parametrize(("alert", "changed"), TROUBLES, ids=[name for name, _ in TROUBLES])
def test_the_alert_that_is_about_a_trouble_fires_and_no_other(
    tmp_path: Path, alert: str, changed: dict[str, str]
) -> None:
    firing_is([alert], HEALTHY | changed, tmp_path)


def test_every_alert_was_seen_to_fire() -> None:
    assert {name for name, _ in TROUBLES} == set(ALERTS)


@needs_prometheus
def test_prometheus_accepts_its_configuration() -> None:
    command = ["promtool", "check", "config", str(PROMETHEUS / "prometheus.yml")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


class Watched:
    """A Lantern that answers, and the Prometheus that scrapes it."""

    def __init__(self, server: Server, url: str) -> None:
        self.server = server
        self.url = url

    def api(self, path: str, **parameters: str) -> Any:
        answer = requests.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=120)
        body = answer.json()
        assert body["status"] == "success", body
        return body["data"]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The committed configuration, but for where Lantern is and how often it is asked."""
    directory = tmp_path_factory.mktemp("prometheus")
    server = Server(["-w", "2"], {}, directory / "lantern.log")
    config = json.loads(json.dumps(CONFIG).replace("15s", "1s"))
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{server.port}"]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(PROMETHEUS / "alerts.yml", directory)
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        server.wait_until_up()
        yield Watched(server, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(120)
        server.stop()


@pytest.fixture(scope="module")
def with_traffic(watched: Watched, manifest: dict[str, Any]) -> Watched:
    """The same after some predictions, out of range among them, were seen by Prometheus."""
    features = {feature["name"]: feature["example"] for feature in manifest["features"]}

    def seen() -> bool:
        for age in (features["age"], 199):
            body = {"features": {**features, "age": age}}
            requests.post(f"{watched.server.url}/predict", json=body, timeout=120)
        with contextlib.suppress(requests.ConnectionError):
            query = "rate(lantern_features_out_of_range_total[1m]) > 0"
            return bool(watched.api("query", query=query)["result"])
        return False

    wait_for(seen)
    return watched


@needs_prometheus
def test_a_prometheus_scrapes_a_lantern_and_evaluates_every_rule(with_traffic: Watched) -> None:
    [target] = with_traffic.api("targets")["activeTargets"]
    assert (target["health"], target["labels"]["job"]) == ("up", "lantern"), target["lastError"]

    def evaluated() -> list[dict[str, Any]] | None:
        [group] = with_traffic.api("rules")["groups"]
        rules: list[dict[str, Any]] = group["rules"]
        return None if any(rule["health"] == "unknown" for rule in rules) else rules

    rules = wait_for(evaluated)
    assert {rule["name"]: rule["health"] for rule in rules} == dict.fromkeys(ALERTS, "ok")
    assert {rule["state"] for rule in rules} <= {"inactive", "pending"}


@needs_prometheus
@pytest.mark.parametrize("query", QUERIES)
def test_what_the_dashboard_asks_is_answered(with_traffic: Watched, query: str) -> None:
    result = with_traffic.api("query", query=query)["result"]
    assert result or any(name in query for name in QUIET), "nothing to show"
