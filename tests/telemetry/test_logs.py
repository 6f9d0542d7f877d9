"""What is logged of a request and a prediction, and in which form."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from app.settings import load_settings
from app.telemetry.logs import EventLog, JsonFormatter, configure_logging
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
    EventLog("lantern.x").info("it works", fields)
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
    second = EventLog("lantern.x")
    first = EventLog("lantern.y", before=second)
    first.info("first", {})
    assert written.getvalue() == b""
    second.info("second", {})
    assert written.getvalue().count(b"\n") == 2
    # Nothing follows where the other log is off.
    logging.getLogger("lantern.x").setLevel(logging.WARNING)
    try:
        first.info("third", {})
    finally:
        logging.getLogger("lantern.x").setLevel(logging.NOTSET)
    assert written.getvalue().count(b"\n") == 3


class Seen(logging.Handler):
    """A handler of the owner's that keeps what it is given; `pass_on` is a filter."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def pass_on(self, record: logging.LogRecord) -> bool:
        self.records.append(record)
        return True


class Own(JsonFormatter):
    """A formatter of the owner's."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self._seen = seen

    def format(self, record: logging.LogRecord) -> str:
        self._seen.emit(record)
        return super().format(record)


def attach_handler(logger: logging.Logger, seen: Seen, undo: pytest.MonkeyPatch) -> None:
    undo.setattr(logger, "handlers", [seen])


def attach_handler_above(logger: logging.Logger, seen: Seen, undo: pytest.MonkeyPatch) -> None:
    above = logging.getLogger("lantern")
    undo.setattr(above, "handlers", [*above.handlers, seen])


def propagate(logger: logging.Logger, seen: Seen, undo: pytest.MonkeyPatch) -> None:
    undo.setattr(logging.getLogger("lantern"), "propagate", True)
    undo.setattr(logging.root, "handlers", [seen])


def attach_filter(logger: logging.Logger, seen: Seen, undo: pytest.MonkeyPatch) -> None:
    undo.setattr(logger, "filters", [seen.pass_on])


def attach_filter_to_handler(logger: logging.Logger, seen: Seen, undo: pytest.MonkeyPatch) -> None:
    undo.setattr(logging.getLogger("lantern").handlers[0], "filters", [seen.pass_on])


def attach_formatter(logger: logging.Logger, seen: Seen, undo: pytest.MonkeyPatch) -> None:
    undo.setattr(logging.getLogger("lantern").handlers[0], "formatter", Own(seen))


def patch_loggers(logger: logging.Logger, seen: Seen, undo: pytest.MonkeyPatch) -> None:
    """As programs that report errors do."""
    call = logging.Logger.callHandlers

    def calling(self: logging.Logger, record: logging.LogRecord) -> None:
        seen.emit(record)
        call(self, record)

    undo.setattr(logging.Logger, "callHandlers", calling)


@pytest.mark.parametrize(
    "attach",
    [
        *(attach_handler, attach_handler_above, propagate, attach_filter),
        *(attach_filter_to_handler, attach_formatter, patch_loggers),
    ],
)
def test_what_an_owner_attaches_sees_records_while_it_is_attached(
    attach: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure_logging(load_settings({}).logging)
    events = EventLog("lantern.x")
    seen = Seen()
    events.info("it works", {"rows": 1})
    with monkeypatch.context() as undo:
        attach(logging.getLogger("lantern.x"), seen, undo)
        events.info("it works", {"rows": 2})
    events.info("it works", {"rows": 3})
    (record,) = seen.records
    assert (record.getMessage(), record.__dict__["rows"]) == ("it works", 2)
    assert (record.name, record.levelname, record.process) == ("lantern.x", "INFO", os.getpid())
    before, during, after = capsys.readouterr().out.splitlines()
    assert before.partition("+00:00")[2] == during.partition("+00:00")[2].replace("2}", "1}")
    assert json.loads(after)["rows"] == 3


@pytest.mark.parametrize("level", [logging.WARNING, logging.INFO])
def test_the_level_of_the_handler_counts(level: int, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(load_settings({}).logging)
    logging.getLogger("lantern").handlers[0].setLevel(level)
    EventLog("lantern.x").info("it works", {})
    shown = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["message"] for line in shown] == ["it works"] * (level == logging.INFO)


def test_a_value_without_a_form_in_json_raises_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(load_settings({}).logging)
    EventLog("lantern.x").info("it works", {"path": "\ud800"})
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "not JSON serializable" in shown.err or "surrogates not allowed" in shown.err


def test_an_event_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(load_settings({"LANTERN_LOGGING__LEVEL": "WARNING"}).logging)
    EventLog("lantern.x").info("hidden", {})
    assert capsys.readouterr().out == ""


def test_no_two_requests_get_the_same_id_in_whatever_process() -> None:
    program = """
import os
from app.http.context import RequestContext
from app.http.prefix import PathPrefix
from app.http.request_head import head_of
head = head_of({"REQUEST_METHOD": "GET"}, PathPrefix("", 0))
ids = lambda: [RequestContext.begin(head, {}).request_id for _ in range(3)]
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


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_exception_of_a_long_message_is_shortened_in_its_middle(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(load_settings({"LANTERN_LOGGING__FORMAT": form}).logging)
    try:
        raise ValueError("begin" + "x" * 5_000_000 + "end")
    except ValueError:
        logging.getLogger("lantern").exception("it failed")
    written = capsys.readouterr().out
    assert "ValueError: beginx" in written
    assert "xend" in written
    assert "characters left out]" in written
    assert len(written) < 80_000
