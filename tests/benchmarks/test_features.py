"""A feature that is taken away is gone, and one with another name is not called free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import features, stripped
from benchmarks.bench import Bench
from benchmarks.load import exchange
from benchmarks.payloads import single
from benchmarks.servers import Server, all_running
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """Lantern without each of the features that no setting turns off."""
    directory = tmp_path_factory.mktemp("stripped")
    programs = [features.Variant(each, without=each).program for each in stripped.TAKEN]
    with all_running(programs, directory) as servers:
        yield {server.name: server for server in servers}


ROW = {
    "age": 44,
    "income": None,
    "tenure_days": 400,
    "num_purchases": 12,
    "avg_transaction_value": 33.2,
    "days_since_last_purchase": 20,
}


@pytest.mark.parametrize("feature", stripped.TAKEN)
def test_a_prediction_is_answered_without_it(started: dict[str, Server], feature: str) -> None:
    status, answer = exchange(started[feature], "/predict", single(ROW))
    assert status == 200
    assert b'"prediction":0' in answer


def test_it_is_gone(started: dict[str, Server]) -> None:
    odd = dict(zip(("a", "b", "c", "d", "e", "f"), ROW.values(), strict=True))
    assert exchange(started[stripped.VALIDATION], "/predict", single(odd))[0] == 200
    assert exchange(started[stripped.IDS], "/predict", single(odd))[0] == 400
    counted = b'lantern_http_requests_total{method="POST",route="/predict"'
    exchange(started[stripped.IDS], "/predict", single(ROW))
    assert counted in exchange(started[stripped.IDS], "/metrics")[1]
    assert counted not in exchange(started[stripped.METRICS], "/metrics")[1]
    assert "0" * 32 in started[stripped.IDS].log.read_text()


def test_a_name_that_is_gone_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"odd": {"app.telemetry.metrics:Metrics.no_such_thing": lambda: None}}
    monkeypatch.setattr(stripped, "TAKEN", taken)
    with pytest.raises(AttributeError, match="no_such_thing"):
        stripped.take_away("odd")


def test_each_variant_changes_one_thing_and_is_compared(tmp_path: Path) -> None:
    variants = features._variants(Bench(1, 1.0, tmp_path))
    assert [each.what for each in variants] == [features.AS_IT_IS, *features.FEATURES]
    as_it_is, again, *others = variants
    assert as_it_is.settings == again.settings == {}
    assert all(each.settings or each.without or each.bodies for each in others)
    assert as_it_is.program.directory == ROOT
