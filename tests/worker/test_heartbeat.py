"""A worker's sign of life: in memory, unless the user chose a directory."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.worker.heartbeat import Heartbeat


@pytest.mark.parametrize("is_chosen", [False, True])
def test_a_sign_of_life_is_a_file_in_memory_or_where_the_user_says(
    tmp_path: Path, is_chosen: bool
) -> None:
    directory = str(tmp_path) if is_chosen else None
    cfg = SimpleNamespace(worker_tmp_dir=directory, umask=0, uid=os.geteuid(), gid=os.getegid())
    heartbeat = Heartbeat(cfg)
    target = str(Path(f"/proc/self/fd/{heartbeat.fileno()}").readlink())
    assert target.startswith(directory or "/memfd:lantern-heartbeat")
    assert list(tmp_path.iterdir()) == []
    before = heartbeat.last_update()
    heartbeat.notify()
    first = heartbeat.last_update()
    assert first != before
    heartbeat.notify()
    assert heartbeat.last_update() > first
    heartbeat.close()
