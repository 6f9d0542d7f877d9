"""What is logged of a request and a prediction, and in which form."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from app.settings import load_settings
from app.telemetry.logs import EventLog, configure_logging
from tests.conftest import ROOT

Lines = Callable[[], list[dict[str, Any]]]


def test_a_prediction_leaves_one_line_for_itself_and_one_for_its_request(
    make_app: Callable[..., Flask], sample: dict[str, float], log_lines: Lines
) -> None:
    client = make_app().test_client()
    headers = {"X-Request-ID": "r-1"}
    answer = client.post("/predict", json={"features": sample}, headers=headers).get_json()
    prediction, request = log_lines()
    assert request["logger"] == "lantern.request"
    assert (request["method"], request["path"], request["status"]) == ("POST", "/predict", 200)
    assert request["model_version"] == answer["model_version"]
    assert request["rows"] == 1
    assert request["milliseconds"] > 0
    assert request["time"].endswith("+00:00")
    assert prediction["logger"] == "lantern.prediction"
    assert prediction["prediction"] == answer["label"]
    assert prediction["confidence"] == pytest.approx(
        max(answer["probabilities"].values()), abs=1e-6
    )
    assert prediction["request_id"] == request["request_id"] == "r-1"
    assert "features" not in prediction


def test_feature_values_are_logged_only_when_a_setting_allows(
    make_app: Callable[..., Flask], sample: dict[str, float], log_lines: Lines
) -> None:
    client = make_app(LOGGING__FEATURES="true").test_client()
    sample |= {"income": None, "age": 42}
    client.post("/predict", json={"features": sample})
    features = log_lines()[0]["features"]
    assert features["age"] == 42
    assert features["income"] is None
    assert set(features) == set(sample)


def test_a_batch_leaves_one_line_with_its_rows(
    make_app: Callable[..., Flask], sample: dict[str, float], log_lines: Lines
) -> None:
    make_app().test_client().post("/predict/batch", json={"samples": [sample] * 7})
    (line,) = log_lines()
    assert line["rows"] == 7
    assert line["path"] == "/predict/batch"


def test_a_refused_request_leaves_a_line_too_and_no_value_of_it(
    make_app: Callable[..., Flask], sample: dict[str, float], log_lines: Lines
) -> None:
    sample["age"] = "a secret"
    make_app().test_client().post("/predict", json={"features": sample})
    (line,) = log_lines()
    assert line["status"] == 422
    assert line["model_version"]
    assert "secret" not in json.dumps(line)


def test_nothing_a_caller_sends_can_forge_a_line(
    make_app: Callable[..., Flask], log_lines: Lines
) -> None:
    make_app().test_client().get('/a%0A{"level":"ERROR"}' + "x" * 1000)
    (line,) = log_lines()
    assert line["level"] == "INFO"
    assert len(line["path"]) == 200


@pytest.mark.parametrize("form", ["json", "console"])
def test_lines_are_for_programs_or_for_people(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(load_settings({"LANTERN_LOGGING__FORMAT": form}).logging)
    logging.getLogger("lantern.x").info("it works", extra={"rows": 3, "path": "/a b\nc"})
    (line,) = capsys.readouterr().out.splitlines()
    if form == "json":
        document = json.loads(line)
        assert (document["message"], document["rows"]) == ("it works", 3)
    else:
        assert "INFO" in line
        assert "it works  rows=3  path='/a b\\nc'" in line


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_event_is_written_as_any_record_is(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(load_settings({"LANTERN_LOGGING__FORMAT": form}).logging)
    fields = {"request_id": "r-1", "path": "/a b\nc", "rows": None, "milliseconds": 0.5}
    EventLog("lantern.x").info("it works", fields, more_follows=True)
    logging.getLogger("lantern.x").info("it works", extra=fields)
    event, record = capsys.readouterr().out.splitlines()
    if form == "json":
        events, records = json.loads(event), json.loads(record)
        assert abs(
            datetime.fromisoformat(events.pop("time")) - datetime.fromisoformat(records.pop("time"))
        ) < timedelta(seconds=60)
        assert events == records
    else:
        assert event.partition("[")[2] == record.partition("[")[2]


def test_a_line_that_another_follows_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written))
    configure_logging(load_settings({}).logging)
    events = EventLog("lantern.x")
    events.info("first", {}, more_follows=True)
    assert written.getvalue() == b""
    events.info("second", {})
    assert written.getvalue().count(b"\n") == 2


def test_an_event_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(load_settings({"LANTERN_LOGGING__LEVEL": "WARNING"}).logging)
    EventLog("lantern.x").info("hidden", {})
    assert capsys.readouterr().out == ""


def test_no_two_requests_get_the_same_id_in_whatever_process() -> None:
    program = """
import os
from app.http.context import RequestContext
ids = lambda: [RequestContext("GET", "/", {}).request_id for _ in range(3)]
print(*ids(), flush=True)
if not os.fork():
    print(*ids(), flush=True)
    os._exit(0)
os.wait()
print(*ids())
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    ids = ran.stdout.split()
    assert len(ids) == len(set(ids)) == 9
    assert all(re.fullmatch("[0-9a-f]{32}", id) for id in ids)


def test_the_level_hides_what_is_less_severe(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(load_settings({"LANTERN_LOGGING__LEVEL": "WARNING"}).logging)
    logging.getLogger("lantern.x").info("hidden")
    logging.getLogger("lantern.x").warning("shown")
    assert "shown" in (out := capsys.readouterr().out)
    assert "hidden" not in out
