"""Isolation: whatever a file has a process do, its caller gets a value or a sentence, in time."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.model import isolation
from app.model.errors import BundleError
from app.model.isolation import ProcessLimits
from tests.conftest import ROOT

pytestmark = pytest.mark.isolated
LIMITS = ProcessLimits(seconds=60, memory_mb=512)


# What is tried: functions of a module, as a child takes them.


def answer(value: Any) -> Any:
    return {"value": value, "pid": os.getpid()}


def refuse() -> None:
    raise BundleError("The file is refused.")


def fail() -> None:
    raise ZeroDivisionError("nobody\nforesaw this")


def crash(number: int) -> None:
    os.kill(os.getpid(), number)


def leave() -> None:
    os._exit(0)


def recurse() -> None:
    recurse()


def exhaust_python() -> int:
    return len([bytearray(1 << 20) for _ in range(100_000)])


def exhaust_numpy() -> int:
    return len(np.ones(1 << 32))


def exhaust_torch() -> int:
    import torch

    return len(torch.ones(1 << 32))


def hang_holding_the_lock() -> None:
    re.match(r"(a|a)*b", "a" * 60)  # no other thread of Python gets a turn meanwhile


def note_and_sleep(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def bounds() -> list[int]:
    import resource

    return [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_CORE)]


def run(function: Callable[..., Any], *arguments: Any, limits: ProcessLimits = LIMITS) -> Any:
    return isolation.run(function, *arguments, path=Path(__file__), limits=limits)


def refusal(function: Callable[..., Any], *arguments: Any, limits: ProcessLimits = LIMITS) -> str:
    before = children()
    with pytest.raises(BundleError) as error:
        run(function, *arguments, limits=limits)
    assert children() <= before  # no process is left, not even as a zombie
    return str(error.value)


def children() -> set[str]:
    """Return the processes that this one has, whatever other tests have started."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {number for task in tasks for number in task.read_text().split()}


def test_a_value_comes_back_from_another_process() -> None:
    big = "x" * (1 << 20)  # more than a pipe holds, there and back
    came = run(answer, [1.5, None, big])
    assert came["value"] == [1.5, None, big]
    assert came["pid"] != os.getpid()


def test_a_refusal_comes_back_as_it_was_worded() -> None:
    assert refusal(refuse) == "The file is refused."


def test_a_fault_that_nobody_foresaw_is_one_sentence() -> None:
    said = refusal(fail)
    assert "failed unexpectedly (ZeroDivisionError: nobody)" in said
    assert said.startswith(__file__)
    assert "RecursionError" in refusal(recurse)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_is_one_sentence(number: signal.Signals) -> None:
    assert f"was ended by {number.name}" in refusal(crash, number)


def test_an_end_without_an_answer_is_one_sentence() -> None:
    assert "ended without an answer" in refusal(leave)


@pytest.mark.parametrize("exhaust", [exhaust_python, exhaust_numpy, exhaust_torch])
def test_memory_is_bounded_and_the_setting_is_named(exhaust: Callable[[], int]) -> None:
    said = refusal(exhaust)
    assert "exceeds the limit of 512 MiB of memory" in said
    assert "model.check_memory_mb" in said


def test_the_bound_grows_with_the_file(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"x")
    os.truncate(os.open(large, os.O_CREAT | os.O_WRONLY), 100 << 20)
    assert LIMITS.memory_bytes(large) - LIMITS.memory_bytes(small) == 10 * ((100 << 20) - 1)
    data, core = isolation.run(bounds, path=large, limits=LIMITS)
    assert (data, core) == (LIMITS.memory_bytes(large), 0)


def test_time_is_bounded_and_the_setting_is_named() -> None:
    said = refusal(hang_holding_the_lock, limits=ProcessLimits(seconds=2))
    assert "was still running after 2 seconds" in said
    assert "model.check_seconds" in said


def test_a_child_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    program = (
        "from pathlib import Path; from app.model import isolation;"
        "from tests.model.test_isolation import note_and_sleep;"
        f"isolation.run(note_and_sleep, {str(note)!r}, path=Path('.'), "
        "limits=isolation.DEFAULT_LIMITS)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as parent:
        while not (note.is_file() and note.read_text()):
            assert parent.poll() is None
            time.sleep(0.02)
        child = int(note.read_text())
        parent.kill()
    while is_running(child):
        time.sleep(0.02)


def is_running(process: int) -> bool:
    """Return True unless the process is gone, or a zombie that nobody in a container reaps."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_several_threads_have_trials_at_once() -> None:
    came: list[Any] = []
    threads = [
        threading.Thread(target=lambda n=n: came.append(run(answer, n)["value"])) for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(came) == [0, 1, 2]


def test_what_a_process_answers_is_never_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the time it answers, a file may have had its way with it."""
    for forged in (b"\x80\x04N.", b"[]", b'{"kind": 1}', b"[" * 100_000, b'{"kind": "refused"}'):
        monkeypatch.setattr(isolation, "_converse", lambda *_, forged=forged: forged)
        assert "can't be used: the process that tried it" in refusal(leave)
    long = json.dumps({"kind": "refused", "value": "x" * 1_000_000}).encode()
    monkeypatch.setattr(isolation, "_converse", lambda *_: long)
    assert len(refusal(leave)) == 2_000


def test_a_process_that_can_not_be_started_is_told_in_a_sentence() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(BundleError, match="no process can be started: Too many open files"):
            isolation.run(answer, 1, path=Path(__file__), limits=LIMITS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
