"""A worker is killed under load, as by the kernel when memory runs out.

The requests in its hands fail, and their callers see it at once: the connection is reset. All
others are answered, a successor takes over, and no count in the metrics goes back.
"""

from __future__ import annotations

import os
import signal

from tests.faults.conftest import Callers, Start, scrape, total
from tests.integration.conftest import wait_for

CALLERS = 8
KILLS = 5


def test_only_what_a_killed_worker_held_fails(start: Start, sample: dict[str, float]) -> None:
    server = start(2)
    counted = 0.0
    with Callers(server, sample, CALLERS) as callers:
        for kill in range(1, KILLS + 1):
            callers.wait_for_more(200)
            before = total(scrape(server), "lantern_http_requests_total")
            assert before >= counted
            os.kill(server.workers()[0], signal.SIGKILL)
            wait_for(lambda kill=kill: len(server.lines("model loaded")) == 2 + kill)
            counted = total(scrape(server), "lantern_http_requests_total")
            assert counted >= before
        callers.wait_for_more(200)
    assert (set(callers.answered), callers.silent) == ({200}, 0)
    assert callers.failed <= KILLS * CALLERS
    # What was answered is counted: but for the last requests of those that were killed.
    now = scrape(server)
    labels = (("method", "POST"), ("route", "/predict"), ("status", "200"))
    missing = callers.answered[200] - now[("lantern_http_requests_total", labels)]
    assert missing <= 0
    assert len(server.workers()) == 2
