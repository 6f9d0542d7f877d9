"""A server under test is started, awaited, and ended with the harness."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.processes import tree
from benchmarks.servers import BenchmarkError, lantern, running


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_server_is_ready_when_given_and_leaves_no_process_and_no_log(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), running(lantern(), tmp_path) as server:
        server.wait_until_idle()
        pids = tree(server.process.pid)
        assert len(pids) == 3
        assert server.seconds_to_ready > 0
        raise KeyboardInterrupt  # as a Ctrl-C in the midst of a measurement
    assert not [pid for pid in pids if alive(pid)]
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    program = lantern("odd", {"LANTERN_SERVER__WORKERS": "many"})
    with (
        pytest.raises(BenchmarkError, match=r"odd did not start(.|\n)*server\.workers"),
        running(program, tmp_path),
    ):
        pass


def test_settings_of_the_shell_do_not_reach_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANTERN_SERVER__WORKERS", "many")
    monkeypatch.setenv("WEB_CONCURRENCY", "many")
    with running(lantern(), tmp_path) as server:
        server.wait_until_idle()
        assert len(tree(server.process.pid)) == 3
