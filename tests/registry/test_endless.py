"""A network without end holds up neither who verifies it nor a worker that should follow to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.model.errors import ReleaseRejected
from app.model.isolation import ProcessLimits
from app.model.signature import FEATURES
from app.registry.loading import ModelSource
from app.registry.release import Release, read_release, write_release
from app.registry.repository import Repository
from app.registry.service import ModelService
from app.registry.verification import verify
from tests.endless import make_endless

SHORT = ProcessLimits(seconds=3)


@pytest.fixture
def endless(versions: Path) -> Path:
    """The three versions, of which the second does not come to an end."""
    write_release(versions, Release("1"))
    make_endless(versions / "2", above=-1)
    return versions


@pytest.mark.isolated
def test_it_is_neither_verified_nor_promoted_and_the_next_change_can_be_made(endless: Path) -> None:
    report = verify(endless, "2", each_runtime=False, limits=SHORT)
    assert not report.passed
    (problem,) = report.problems
    assert problem.startswith(f"onnx: {endless / '2' / 'model.onnx'} was still running after 3 s")
    with pytest.raises(ReleaseRejected, match="still running"):
        Repository(endless, limits=SHORT).promote("2")
    Repository(endless).promote("3")
    assert read_release(endless) == Release("3")


def test_a_worker_stays_with_what_serves(endless: Path) -> None:
    service = ModelService(ModelSource(endless, limits=ProcessLimits(seconds=0.5)))
    service.load()
    write_release(endless, Release("2"))
    service.refresh()
    assert service.current().version == "1"
    assert "still running after 0.5 seconds" in service.fault
    write_release(endless, Release("3"))
    service.refresh()
    assert service.current().predict({FEATURES: np.zeros((1, 3), np.float32)}).model_version == "3"
