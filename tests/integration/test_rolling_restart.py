"""Three instances behind a real HAProxy are restarted under load, and no request fails."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from trials.haproxy import Seen
from trials.load import Failure, Tally
from trials.rolling_restart import INSTANCES, Options, Outcome, Restart, run, table

needs_haproxy = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="there is no haproxy to stand in front"
)


@needs_haproxy
def test_a_rolling_restart_fails_no_request(tmp_path: Path) -> None:
    outcome = run(Options(rate=100, connections=24, drain_seconds=4), tmp_path)
    assert outcome.faults == []
    assert [one.instance for one in outcome.restarts] == list(range(1, INSTANCES + 1))
    assert outcome.tally.right == outcome.tally.sent == outcome.tally.due > 300
    assert all(share > 0 for share in outcome.shares)  # each took part
    assert outcome.seen.requests >= outcome.tally.sent
    # It looked away in time: no connection came when nobody listened any more.
    assert all(one.noticed for one in outcome.restarts)
    assert outcome.seen.redispatches == outcome.seen.retries == outcome.seen.answers_5xx == 0
    assert "| failed | 0 |" in table(outcome)


CLEAN = Outcome(
    Tally(due=5, sent=5, right_by_path=Counter({"/predict": 5})),
    Seen("UP", 5, 0, 0, 0, 0, 0, 0),
    [Restart(1, 1.0, 2.0, 3.0, 0)],
)


def test_everything_that_is_not_accounted_for_is_a_fault() -> None:
    assert CLEAN.faults == []
    failed = replace(CLEAN.tally, sent=6, due=6, failures=[Failure(1, 2, "reset", "closed", "")])
    assert replace(CLEAN, tally=failed).faults == ["1 requests failed: reset: closed"]
    assert len(replace(CLEAN, tally=replace(CLEAN.tally, due=6)).faults) == 1
    assert len(replace(CLEAN, tally=replace(CLEAN.tally, sent=6, due=6)).faults) == 1
    assert len(replace(CLEAN, tally=replace(CLEAN.tally, due=6, sent=6, refused=1)).faults) == 1
    assert len(replace(CLEAN, restarts=[Restart(1, None, 2.0, 3.0, 9)]).faults) == 1
    assert len(replace(CLEAN, log=["Traceback"]).faults) == 1
