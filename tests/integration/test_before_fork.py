"""What the master does before the fork, so that workers share its memory."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.integration.conftest import Server, wait_for

Start = Callable[..., Server]


@pytest.fixture(scope="module")
def worker_class() -> str:
    return "keepalive"  # what is tested here doesn't know the worker


def test_workers_collect_no_garbage_among_what_they_share(start: Start, tmp_path: Path) -> None:
    """It would copy the pages of all that the master has imported."""
    config = tmp_path / "conf.py"
    config.write_text(
        f"import gc\n"
        f"from pathlib import Path\n"
        f"exec(Path({str(ROOT / 'gunicorn.conf.py')!r}).read_text())\n"
        f"ours = post_fork\n"
        f"def post_fork(server, worker):\n"
        f"    counts = f'{{gc.get_freeze_count()}} {{len(gc.get_objects())}}'\n"
        f"    Path({str(tmp_path)!r}, str(worker.pid)).write_text(counts)\n"
        f"    ours(server, worker)\n"
    )
    server = start("-w", "1", "-c", str(config))
    (first,) = server.workers()
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: len(server.lines("model loaded")) == 2)
    (second,) = server.workers()
    for worker in (first, second):
        frozen, others = map(int, (tmp_path / str(worker)).read_text().split())
        assert frozen > 20 * others, "what was there before the fork is collected"
