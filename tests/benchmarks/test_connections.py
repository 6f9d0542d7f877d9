"""Requests that come several at once, or by a proxy, reach the server and are counted as such."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import connections, payloads
from benchmarks.load import wrk
from benchmarks.servers import lantern, running

pytestmark = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
COUNT = b'lantern_http_requests_total{method="POST",route="/predict",status="200"}'


@pytest.mark.skipif(not Path("/usr/sbin/haproxy").exists(), reason="HAProxy is not installed")
def test_pipelined_and_proxied_requests_are_answered(tmp_path: Path) -> None:
    bodies = payloads.write_bodies(tmp_path / "bodies", 50)
    unbounded = {"LANTERN_LIMITS__QUEUE_BUDGET_MS": "0"}
    with running(lantern(settings=unbounded), tmp_path) as server:
        load = wrk(server, "/predict", 1.5, bodies=bodies, connections=2, pipelined=4)
        assert load.faults == ()
        with running(connections._proxy(server), tmp_path) as front:
            proxied = replace(server, port=front.port)
            load = wrk(proxied, "/predict", 1.5, bodies=bodies, connections=2)
            assert load.faults == ()
            assert proxied.cpu_seconds() == server.cpu_seconds() > 0


def test_connections_are_named() -> None:
    assert connections.connected("granian", 1) == "granian, 1 connection"
    assert connections.connected("granian", 64) == "granian, 64 connections"
