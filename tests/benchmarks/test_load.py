"""What wrk prints becomes a load, faults and all."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from benchmarks.load import parse_wrk, wrk
from benchmarks.servers import BenchmarkError, Server

FAKE_WRK = """#!/usr/bin/env python3
import json, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
print("Running", flush=True)
if "-d1s" in sys.argv:
    signal.sigwait({signal.SIGINT})
said = dict.fromkeys(("connect", "read", "write", "timeout", "status", "p50_us", "p99_us"), 0)
print(json.dumps(said | {"requests": 5, "duration_us": 300000}), *sys.argv[1:], sep="\\n")
"""


def printed(**changes: int) -> str:
    said = {
        "requests": 30_000,
        "duration_us": 3_000_000,
        "p50_us": 1_250,
        "p99_us": 6_500,
        **dict.fromkeys(("connect", "read", "write", "timeout", "status"), 0),
        **changes,
    }
    return f"Running 3s test\n  1 threads and 16 connections\n{json.dumps(said)}\n"


def test_a_clean_run_has_its_rate_and_latencies_and_no_fault() -> None:
    load = parse_wrk(printed())
    assert (load.requests, load.requests_per_second) == (30_000, 10_000)
    assert (load.p50_ms, load.p99_ms) == (1.25, 6.5)
    assert load.faults == ()


@pytest.mark.parametrize("kind", ["connect", "read", "write", "timeout", "status"])
def test_every_kind_of_error_is_a_fault(kind: str) -> None:
    (fault,) = parse_wrk(printed(**{kind: 1_234})).faults
    assert fault.startswith("1,234 ")


def test_a_run_without_an_answer_is_a_fault() -> None:
    assert parse_wrk(printed(requests=0)).faults == ("no request was answered",)


def test_wrk_that_says_nothing_is_refused() -> None:
    with pytest.raises(BenchmarkError, match="unable to connect"):
        parse_wrk("unable to connect to 127.0.0.1:1 Connection refused")


def test_wrk_is_interrupted_where_it_would_run_for_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "wrk"
    program.write_text(FAKE_WRK)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with subprocess.Popen(["true"]) as process:
        server = Server("a server", 1, process, tmp_path / "log")
        assert wrk(server, "/", 0.01).requests == 5  # for one second, and so until it is told
        assert wrk(server, "/", 2).requests == 5
