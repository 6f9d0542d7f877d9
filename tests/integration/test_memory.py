"""Workers share the weights of a torch checkpoint through the page cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from app.model.network import Network, save_checkpoint
from tests.integration.conftest import Server, alone, wait_for


@pytest.fixture(scope="module")
def worker_class() -> str:
    return "keepalive"  # what is tested here doesn't know the worker


HIDDEN = 8192
MIB = 1024 * 1024


def proportional(pid: int, path: Path) -> int:
    """Return a process's share, in bytes, of the memory in which ``path`` is mapped."""
    total, ours = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):  # the head of a mapping
            ours = rest[-1:] == [str(path)]
        elif ours and name == "Pss:":
            total += int(rest[0]) * 1024
    return total


def private(pid: int) -> int:
    """Return the bytes that belong to a process alone: what a further worker costs."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


@pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="proportional memory is Linux's to tell"
)
def test_two_workers_share_one_copy_of_large_weights(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    path = tmp_path / "large.pt"
    save_checkpoint(Network(2, HIDDEN, 2, preprocess=False), "1", path)
    weights = path.stat().st_size
    assert weights > 250 * MIB
    server = start(
        "-w", "2", MODEL__PATH=str(path), MODEL__FEATURE_NAMES="a,b", MODEL__RUNTIME="torch"
    )
    wait_for(lambda: len(server.lines("model loaded")) == 2)
    for worker in server.workers():  # an answer touches every weight
        with alone(server, worker):
            response = requests.post(
                f"{server.url}/predict", json={"features": {"a": 1, "b": 2}}, timeout=120
            )
            assert response.status_code == 200
    shares = [proportional(pid, path) for pid in server.workers()]
    assert len(shares) == 2
    # Together one copy, half of it each: a copy of one's own would count in full.
    assert sum(shares) == pytest.approx(weights, rel=0.02)
    assert max(shares) == pytest.approx(weights / 2, rel=0.02)
    for pid in server.workers():
        assert private(pid) < 64 * MIB
