"""``docs/capacity.md`` calculates with what was measured, and what it measures itself is so."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import pytest
import requests
import yaml
from flask import Flask

from app.settings import load_settings
from tests.capacity import DOCUMENT, calculated
from tests.deploy.manifests import KUBERNETES, mebibytes
from tests.http.test_costs import call
from tests.integration.conftest import Server, wait_for
from trials.fuzz.costs import SHAPES, SIZE

REQUESTS = 50


def written(what: str) -> list[int]:
    """The numbers of the document's table in the row that begins so."""
    row = rf"^\| {re.escape(what)}.*\| ([^|]*) \|$"
    [value] = re.findall(row, DOCUMENT.read_text(), re.MULTILINE)
    return [int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", value)]


def test_the_arithmetic_holds() -> None:
    text = DOCUMENT.read_text()
    assert text.count("print(") > 20
    assert calculated(text) == text, "run python -m tests.capacity"


def test_the_memory_at_the_worst_is_within_the_limit_of_the_pod() -> None:
    spec = yaml.safe_load((KUBERNETES / "base" / "deployment.yaml").read_text())["spec"]
    [container] = spec["template"]["spec"]["containers"]
    limits = container["resources"]["limits"]
    held = int(limits["cpu"]) * load_settings({}).limits.max_held_bytes / 2**20
    [worst] = re.findall(r": (\d+) MiB at the worst", DOCUMENT.read_text())
    assert held < int(worst) < mebibytes(limits["memory"])


@pytest.mark.parametrize(
    "name", ["empty rows", "empty rows, then a number", "unknown names", "wide characters"]
)
def test_a_body_that_is_refused_takes_no_more_memory_than_the_document_says(
    app: Flask, name: str
) -> None:
    [times] = map(int, re.findall(r"up to (\d+) times its bytes", DOCUMENT.read_text()))
    (shape,) = (shape for shape in SHAPES if shape.name == name)
    body = shape.body(SIZE // 4)
    call(app, shape.path, shape.body(20_000))
    tracemalloc.start()
    try:
        call(app, shape.path, body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(body) + peak < times * len(body)


def test_what_is_logged_and_scraped_is_as_much_as_the_document_says(
    sample: dict[str, float], tmp_path: Path
) -> None:
    server = Server(["-w", "2"], {}, tmp_path / "log")

    def logged(path: str, body: object) -> float:
        """Bytes of the lines of one request to ``path``."""
        before = server.log.stat().st_size
        for _ in range(REQUESTS):
            assert session.post(server.url + path, json=body, timeout=10).ok
        line = f'"path":"{path}"'
        wait_for(lambda: server.log.read_text().count(line) >= REQUESTS)
        return (server.log.stat().st_size - before) / REQUESTS

    try:
        server.wait_until_up()
        with requests.Session() as session:
            wait_for(lambda: session.get(f"{server.url}/health/ready", timeout=5).ok)
            one = logged("/predict", {"features": sample})
            many = logged("/predict/batch", {"samples": [sample] * 1000})
            session.get(f"{server.url}/metrics", timeout=10)
            exposition = session.get(f"{server.url}/metrics", timeout=10).text
    finally:
        server.stop()
    series = [line for line in exposition.splitlines() if line and not line.startswith("#")]
    assert [one] == pytest.approx(written("log of one prediction"), rel=0.1)
    assert [many] == pytest.approx(written("log of a batch of 1,000"), rel=0.1)
    assert [len(series), len(exposition)] == pytest.approx(written("`/metrics` of a pod"), rel=0.1)
