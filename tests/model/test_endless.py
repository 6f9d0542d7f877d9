"""A network without end holds up neither who verifies it nor a worker that should follow to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.model import runtime
from app.model.errors import ReleaseRefused
from app.model.loading import ModelSource
from app.model.release import Release, read_release, write_release
from app.model.repository import Repository
from app.model.service import ModelService
from app.model.verification import verify
from tests.endless import make_endless


@pytest.fixture
def endless(versions: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The three versions, of which the second does not come to an end."""
    monkeypatch.setattr(runtime, "TRIAL_SECONDS", 0.5)
    write_release(versions, Release("1"))
    make_endless(versions / "2", above=-1)
    return versions


def test_verifying_it_ends_and_says_so(endless: Path) -> None:
    report = verify(endless, "2")
    assert not report.passed
    assert any(
        "onnx: The network was still running after 0.5 seconds" in p for p in report.problems
    )


def test_it_is_not_promoted_and_the_next_change_can_be_made(endless: Path) -> None:
    with pytest.raises(ReleaseRefused, match="still running"):
        Repository(endless).promote("2")
    Repository(endless).promote("3")
    assert read_release(endless) == Release("3")


def test_a_worker_stays_with_what_serves(endless: Path) -> None:
    service = ModelService(ModelSource(endless))
    service.load()
    write_release(endless, Release("2"))
    service.refresh()
    assert service.current().version == "1"
    assert "still running" in service.fault
    write_release(endless, Release("3"))
    service.refresh()
    assert service.predict(np.zeros((1, 3), np.float32)).model_version == "3"
