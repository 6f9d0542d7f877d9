"""A short soak of a real service is clean, and one of a service with faults tells each of them."""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from app.registry.release import Release
from benchmarks.servers import Program
from trials.load import Failure, Tally
from trials.log import strange_lines
from trials.soak import verdict
from trials.soak.__main__ import summary, table
from trials.soak.chaos import Ended, Event, Released
from trials.soak.hostile_clients import Unexpected
from trials.soak.picture import draw
from trials.soak.run import Options, run, service
from trials.soak.watch import Holdings, Process, Sample

# So short that memory and what fills it for the first time can't be told apart, and on a machine
# that may have other work: how much is refused and how soon workers follow is no matter here.
SHORT = Options(
    minutes=0.12,
    share=0.3,
    most_growth_percent=30,
    most_refused_percent=100,
    follow_seconds=120,
    row=("model promote 2", "SIGKILL", "model promote 1"),
)
FAULTY = "tests.trials.faulty:app"


def test_a_short_soak_of_lantern_is_clean(tmp_path: Path) -> None:
    outcome = run(SHORT, tmp_path)
    assert outcome.faults == []
    assert all(tally.right > 0 for tally in outcome.tallies.values())
    assert {e.what for e in outcome.events} >= {"SIGKILL", "SIGHUP", "model promote 2"}
    assert outcome.hostile["soak"].answers.total() > 0
    assert len(outcome.growths) >= 3  # the master, and the two workers that lived on
    draw(tmp_path / "soak.png", list(outcome.tallies.values()), outcome.samples, outcome.events, "")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
    assert "| SIGKILL |" in table(outcome)
    assert summary(outcome)["faults"] == []


def test_a_service_that_leaks_and_fails_is_found_out(tmp_path: Path) -> None:
    def make(models: Path) -> Program:
        program = service(models)
        arguments = tuple(FAULTY if one == "wsgi:app" else one for one in program.arguments)
        return Program(
            program.name, program.executable, arguments, program.directory, program.settings
        )

    said = "\n".join(run(replace(SHORT, row=("SIGKILL",)), tmp_path, make).faults)
    assert "the memory of worker" in said
    assert "more of this open than before: null" in said
    assert "more of this open than before: threads" in said
    assert "no kill explains it: status: 500" in said
    assert "no kill explains it: wrong answer" in said
    assert "logged" in said
    assert "the service answered" not in said  # its own count doesn't see what was put before it


# The verdicts, one by one

KILL = Ended(10.0, 10.0, "SIGKILL", 7, signal.SIGKILL)


def reset(failed: float = 10.1, worker: str = "a", what: str = "reset") -> Tally:
    failure = Failure(failed - 0.01, failed, what, "", worker)
    return Tally(due=1, sent=1, failures=[failure], last_seen={"a": 9.9, "b": 12.0})


def test_a_kill_explains_what_broke_with_it() -> None:
    assert list(verdict.unexplained_failures(reset(), [KILL])) == []


@pytest.mark.parametrize(
    ("tally", "events"),
    [
        (reset(), []),
        (reset(failed=9.0), [KILL]),
        (reset(failed=15.0), [KILL]),
        (reset(worker="b"), [KILL]),  # which has answered later
        (reset(what="status"), [KILL]),
        (reset(), [Ended(10.0, 10.0, "SIGTERM", 7, signal.SIGTERM)]),
        (Tally(due=2, sent=1, right_by_path=Counter({"/predict": 1})), [KILL]),
        (Tally(due=1, sent=1), [KILL]),
    ],
)
def test_nothing_else_is_explained_by_it(tally: Tally, events: list[Event]) -> None:
    assert len(list(verdict.unexplained_failures(tally, events))) == 1


def test_a_wrong_client_may_be_left_without_an_answer_by_a_kill_alone() -> None:
    unexpected = [Unexpected(9.0, 10.1, "no JSON", 0, "closed")]
    assert list(verdict.unexplained_outcomes(unexpected, [KILL])) == []
    assert list(verdict.unexplained_outcomes(unexpected, [])) == ["1 times no JSON: closed"]
    late = [Unexpected(11.0, 12.0, "no JSON", 0, "closed")]
    assert len(list(verdict.unexplained_outcomes(late, [KILL]))) == 1


def test_a_version_may_answer_only_while_it_is_released() -> None:
    events = [
        Released(10, 11, "canary", Release("1", "2", "canary", 0.5)),
        Released(30, 31, "shadow", Release("1", "3", "shadow")),
        Released(60, 61, "clear", Release("1")),
    ]

    def said(**times: float) -> list[str]:
        versions = Counter({(int(at * 10), v[1:]): 1 for v, at in times.items()})
        versions.update({(20, "1"): 1, (150, "2"): 1})
        return list(verdict.strange_versions(Tally(versions=versions), events, "1"))

    assert said(v1=5) == said(v1=70) == said(v2=33) == []
    assert said(v2=5) == said(v2=50) == ["1 answers are of version 2 when it could not serve"]
    assert said(v3=40) == ["1 answers are of version 3 when it could not serve"]


def test_growth_is_that_of_what_lived_on_and_outliers_do_not_bend_it() -> None:
    def sample(at: int, mib: float, more: dict[int, Process]) -> Sample:
        steady = Process(40, 40, 7, 1)
        return Sample(at, steady, {1: Process(0, mib, 9, 2), **more})

    young = {2: Process(0, 10, 9, 2)}
    grown = verdict.growths([sample(t, 50 + 0.05 * t, young if t < 50 else {}) for t in range(100)])
    assert [one.what for one in grown] == ["the master", "worker 1"]
    assert grown[1].percent == pytest.approx(9.9, abs=0.1)
    assert len(list(verdict.too_much_growth(grown, 2))) == 1
    spiky = verdict.growths([sample(t, 500 if t % 10 == 9 else 50, {}) for t in range(100)])
    assert list(verdict.too_much_growth(spiky, 2)) == []


def test_what_a_worker_holds_more_than_before_is_told_and_of_a_new_one_more_than_any() -> None:
    held = Counter({"pipe": 2, "threads": 2})
    before = Holdings(held, {1: held, 2: Counter({"pipe": 3})})
    same = Holdings(held, {1: held, 9: Counter({"pipe": 3, "threads": 1})})
    assert list(verdict.leaked(before, same)) == []
    more = Holdings(held, {1: held + Counter(pipe=1), 9: Counter({"socket": 1})})
    assert list(verdict.leaked(before, more)) == [
        "worker 1 has 1 more of this open than before: pipe",
        "worker 9 has 1 more of this open than before: socket",
    ]


def test_the_metrics_may_count_no_more_than_was_answered_or_lost() -> None:
    def said(*numbers: int) -> int:
        return len(list(verdict.miscounted("requests", *numbers)))

    assert said(10, 10, 0) == said(12, 10, 2) == 0
    assert said(9, 10, 2) == said(13, 10, 2) == 1


def test_a_few_requests_may_be_refused_because_of_overload() -> None:
    tally = Tally(due=100, sent=100, refused=2, right_by_path=Counter({"/predict": 98}))
    assert list(verdict.unexplained_failures(tally, [])) == []
    assert list(verdict.refused_too_much(tally, 2)) == []
    assert len(list(verdict.refused_too_much(tally, 1))) == 1


def test_a_line_that_nobody_provoked_is_told() -> None:
    killed = '{"level": "ERROR", "message": "Worker (pid:7) was sent SIGKILL! Perhaps"}'
    assert list(strange_lines(['{"level": "INFO", "message": "a"}', killed], [7])) == []
    assert len(list(strange_lines([killed, "Segmentation fault", "[]"], [8]))) == 3
