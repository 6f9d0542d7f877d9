"""A short fuzz run of a real service finds nothing, and one of a service with faults finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.servers import Program
from tests.worker.wire import Answer, request
from trials.answers import fault_of
from trials.fuzz.__main__ import table, write
from trials.fuzz.conversations import Conversation, Findings
from trials.fuzz.inputs import bodies, raw
from trials.fuzz.run import PARTS, Options, run, service

SEED = 5
WITHOUT_SCHEMATHESIS = ("raw bytes", "bodies", "hypothesis")
PREDICTION = (
    b'{"prediction":1,"label":"a","probabilities":{"class_0":0.2,"class_1":0.8},'
    b'"model_version":"1","timestamp":"now"}'
)
PROBLEM = (
    b'{"type":"a","title":"a","status":400,"detail":"a","instance":"a","request_id":"a",'
    b'"errors":[{"pointer":"/a","detail":"a"}]}'
)


def test_a_few_thousand_requests_find_nothing(tmp_path: Path) -> None:
    outcome = run(Options(4000, SEED), tmp_path)
    assert outcome.faults == []
    assert outcome.wrong == []
    assert outcome.requests >= 4000
    assert list(outcome.statuses) == list(PARTS)
    for part in PARTS:
        assert outcome.statuses[part][200] > 5
        assert outcome.statuses[part][400] > 0
        assert f"| {part} |" in table(outcome)


@pytest.mark.parametrize("part", WITHOUT_SCHEMATHESIS)
def test_faults_are_found_and_their_inputs_kept(tmp_path: Path, part: str) -> None:
    """Before the application stands one that answers some with 500, and some not at all."""
    program = service()
    arguments = tuple(
        "tests.trials.faulty:fragile" if one == "wsgi:app" else one for one in program.arguments
    )
    program = Program("f", program.gunicorn, arguments, program.directory, program.settings)
    outcome = run(Options(1500, SEED, part), tmp_path, program)
    said = "\n".join(outcome.faults)
    assert "an answer of 500" in said
    if part != "hypothesis":  # which ends with the first fault
        assert "a worker died" in said
    write(outcome, tmp_path / "out")
    kept = {file.stem: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert kept == {conversation.name: conversation.data for conversation, _ in outcome.wrong}
    assert kept


def test_the_same_seed_makes_the_same_requests_and_each_can_be_made_alone() -> None:
    for make in (raw, bodies):
        everything = list(make(SEED, 200))
        assert everything == list(make(SEED, 200))
        assert everything != list(make(SEED + 1, 200))
        assert len({one.name for one in everything}) == len(everything)


def judged(received: bytes, *paths: str, sent: bytes = b"") -> list[str]:
    findings = Findings()
    findings.judge(Conversation("a", (sent,), paths), received)
    return [what for _, what in findings.faults]


def http(status: int, body: bytes, *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status} A", f"Content-Length: {len(body)}", "X-Request-ID: a", *fields]
    return "\r\n".join([*lines, "", ""]).encode() + body


PROBLEM_TYPE = "Content-Type: application/problem+json"


def test_what_is_answered_as_documented_is_no_fault() -> None:
    assert judged(b"") == []
    assert judged(http(200, PREDICTION), "/predict") == []
    assert judged(http(400, PROBLEM, PROBLEM_TYPE) * 2, "/predict", "/predict") == []
    assert judged(http(400, PROBLEM, PROBLEM_TYPE, "Connection: close"), "/a", "/b") == []
    head = http(200, PREDICTION).removesuffix(PREDICTION)
    assert judged(head + http(200, PREDICTION), sent=request("/a", method="HEAD")) == []


@pytest.mark.parametrize(
    ("received", "paths"),
    [
        (http(500, PROBLEM.replace(b"400", b"500"), PROBLEM_TYPE), ()),
        (http(400, PROBLEM, "Content-Type: text/html"), ()),
        (http(422, PROBLEM, PROBLEM_TYPE), ()),
        (http(400, b"{}", PROBLEM_TYPE), ()),
        (http(400, PROBLEM.replace(b'"pointer"', b'"where"'), PROBLEM_TYPE), ()),
        (http(200, PREDICTION), ("/predict", "/predict")),
        (http(200, PREDICTION)[:-1], ()),
        (b"nonsense", ()),
        (http(200, PREDICTION.replace(b"0.8", b"NaN")), ("/predict",)),
        (http(200, PREDICTION.replace(b"0.8", b"0.7")), ("/predict",)),
        (http(200, PREDICTION.replace(b"0.2", b"null")), ("/predict",)),
        (http(200, PREDICTION.replace(b":1,", b":0,")), ("/predict",)),
        (http(200, PREDICTION.replace(b":1,", b":7,")), ("/predict",)),
        (http(200, b"{"), ("/predict/batch",)),
        (http(200, b'{"predictions":[],"total_samples":1,"model_version":"1"}'), ("/p/batch",)),
    ],
)
def test_anything_else_is_a_fault(received: bytes, paths: tuple[str, ...]) -> None:
    assert len(judged(received, *paths)) == 1


def test_a_refusal_without_an_id_is_a_fault() -> None:
    assert fault_of(Answer(404, (("content-type", "application/problem+json"),), PROBLEM))
