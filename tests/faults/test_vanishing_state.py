"""Files that a service may not count on: a cleaner takes them, another uses them, none can be made.

A running service keeps no state in a file with a name, but for those that its user gave it: models,
releases, keys, logs. So there is nothing that a cleaner of temporary directories could take, that a
second service with the same environment could share, or that a killed master could leave behind;
and it serves where nothing can be written at all. What is counted never goes back, whatever becomes
of workers and masters.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import without_coverage
from tests.descriptors import open_files
from tests.faults.conftest import Callers, Start, needs_root, predict, scrape, total
from tests.integration.conftest import Server, wait_for

REQUESTS = "lantern_http_requests_total"
PREDICTED = (REQUESTS, (("method", "POST"), ("route", "/predict"), ("status", "200")))
COUNTERS = ("_total", "_count", "_sum", "_bucket")
CLONE_NEWNS = 0x20000


class Scrapes:
    """A thread that scrapes without a pause, and notes every count that went back."""

    def __init__(self, server: Server) -> None:
        self.went_back: list[Any] = []
        self.number = 0
        self._server = server
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._scrape)

    def __enter__(self) -> Scrapes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _scrape(self) -> None:
        last: dict[Any, float] = {}
        while not self._stopped.is_set():
            with contextlib.suppress(requests.RequestException):  # its worker was killed
                now = scrape(self._server)
                counts = {key: now[key] for key in now if key[0].endswith(COUNTERS)}
                self.went_back += [
                    (key, value, counts.get(key))
                    for key, value in last.items()
                    if not counts.get(key, -1) >= value
                ]
                last = counts
                self.number += 1


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.contextmanager
def new_master(server: Server) -> Iterator[int]:
    """Start a new master, which takes over from the old one, and end it in the end."""
    old = server.workers()
    server.process.send_signal(signal.SIGUSR2)
    (master,) = wait_for(lambda: set(children(server.process.pid)) - set(old))
    try:
        wait_for(lambda: len(children(master)) == len(old))
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)
        yield master
    finally:
        os.kill(master, signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{master}").exists())


@pytest.mark.parametrize("worker_class", ["keepalive", "gthread"])
def test_no_count_goes_back_whatever_becomes_of_workers_and_masters(
    start: Start, sample: dict[str, float], worker_class: str
) -> None:
    server = start(2, SERVER__WORKER_CLASS=worker_class, SERVER__DRAIN_SECONDS="0")

    def send(signals: signal.Signals, workers: int) -> None:
        before = server.workers()
        server.process.send_signal(signals)
        wait_for(lambda: len(now := server.workers()) == workers and now != before)
        callers.wait_for_more(50)

    with contextlib.ExitStack() as masters:
        with Callers(server, sample) as callers, Scrapes(server) as scrapes:
            callers.wait_for_more(50)
            for _ in range(3):
                loads = len(server.lines("model loaded"))
                os.kill(server.workers()[0], signal.SIGKILL)
                wait_for(lambda loads=loads: len(server.lines("model loaded")) > loads)
                callers.wait_for_more(50)
            send(signal.SIGTTIN, 3)
            send(signal.SIGTTOU, 2)
            send(signal.SIGHUP, 2)
            master = masters.enter_context(new_master(server))
            callers.wait_for_more(50)
            (victim, _) = children(master)
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda: victim not in children(master) and len(children(master)) == 2)
            callers.wait_for_more(50)
        assert scrape(server)[PREDICTED] >= callers.answered[200]
    assert scrapes.went_back == []
    assert scrapes.number > 10
    assert (set(callers.answered), callers.silent) == ({200}, 0)


def named_files(server: Server) -> list[str]:
    """Return the files with a name that the service can write to, but for its log."""
    found = []
    for pid in (server.process.pid, *server.workers()):
        for link, target in open_files(pid).items():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                flags = int(Path(f"/proc/{pid}/fdinfo/{link.name}").read_text().split()[3], 8)
                if flags & os.O_ACCMODE and stat.S_ISREG(link.stat().st_mode):
                    found.append(target)
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
        found += [line.split(None, 5)[-1] for line in maps if " rw-s " in line]
    nameless = ("/memfd:", "/dev/zero (deleted)", str(server.log))
    return [path for path in found if not path.startswith(nameless)]


@pytest.mark.parametrize("worker_class", ["keepalive", "gthread"])
def test_nothing_is_kept_in_a_file_that_could_be_taken_or_left_behind(
    start: Start, sample: dict[str, float], tmp_path: Path, worker_class: str
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    server = start(2, environ={"TMPDIR": str(temporary)}, SERVER__WORKER_CLASS=worker_class)
    assert predict(server, sample).status_code == 200
    assert scrape(server)[PREDICTED] == 1
    assert named_files(server) == []
    assert list(temporary.iterdir()) == []
    shutil.rmtree(temporary)  # as the most thorough cleaner would
    os.kill(server.workers()[0], signal.SIGKILL)
    wait_for(lambda: len(server.lines("model loaded")) == 3)
    assert predict(server, sample).status_code == 200
    assert scrape(server)[PREDICTED] == 2
    temporary.mkdir()
    workers = server.workers()
    server.process.kill()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert list(temporary.iterdir()) == []


def test_two_services_of_the_same_environment_count_apart(
    start: Start, sample: dict[str, float], tmp_path: Path
) -> None:
    (tmp_path / "counter_1.db").write_bytes(b"somebody's")
    environ = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "METRICS_MEMORY_FD": "1"}
    first = start(2, environ=environ)
    for _ in range(3):
        assert predict(first, sample).status_code == 200
    second = start(2, environ=environ)
    assert predict(second, sample).status_code == 200
    assert (scrape(first)[PREDICTED], scrape(second)[PREDICTED]) == (3, 1)
    assert (tmp_path / "counter_1.db").read_bytes() == b"somebody's"
    for server in (first, second):
        (line,) = [line for line in server.lines() if "MULTIPROC_DIR" in line["message"]]
        assert "is not used" in line["message"]


def make_read_only(*, but: tuple[str, ...]) -> Callable[[], None]:
    """Return what leaves a process nothing that can be written to, ``but`` some mounts."""

    def become() -> None:
        assert ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0
        run = subprocess.run
        run(["mount", "--make-rprivate", "/"], check=True)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in dict.fromkeys(mounts):
            if mount not in but and not mount.startswith(("/proc", "/sys")):
                run(["mount", "-o", "remount,bind,ro", mount], check=False, capture_output=True)
        for place in ("/tmp", "/var/tmp", "/dev/shm", "."):
            with contextlib.suppress(OSError):
                (Path(place) / f"lantern-{os.getpid()}").touch()
                assert place in but, f"{place} can be written to"
                (Path(place) / f"lantern-{os.getpid()}").unlink()

    return become


@needs_root
@pytest.mark.parametrize("worker_class", ["keepalive", "gthread"])
@pytest.mark.parametrize("writable", [("/dev/shm",), ()], ids=["shm", "nothing"])
def test_a_host_without_a_writable_directory_is_served_from(
    start: Start, sample: dict[str, float], worker_class: str, writable: tuple[str, ...]
) -> None:
    options = {"preexec_fn": make_read_only(but=writable)}
    server = start(2, options=options, SERVER__WORKER_CLASS=worker_class)
    assert predict(server, sample).status_code == 200
    loads = len(server.lines("model loaded"))
    os.kill(server.workers()[0], signal.SIGKILL)
    wait_for(lambda: len(server.lines("model loaded")) > loads)
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(server.lines("model loaded")) > loads + 2)
    assert predict(server, sample).status_code == 200
    assert total(scrape(server), REQUESTS) >= 2
    server.stop()
    assert server.process.returncode == 0
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("limit", [resource.RLIMIT_FSIZE, resource.RLIMIT_AS])
def test_where_there_is_no_memory_to_share_the_start_says_what_to_allow(
    tmp_path: Path, limit: int
) -> None:
    size = {resource.RLIMIT_FSIZE: 1 << 20, resource.RLIMIT_AS: 1 << 30}[limit]
    options = {"preexec_fn": lambda: resource.setrlimit(limit, (size, size))}
    server = Server(["-w", "1"], {}, tmp_path / "log", without_coverage(), **options)
    assert server.process.wait(60) != 0
    said = server.log.read_text()
    assert "Lantern can't start. Its workers need shared memory" in said
    assert "memfd_create" in said
    assert "Traceback" not in said


def test_a_directory_for_signs_of_life_that_is_not_there_is_told_at_the_start(
    tmp_path: Path,
) -> None:
    arguments = ["-w", "1", "--worker-tmp-dir", str(tmp_path / "nowhere")]
    server = Server(arguments, {}, tmp_path / "log", without_coverage())
    assert server.process.wait(60) != 0
    said = server.log.read_text()
    assert "nowhere doesn't exist" in said
    assert "Remove --worker-tmp-dir" in said
    assert "Traceback" not in said
